"""What a command shows to people, before it is decided how: tables, facts and lines, with styles by meaning.

Renderers make plain aligned text (`plain_text`) or fit a terminal's width (`rich_text`). Cells are cleaned here, so
that no renderer can forget it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, Literal, TypeVar

from cli.clean import clean

T = TypeVar("T")
Style = Literal["", "good", "bad", "busy", "faint", "strong"]

_STYLE_OF_WORD: Final[dict[str, Style]] = {
    "Synced": "good",
    "Healthy": "good",
    "running": "good",
    "ready": "good",
    "complete": "good",
    "applied": "good",
    "successful": "good",
    "Progressing": "busy",
    "OutOfSync": "busy",
    "pending": "busy",
    "held": "busy",
    "Suspended": "faint",
    "superseded": "faint",
    "dead": "faint",
    "Unknown": "bad",
    "Invalid": "bad",
    "Degraded": "bad",
    "Missing": "bad",
    "failed": "bad",
    "lost": "bad",
    "unknown": "bad",
    "down": "bad",
    "disconnected": "bad",
    "incompatible": "bad",
    "invalid": "bad",
    "unreachable": "bad",
    "diverged": "bad",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One piece of text with its meaning; safe to print."""

    text: str
    style: Style = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", clean(self.text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under titles. The last column may wrap on a narrow terminal, the others never do."""

    titles: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Labelled values, one a line."""

    rows: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line (an empty one separates), *indent* steps to the right."""

    cell: Cell = Cell("")
    indent: int = 0


Block = Table | Facts | Line


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """How one column of a list is made from an item; *wide* ones show with `-o wide` only."""

    title: str
    of: Callable[[T], str | Cell]
    wide: bool = False


def table(columns: Sequence[Column[T]], items: Iterable[T], *, wide: bool = False) -> Table:
    """A table of *items*; a word the contract knows gets the style of its meaning."""
    shown = [column for column in columns if wide or not column.wide]
    return Table(
        titles=tuple(column.title for column in shown),
        rows=tuple(tuple(_cell(column.of(item)) for column in shown) for item in items),
    )


def facts(*rows: tuple[str, str | Cell]) -> Facts:
    """Labelled values; those without text are left out."""
    made = [(label, _cell(value)) for label, value in rows]
    return Facts(rows=tuple((label, cell) for label, cell in made if cell.text))


def line(text: str = "", style: Style = "", indent: int = 0) -> Line:
    """One line of text."""
    return Line(cell=Cell(text, style), indent=indent)


def word(text: str) -> Cell:
    """A word of the contract in the style of its meaning."""
    return Cell(text, _STYLE_OF_WORD.get(text, ""))


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago *moment* was, in its largest one or two units: `5s`, `3m`, `2h10m`, `4d`; `-` without one."""
    if moment is None:
        return "-"
    return span(now - moment)


def span(length: timedelta) -> str:
    """A length of time for people, rounded down to what matters; below zero counts as none."""
    seconds = max(0, int(length.total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if minutes < 120:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h{minutes % 60}m" if minutes % 60 and hours < 10 else f"{hours}h"
    return f"{days}d"


def clock_time(moment: datetime | None) -> str:
    """A moment in full: `2026-06-01 12:00:00 UTC`."""
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _cell(value: str | Cell) -> Cell:
    return value if isinstance(value, Cell) else word(value)
