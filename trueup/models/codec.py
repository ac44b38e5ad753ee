"""Models to and from plain data and JSON: the one form of a value in the store, on the wire and in a spec.

What equals its default is left out, so writing a default out changes no byte, and a default that a later
release adds is in no digest.
"""

import threading
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from trueup.models.units import (
    Bytes,
    Duration,
    Millicores,
    Percent,
    format_cores,
    format_duration,
    format_size,
    parse_cores,
    parse_duration,
    parse_percent,
    parse_size,
)

T = TypeVar("T")

_one_at_a_time: Final = threading.Lock()
_understood: Final[set[object]] = set()


class Model(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of what crosses a wire or the store.

    Values are frozen trees and never part of a cycle, so the collector need not walk over them (there are many).
    Readers ignore fields they do not know, so that releases one minor version apart work together; unknown keys
    in specs are found by the JSON Schemas before.
    """


def understood(kind: type[T]) -> type[T]:
    """*kind*, once msgspec knows it whole.

    At the first use of a type, msgspec derives how to read it, and shows other threads what is not yet complete: two
    that read a type for the first time at once end in a crash of the process. So whatever reads a type of structs
    has it through here; the first waits are of a millisecond, all later ones of none.
    """
    if kind not in _understood:
        with _one_at_a_time:
            msgspec.json.Decoder(kind)
            _understood.add(kind)
    return kind


def from_plain(value: object, kind: type[T]) -> T:
    """Builds *kind* from plain data (dicts, lists, strings). msgspec.ValidationError names the path."""
    return msgspec.convert(value, understood(kind), dec_hook=_decode)


def from_json(text: bytes | str, kind: type[T]) -> T:
    """Decodes JSON into *kind*. msgspec.ValidationError or DecodeError if it does not fit."""
    return msgspec.json.decode(text, type=understood(kind), dec_hook=_decode)


_NOTHING: Final = frozenset[str]()
_AS_THEY_ARE: Final = frozenset({str, int, float, bool, type(None)})


def to_plain(value: object) -> Any:  # noqa: ANN401 - plain data is whatever JSON can say
    """Plain data of a model, without what equals its default."""
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, msgspec.Struct):
        return to_plain_without(value, _NOTHING)
    if isinstance(value, (list, tuple)):
        return [to_plain(held) for held in value]
    if isinstance(value, (dict, Mapping)):
        return {str(key): to_plain(held) for key, held in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(to_plain(held) for held in value)
    if isinstance(value, datetime):
        return msgspec.to_builtins(value)
    if isinstance(value, (Duration, Millicores, Bytes, Percent)):
        return _encode(value)
    return value


def to_plain_without(value: msgspec.Struct, names: frozenset[str]) -> dict[str, Any]:
    """The same, without the fields of those *names* (as documents have them)."""
    return {
        name: to_plain(held)
        for name, attribute, default in _fields_without(type(value), names)
        if (held := getattr(value, attribute)) is not default
        and (held != default or default is msgspec.NODEFAULT)
    }


def to_json(value: object) -> bytes:
    """JSON of a model, in field order; defaults of the simple kinds left out."""
    return msgspec.json.encode(value, enc_hook=_encode)


def to_canonical_json(plain: object) -> bytes:
    """JSON of plain data with sorted keys: equal data, equal bytes, whatever the process or release."""
    return msgspec.json.encode(plain, order="deterministic")


@cache
def _fields_without(kind: type[msgspec.Struct], names: frozenset[str]) -> tuple[tuple[str, str, Any], ...]:
    """Of each field but those of *names*: its two names, its default; none where the type is written whole."""
    found = []
    for field in msgspec.structs.fields(kind):
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if not kind.__struct_config__.omit_defaults:
            default = msgspec.NODEFAULT
        if field.encode_name not in names:
            found.append((field.encode_name, field.name, default))
    return tuple(found)


def _decode(kind: type, value: object) -> object:
    if kind is Duration and isinstance(value, str):
        return parse_duration(value)
    if kind is Millicores and isinstance(value, (int, float)) and not isinstance(value, bool):
        return parse_cores(value)
    if kind is Bytes and isinstance(value, str):
        return parse_size(value)
    if kind is Bytes and isinstance(value, int) and not isinstance(value, bool):
        return Bytes(value)
    if kind is Percent and isinstance(value, str):
        return parse_percent(value)
    raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")


def _encode(value: object) -> object:
    if isinstance(value, Millicores):
        return format_cores(value)
    if isinstance(value, Bytes):
        return format_size(value)
    if isinstance(value, Duration):
        return format_duration(value)
    if isinstance(value, Percent):
        return f"{int(value)}%"
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")
