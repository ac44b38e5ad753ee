"""A plan as a comment for a pull request: safe whatever names and messages hold, and short enough to be accepted.

Everything that comes from specs stands in code spans or fences, whose fence is longer than any run of backticks in
it: nothing in them is a heading, a link, a mention or HTML.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from cli.clean import clean
from cli.plan_lines import loss_lines, plan_lines, sum_line
from cli.wording import held_words
from reconciler.report import JobPlan, PlanReport
from trueup.models.errors import SpecError

MAX_CHARACTERS: Final = 60_000
"""GitHub refuses comments above 65,536 characters."""
_MAX_ROWS: Final = 100
_MAX_MESSAGES: Final = 20
_MAX_LINE: Final = 300
_MAX_NAME: Final = 80


def plan_markdown(report: PlanReport, errors: Sequence[SpecError], warnings: Sequence[str]) -> str:
    """The comment: sums, what is held, errors, a table of jobs, and every line of the plan folded away."""
    parts = ["### trueup plan", sum_line(report).removeprefix("Plan: ")]
    if errors:
        parts += [
            f"**{len(errors)} errors:** these documents stay at their last good version.",
            _listed(errors),
        ]
    if report.held is not None:
        parts += [
            "**This revision would be held.**",
            _fenced(clean_each(held_words(report.held).splitlines())),
        ]
    if warnings:
        parts += ["Warnings:", _listed(warnings)]
    changed = [job for job in report.jobs if job.is_changed or job.unplaced]
    parts += [_table(changed)] if changed else []
    tail = (
        f"Revision {code(report.revision)} on {code(report.base_revision or 'nothing')}, index {report.index}"
    )
    lost = [str(line) for line in loss_lines(report)]
    parts += ["If a node is lost after this:", _fenced(clean_each(lost))] if lost else []
    lines = [str(line) for line in plan_lines(report)]
    room = MAX_CHARACTERS - sum(len(part) + 2 for part in [*parts, tail]) - 200
    details = _details(lines, room) if lines else []
    return "\n\n".join([*parts, *details, tail]) + "\n"


def code(text: str) -> str:
    """*text* as a code span that also stands in a table."""
    shown = clean(text)[:_MAX_LINE].replace("|", "\\|")
    fence = "`" * (_longest_run(shown) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") or not shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def clean_each(lines: Iterable[str]) -> list[str]:
    """Each line safe and of a length that fits."""
    return [clean(line)[:_MAX_LINE] for line in lines]


def _table(jobs: Sequence[JobPlan]) -> str:
    titles = ("job", "", "place", "in place", "replace", "migrate", "canary", "stop", "unplaced")
    rows = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for job in jobs[:_MAX_ROWS]:
        counts = [
            sum(getattr(group, field) for group in job.groups.values())
            for field in ("place", "in_place", "destructive", "migrate", "canary", "stop")
        ]
        counts.append(sum(unplaced.count for unplaced in job.unplaced))
        rows.append(
            f"| {code(job.name[:_MAX_NAME])} | {job.action} | {' | '.join(str(count or '') for count in counts)} |"
        )
    if len(jobs) > _MAX_ROWS:
        rows.append(f"\nand {len(jobs) - _MAX_ROWS} more jobs")
    return "\n".join(rows)


def _details(lines: Sequence[str], room: int) -> list[str]:
    kept: list[str] = []
    for line in clean_each(lines):
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    left = len(lines) - len(kept)
    more = [f"{left} more lines are left out; `trueup plan` shows them all."] if left else []
    return ["<details><summary>Details</summary>", _fenced(kept), "</details>", *more]


def _listed(messages: Sequence[object]) -> str:
    shown = clean_each(str(message) for message in messages[:_MAX_MESSAGES])
    if len(messages) > _MAX_MESSAGES:
        shown.append(f"and {len(messages) - _MAX_MESSAGES} more")
    return _fenced(shown)


def _fenced(lines: Sequence[str]) -> str:
    fence = "`" * max(3, max((_longest_run(line) for line in lines), default=0) + 1)
    return "\n".join([fence, *lines, fence])


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
