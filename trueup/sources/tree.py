"""Plain values that remember where they stand: what parsing makes, rendering merges and errors point into.

A tree is made of dicts and lists with a mark for each entry. Trees are never changed once built; they may share
parts (YAML aliases), so whoever needs another value makes a new container.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from trueup.sources.snapshot import FileKey

Path = tuple[str | int, ...]


class Spot(NamedTuple):
    """One place in a file; *line* and *column* count from 1."""

    file: FileKey
    line: int
    column: int


Mark = tuple[FileKey, int, int, int, int]
"""File, then line and column of the key, then of the value; a plain tuple because a tree makes one for each entry."""


class PlacedMapping(dict[str, Any]):
    """A mapping. *texts* has the source text of each plain scalar that YAML reads as no string (`1.10`, `true`)."""

    __slots__ = ("marks", "texts")

    def __init__(self) -> None:
        super().__init__()
        self.marks: dict[str, Mark] = {}
        self.texts: dict[str, str] = {}

    def put(self, key: str, value: object, mark: Mark, text: str | None = None) -> None:
        """Sets an entry with its mark and, for a plain scalar that is no string, its text."""
        self[key] = value
        self.marks[key] = mark
        if text is not None:
            self.texts[key] = text
        else:
            self.texts.pop(key, None)

    def take(self, other: "PlacedMapping", key: str) -> None:
        """Sets an entry to what *other* has there."""
        self.put(key, other[key], other.marks[key], other.texts.get(key))


class PlacedList(list[Any]):
    """A sequence; *texts* as in PlacedMapping, by position."""

    __slots__ = ("marks", "texts")

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[Mark] = []
        self.texts: dict[int, str] = {}

    def put(self, value: object, mark: Mark, text: str | None = None) -> None:
        """Appends an entry with its mark and text."""
        if text is not None:
            self.texts[len(self)] = text
        self.append(value)
        self.marks.append(mark)

    def take(self, other: "PlacedList", index: int) -> None:
        """Appends what *other* has at *index*."""
        self.put(other[index], other.marks[index], other.texts.get(index))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A whole document: its value, and where that begins."""

    value: Any
    root: Spot

    def spot(self, path: Sequence[str | int], *, key: bool = False) -> Spot:
        """Where the value at *path* stands (or its key); of what is not there, the nearest that it would be in."""
        *_, spot = self.spots(path, key=key)
        return spot

    def spots(self, path: Sequence[str | int], *, key: bool = False) -> list[Spot]:
        """The places on the way to *path*, the root's first, as far as the tree goes."""
        found, value = [self.root], self.value
        for number, step in enumerate(path):
            mark = _mark_of(value, step)
            if mark is None:
                break
            last = number == len(path) - 1
            found.append(Spot(mark[0], mark[1], mark[2]) if key and last else Spot(mark[0], mark[3], mark[4]))
            value = value[step]
        return found

    def text(self, path: Sequence[str | int]) -> str | None:
        """The source text at *path* where YAML reads a plain scalar as no string, else None."""
        value = self.value
        for step in path[:-1]:
            if _mark_of(value, step) is None:
                return None
            value = value[step]
        texts: Mapping[Any, str] = getattr(value, "texts", {})
        return texts.get(path[-1]) if path else None


def _mark_of(value: object, step: str | int) -> Mark | None:
    if isinstance(value, PlacedMapping) and isinstance(step, str):
        return value.marks.get(step)
    if isinstance(value, PlacedList) and isinstance(step, int) and 0 <= step < len(value):
        return value.marks[step]
    return None


def path_text(path: Sequence[str | int]) -> str:
    """A path as errors show it: `groups[0].tasks[1].env.MODE`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif text:
            text += f".{step}"
        else:
            text = step
    return text


def strip_places(value: object) -> Any:  # noqa: ANN401 - plain data is whatever YAML can say
    """The same as plain dicts and lists."""
    if isinstance(value, dict):
        return {key: strip_places(held) for key, held in value.items()}
    if isinstance(value, list):
        return [strip_places(held) for held in value]
    return value
