"""Blocks fitted to a terminal's width by rich. Imported only where stdout is a terminal: it costs 0.1 s."""

from collections.abc import Iterable
from typing import Final

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from cli.blocks import Block, Cell, Facts, Line, Style, Table

_LAST_WIDTH: Final = 6
_ANY_WIDTH: Final = 10_000

_STYLES: Final[dict[Style, str]] = {
    "": "",
    "good": "green",
    "bad": "red",
    "busy": "yellow",
    "faint": "dim",
    "strong": "bold",
}


def make_console(*, color: bool) -> Console:
    """A console on stdout that adds no styles of its own to text."""
    return Console(highlight=False, markup=False, emoji=False, no_color=not color, soft_wrap=False)


def print_fitted(blocks: Iterable[Block], *, color: bool) -> None:
    """Prints blocks at the terminal's width, or at the least width they need: the terminal then wraps lines."""
    console, made = make_console(color=color), renderable(blocks)
    needed = console.measure(made, options=console.options.update(max_width=_ANY_WIDTH)).minimum
    console.width = max(console.width, needed)
    console.print(made, crop=False)


def renderable(blocks: Iterable[Block]) -> Group:
    """The blocks as one thing that rich can print or keep on the screen."""
    return Group(*(_one(block) for block in blocks))


def _one(block: Block) -> RenderableType:
    match block:
        case Table():
            return _grid(tuple(Cell(title, "strong") for title in block.titles), block.rows)
        case Facts():
            return _grid(None, tuple((Cell(label, "strong"), cell) for label, cell in block.rows))
        case Line():
            return Padding(_text(block.cell), (0, 0, 0, 2 * block.indent))


def _grid(head: tuple[Cell, ...] | None, rows: tuple[tuple[Cell, ...], ...]) -> Grid:
    grid = Grid.grid(padding=(0, 2, 0, 0), pad_edge=False)
    columns = len(head if head is not None else rows[0]) if head is not None or rows else 0
    for at in range(columns - 1):
        # Never narrower than its text: a cut name is of no use, a terminal that wraps the line is.
        cells = [row[at] for row in (*([head] if head is not None else []), *rows)]
        grid.add_column(no_wrap=True, overflow="ignore", min_width=max(cell_len(cell.text) for cell in cells))
    if columns:
        grid.add_column(overflow="fold", min_width=_LAST_WIDTH)
    for row in (*([head] if head is not None else []), *rows):
        grid.add_row(*(_text(cell) for cell in row))
    return grid


def _text(cell: Cell) -> Text:
    return Text(cell.text, style=_STYLES[cell.style])
