"""`{{ name }}` in the values of a template: which there are, and what they become.

Works on parsed values, once, never on YAML text: what a parameter holds cannot become YAML, nor another
placeholder. `{{{{` writes `{{`; any other `{{` is an error.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from trueup.sources.parameters import Argument
from trueup.sources.tree import Mark, Path, PlacedList, PlacedMapping

MAX_NODES: Final = 100_000
MAX_CHARACTERS: Final = 4 * 1024**2
_PIECE: Final = re.compile(r"\{\{\{\{|\{\{[ \t]*([A-Za-z_][A-Za-z0-9_-]*)[ \t]*\}\}|\{\{")


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One `{{ name }}`; *name* is empty for a `{{` that begins none."""

    name: str


def split_placeholders(text: str) -> list[str | Placeholder]:
    """The literal parts and placeholders of *text*, in order."""
    pieces: list[str | Placeholder] = []
    position = 0
    for match in _PIECE.finditer(text):
        if match.start() > position:
            pieces.append(text[position : match.start()])
        pieces.append("{{" if match[0] == "{{{{" else Placeholder(match[1] or ""))
        position = match.end()
    if position < len(text):
        pieces.append(text[position:])
    return pieces


def placeholders_in(value: object, at: Path) -> Iterator[tuple[Path, Placeholder, bool]]:
    """Every placeholder of a tree with its path, and whether it stands in a key, where none may."""
    if isinstance(value, str):
        for piece in split_placeholders(value) if "{{" in value else ():
            if isinstance(piece, Placeholder):
                yield at, piece, False
    elif isinstance(value, dict):
        for key, held in value.items():
            if "{{" in key:
                yield (*at, key), Placeholder(""), True
            yield from placeholders_in(held, (*at, key))
    elif isinstance(value, list):
        for index, held in enumerate(value):
            yield from placeholders_in(held, (*at, index))


class RenderError(Exception):
    """A value cannot be put where the template wants it; *path* is in the template's job."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class Substitution:
    """Puts one job's arguments into one template. RenderError for what has no sensible text, or grows too large."""

    def __init__(self, arguments: Mapping[str, Argument]) -> None:
        self._arguments = arguments
        self._nodes = 0
        self._characters = 0

    def value(self, value: object, mark: Mark, text: str | None, at: Path) -> tuple[Any, Mark, str | None]:
        """What stands in place of a value of the template, with its mark and text."""
        if isinstance(value, PlacedMapping):
            return self._mapping(value, at), mark, None
        if isinstance(value, PlacedList):
            return self._sequence(value, at), mark, None
        self._count(at, 1, 0)
        if not isinstance(value, str) or "{{" not in value:
            return value, mark, text
        pieces = split_placeholders(value)
        if len(pieces) == 1 and isinstance(pieces[0], Placeholder):
            whole = self._arguments[pieces[0].name]
            self._count(at, whole.nodes, 0)
            return whole.value, whole.mark, whole.text
        return "".join(self._part(piece, at) for piece in pieces), mark, None

    def _mapping(self, value: PlacedMapping, at: Path) -> PlacedMapping:
        self._count(at, 1, 0)
        made = PlacedMapping()
        for key, held in value.items():
            made.put(key, *self.value(held, value.marks[key], value.texts.get(key), (*at, key)))
        return made

    def _sequence(self, value: PlacedList, at: Path) -> PlacedList:
        self._count(at, 1, 0)
        made = PlacedList()
        for index, held in enumerate(value):
            made.put(*self.value(held, value.marks[index], value.texts.get(index), (*at, index)))
        return made

    def _part(self, piece: str | Placeholder, at: Path) -> str:
        if isinstance(piece, str):
            return piece
        argument = self._arguments[piece.name]
        if argument.value is None or isinstance(argument.value, (dict, list)):
            held = "null" if argument.value is None else "a list or mapping"
            raise RenderError(at, f"parameter {piece.name} is {held}, which has no place in a text")
        text = argument.text
        if text is None:
            text = argument.value if isinstance(argument.value, str) else json.dumps(argument.value)
        self._count(at, 0, len(text))
        return text

    def _count(self, at: Path, nodes: int, characters: int) -> None:
        self._nodes += nodes
        self._characters += characters
        if self._nodes > MAX_NODES or self._characters > MAX_CHARACTERS:
            raise RenderError(at, "the rendered job is too large")
