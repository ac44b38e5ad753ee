"""A plan for a terminal or a pipe: marked lines, what is held, and the sums last."""

from collections.abc import Iterator
from typing import Final

from cli.blocks import Block, Cell, Line, Style, line
from cli.plan_lines import Mark, PlanLine, loss_lines, plan_lines, sum_line
from cli.wording import held_blocks
from reconciler.report import PlanReport

_STYLES: Final[dict[Mark, Style]] = {
    "+": "good",
    "~": "busy",
    "-/+": "busy",
    "-": "bad",
    ">": "busy",
    "!": "bad",
    " ": "",
}


def plan_blocks(report: PlanReport) -> Iterator[Block]:
    """The plan as blocks; the last one holds the sums."""
    lines = plan_lines(report)
    if report.held is not None:
        yield from held_blocks(report.held)
        yield line()
        if not lines:
            yield line("Until then nothing of this revision happens.")
    if report.held is not None and lines:
        yield line("While it is held, this is what happens:", "strong")
    for number, one in enumerate(lines):
        if one.depth == 0 and number:
            yield line()
        yield _styled(one)
    if lines:
        yield line()
    elif not report.has_changes:
        yield line("No changes: what runs is what was asked for.")
    losses = loss_lines(report)
    for one in losses:
        yield _styled(one)
    if losses:
        yield line()
    yield line(sum_line(report), "strong")


def _styled(one: PlanLine) -> Line:
    return Line(cell=Cell(str(one), _STYLES[one.mark]))
