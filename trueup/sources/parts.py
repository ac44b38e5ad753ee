"""Walks plain data that may have any form: what is not of the form asked for is passed over.

The rules of a job are looked at even where its schema found faults, so that all errors are shown at once.
"""

from collections.abc import Iterator
from typing import Any

from trueup.models.units import Duration, parse_duration
from trueup.sources.report import Report
from trueup.sources.tree import Path

Plain = dict[str, Any]


def mapping(value: Plain, key: str) -> Plain:
    """The mapping under *key*, or an empty one."""
    held = value.get(key)
    return held if isinstance(held, dict) else {}


def mappings(value: Plain, key: str, at: Path) -> Iterator[tuple[Path, Plain]]:
    """The mappings in the list under *key*, with their paths."""
    held = value.get(key)
    for index, item in enumerate(held if isinstance(held, list) else ()):
        if isinstance(item, dict):
            yield (*at, key, index), item


def text(value: Plain, key: str, default: str = "") -> str:
    """The text under *key*, or *default*."""
    held = value.get(key)
    return held if isinstance(held, str) else default


def texts(value: Plain, key: str) -> Iterator[tuple[int, str]]:
    """The texts in the list under *key*, with their positions."""
    held = value.get(key)
    for index, item in enumerate(held if isinstance(held, list) else ()):
        if isinstance(item, str):
            yield index, item


def number(value: Plain, key: str, default: int = 0) -> int:
    """The whole number under *key*, or *default*."""
    held = value.get(key)
    return held if isinstance(held, int) and not isinstance(held, bool) else default


def duration(value: Plain, key: str, default: Duration) -> Duration:
    """The span under *key*, or *default*."""
    try:
        return parse_duration(text(value, key)) if key in value else default
    except ValueError:
        return default


def names(value: Plain, key: str) -> list[str]:
    """The names of the mappings in the list under *key*."""
    return [item["name"] for _, item in mappings(value, key, ()) if isinstance(item.get("name"), str)]


def check_unique(report: Report, value: Plain, key: str, at: Path) -> None:
    """Each name in the list under *key* once."""
    seen: set[str] = set()
    for path, item in mappings(value, key, at):
        name = item.get("name")
        if not isinstance(name, str):
            continue
        if name in seen:
            report.add((*path, "name"), f"{name!r} is used twice in {key}", "give each a name of its own")
        seen.add(name)
