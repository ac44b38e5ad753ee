"""Twins of the wire's types that msgspec can make a JSON Schema of.

It has none for our units (`Duration`, `Millicores`, …) and cannot show their defaults: a twin has the JSON form of each
unit in its place, and its fields that have a default are merely not required.
"""

import types
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from trueup.models.units import Bytes, Duration, Millicores, Percent

_UNITS: Final[dict[Any, Any]] = {
    Duration: Annotated[str, msgspec.Meta(description="A span: `500ms`, `10s`, `1h30m`.")],
    Millicores: Annotated[float, msgspec.Meta(description="Cores: `0.25`.", ge=0)],
    Bytes: Annotated[str, msgspec.Meta(description="A size: `64KiB`, `1.5GiB`.")],
    Percent: Annotated[str, msgspec.Meta(description="A share: `50%`.")],
}


def twin_of(kind: Any) -> Any:  # noqa: ANN401 - a type, of whatever sort
    """The twin of a type; the type itself where nothing in it needs one."""
    if kind in _UNITS:
        return _UNITS[kind]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct_twin(kind)
    arguments = get_args(kind)
    if not arguments:
        return kind
    twins = tuple(twin_of(argument) for argument in arguments)
    if get_origin(kind) in {Union, types.UnionType}:
        return reduce(or_, twins)
    origin = get_origin(kind)
    return kind if twins == arguments or origin is None else origin[twins]


@cache
def _struct_twin(kind: type[msgspec.Struct]) -> Any:  # noqa: ANN401 - made here
    hints = get_type_hints(kind)
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        default = msgspec.NODEFAULT if field.required else msgspec.UNSET
        held = twin_of(hints[field.name])
        if not field.required:
            held = held | msgspec.UnsetType
        fields.append((field.name, held, msgspec.field(name=field.encode_name, default=default)))
    return msgspec.defstruct(kind.__name__, fields, namespace={"__doc__": kind.__doc__}, kw_only=True)
