"""Amounts as people write them (`10s`, `256MiB`, `0.25`) and as we add them up (integers and spans).

The three types are their own JSON form: decoding reads the text of a spec, encoding writes the shortest text
that reads back equal. Sums of floats drift, so cores are kept as millicores and sizes as bytes.
"""

import re
from datetime import timedelta
from functools import lru_cache
from typing import Final

_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_MILLISECONDS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)?", re.ASCII)
_BYTES: Final = {
    "TiB": 1024**4,
    "GiB": 1024**3,
    "MiB": 1024**2,
    "KiB": 1024,
    "TB": 1000**4,
    "GB": 1000**3,
    "MB": 1000**2,
    "KB": 1000,
    "B": 1,
}
MAX_DURATION: Final = timedelta(days=36_500)


class Duration(timedelta):
    """A span, written `500ms`, `10s`, `1h30m`; at most 100 years."""

    __slots__ = ()

    def __str__(self) -> str:
        return format_duration(self)


class Millicores(int):
    """Thousandths of a processor core; written in cores (`0.25`)."""

    __slots__ = ()


class Bytes(int):
    """A size, written `64KiB`, `1.5GiB`."""

    __slots__ = ()


class Percent(int):
    """A share in whole percent, written `50%`."""

    __slots__ = ()


def parse_duration(text: str) -> Duration:
    """Reads `500ms`, `10s`, `1h30m`, `0s`. ValueError with a hint for anything else."""
    position, total = 0, 0.0
    for part in _DURATION_PART.finditer(text):
        if part.start() != position:
            break
        position = part.end()
        total += float(part[1]) * _MILLISECONDS[part[2]]
    if not text or position != len(text):
        raise ValueError(f"{text!r} is not a duration; write it like 500ms, 10s or 1h30m")
    if total > MAX_DURATION / timedelta(milliseconds=1):
        raise ValueError(f"{text!r} is longer than 100 years")
    return Duration(milliseconds=round(total))


def format_duration(span: timedelta) -> str:
    """The shortest text `parse_duration` reads back equal, to the millisecond: `1h30m`, `0s`."""
    left = round(span / timedelta(milliseconds=1))
    sign, left = ("-" if left < 0 else ""), abs(left)
    parts = []
    for unit in ("h", "m", "s", "ms"):
        amount, left = divmod(left, _MILLISECONDS[unit])
        if amount:
            parts.append(f"{amount}{unit}")
    return sign + ("".join(parts) or "0s")


def parse_size(text: str) -> Bytes:
    """Reads `64KiB`, `1.5GiB`, `100MB`, `512` (bytes). ValueError with a hint for anything else."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write it like 64KiB, 256MiB or 1.5GiB")
    size = round(float(match[1]) * _BYTES[match[2] or "B"])
    if size > 2**62:
        raise ValueError(f"{text!r} is larger than any machine")
    return Bytes(size)


@lru_cache(maxsize=4096)
def format_size(size: int) -> str:
    """The text of a size in the largest unit that divides it: `256MiB`, `1000B`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def rounded_size(size: int) -> str:
    """About how much it is, for people: `312 MiB`, `1.5 GiB`. It does not read back equal."""
    unit = next((name for name in ("TiB", "GiB", "MiB", "KiB") if size >= _BYTES[name]), "B")
    amount = size / _BYTES[unit]
    return f"{amount:.0f} {unit}" if amount >= 100 else f"{amount:.3g} {unit}"


def parse_cores(cores: float) -> Millicores:
    """Cores as written (`0.25`) to millicores; ValueError below 0 or finer than a millicore."""
    millicores = round(cores * 1000)
    if cores < 0 or abs(millicores - cores * 1000) > 1e-6:
        raise ValueError(f"{cores} is not an amount of cores; the finest step is 0.001")
    return Millicores(millicores)


def format_cores(millicores: int) -> int | float:
    """Millicores as the cores a person writes: 500 → 0.5, 2000 → 2."""
    return millicores // 1000 if millicores % 1000 == 0 else millicores / 1000


def parse_percent(text: str) -> Percent:
    """Reads `50%`, from 0% to 100%. ValueError with a hint for anything else."""
    if not re.fullmatch(r"\d{1,3}%", text, re.ASCII) or int(text[:-1]) > 100:
        raise ValueError(f"{text!r} is not a share; write it like 50%")
    return Percent(int(text[:-1]))
