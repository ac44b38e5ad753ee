"""Blocks as plain aligned text: what a pipe gets, and what `grep` and `awk` read."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

import click

from cli.blocks import Block, Cell, Facts, Line, Style, Table

_GAP: Final = "  "
_COLOR: Final[dict[Style, dict[str, str | bool]]] = {
    "good": {"fg": "green"},
    "bad": {"fg": "red"},
    "busy": {"fg": "yellow"},
    "faint": {"dim": True},
    "strong": {"bold": True},
}


def plain_text(blocks: Iterable[Block], *, color: bool = False) -> str:
    """The blocks as text ending in a line break; *color* puts in ANSI styles."""
    lines: list[str] = []
    for block in blocks:
        match block:
            case Table():
                lines += _table(block, color=color)
            case Facts():
                lines += _facts(block, color=color)
            case Line():
                lines.append(_GAP * block.indent + _styled(block.cell, color=color))
    return "".join(f"{one.rstrip()}\n" for one in lines)


def width(text: str) -> int:
    """Columns *text* takes on a terminal: two for a wide character, none for one that combines."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def _table(table: Table, *, color: bool) -> list[str]:
    head = tuple(Cell(title, "strong") for title in table.titles)
    return _aligned([head, *table.rows], color=color)


def _facts(facts: Facts, *, color: bool) -> list[str]:
    return _aligned([(Cell(label, "strong"), cell) for label, cell in facts.rows], color=color)


def _aligned(rows: Sequence[Sequence[Cell]], *, color: bool) -> list[str]:
    if not rows:
        return []
    widths = [max(width(row[at].text) for row in rows) for at in range(len(rows[0]))]
    return [
        _GAP.join(
            _styled(cell, color=color) + " " * (size - width(cell.text))
            for cell, size in zip(row, widths, strict=True)
        )
        for row in rows
    ]


def _styled(cell: Cell, *, color: bool) -> str:
    if not color or not cell.style or not cell.text:
        return cell.text
    return click.style(cell.text, **_COLOR[cell.style])  # type: ignore[arg-type] # one dict for all styles
