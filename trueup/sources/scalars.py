"""Plain scalars by the YAML 1.2 core schema: null, booleans, integers and floats; all else is text.

Not YAML 1.1: `no`, `on`, `1:30`, `2024-01-01` and `1_000` are text, `012` is twelve.
"""

import math
import re
from typing import Final

_WORDS: Final[dict[str, bool | None]] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_NUMBER_STARTS: Final = frozenset("0123456789+-.")
_INTEGER: Final = re.compile(r"[-+]?[0-9]+", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_BASED: Final = re.compile(r"0o([0-7]+)|0x([0-9a-fA-F]+)", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", re.ASCII)
_LARGEST: Final = 2**63

Scalar = str | int | float | bool | None


class NotFiniteError(ValueError):
    """A number that is infinite or none at all."""


def resolve(text: str) -> tuple[Scalar, bool]:
    """The value of a plain scalar, and whether YAML reads it as something other than text.

    An integer beyond 64 bits keeps its text, so that whoever wants text has it and whoever wants a number gets a
    clear error. NotFiniteError for `.inf`, `.nan` and floats too large to be one.
    """
    if text in _WORDS:
        return _WORDS[text], True
    if text[0] not in _NUMBER_STARTS:
        return text, False
    if _INTEGER.fullmatch(text):
        return _bounded(text, 10), True
    based = _BASED.fullmatch(text)
    if based:
        return _bounded(text, 8 if based[1] else 16), True
    if _FLOAT.fullmatch(text):
        return _finite(float(text)), True
    if _NOT_FINITE.fullmatch(text):
        raise NotFiniteError
    return text, False


def _bounded(text: str, base: int) -> int | str:
    if len(text) > 64:
        return text
    number = int(text, base)
    return number if -_LARGEST <= number < _LARGEST else text


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise NotFiniteError
    return number
