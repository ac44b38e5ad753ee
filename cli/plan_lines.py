"""A plan as lines with marks: `+` create, `~` in place, `-/+` replace, `-` stop, `>` migrate, `!` unplaced.

One list of lines for the text form and the Markdown form, with the sums that both end in.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, Literal

from cli.blocks import clock_time
from cli.clean import clean
from cli.wording import unplaced_sentence
from reconciler.report import FieldChange, JobPlan, PlannedPlacement, PlannedStop, PlanReport, report_document

Mark = Literal["+", "~", "-/+", "-", ">", "!", " "]

_MARK_OF_ACTION: Final[dict[str, Mark]] = {"create": "+", "update": "~", "delete": "-", "none": " "}
_VALUE_LENGTH: Final = 100
_CONTEXT: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """One line, safe to print; *depth* 0 is a job, 1 what happens to it."""

    mark: Mark
    text: str
    depth: int

    def __str__(self) -> str:
        indent = "    " * self.depth
        return f"{indent}{self.mark:<3} {self.text}".rstrip()


def changed_jobs(report: PlanReport) -> list[JobPlan]:
    """Every job that something happens to, or that found no room."""
    return [job for job in report.jobs if job.is_changed or job.unplaced]


def plan_lines(report: PlanReport) -> list[PlanLine]:
    """Every job that something happens to, with what happens."""
    return [line for job in changed_jobs(report) for line in _job_lines(job)]


def move_lines(job: JobPlan, *, depth: int = 0) -> Iterator[PlanLine]:
    """What would happen to allocations of a job, and what found no room."""
    yield from _moves(job, depth)
    for name, group in sorted(job.groups.items()):
        if group.in_place:
            yield _line("~", f"{group.in_place} of {name} in place", depth=depth)
        if group.destructive_total > group.destructive:
            left = group.destructive_total - group.destructive
            yield _line("-/+", f"{left} more of {name} after these, as update says", depth=depth)
    for unplaced in job.unplaced:
        yield _line("!", unplaced_sentence(unplaced.group, unplaced.count, unplaced.reasons), depth=depth)
    if job.action == "create" and job.next_look is not None and not job.placements and not job.unplaced:
        yield _line(" ", f"begins at {clock_time(job.next_look)}", depth=depth)


def loss_lines(report: PlanReport) -> list[PlanLine]:
    """What the loss of each node that was asked for would leave without room."""
    lines: list[PlanLine] = []
    for loss in report.losses or ():
        moved = f"{_count(loss.moved, 'allocation')} would find room elsewhere"
        words = moved if loss.unplaced else f"nothing is left without room; {moved}"
        lines.append(_line("!" if loss.unplaced else " ", f"if {loss.node} is lost: {words}", depth=0))
        lines += [
            _line("!", f"{one.job}: {unplaced_sentence(one.group, one.count, one.reasons)}")
            for one in loss.unplaced
        ]
    return lines


def sum_line(report: PlanReport) -> str:
    """The sums in one line: `Plan: 1 job to create, 3 unchanged; 3 allocations to place, 1 unplaced.`"""
    summary = report_document(report)["summary"]
    jobs, moves = summary["jobs"], summary["allocations"]
    written = [
        (jobs["create"], "to create"),
        (jobs["update"], "to update"),
        (jobs["delete"], "to delete"),
        (jobs["unchanged"], "unchanged"),
    ]
    moved = [
        (moves["place"], "to place"),
        (moves["in_place"], "in place"),
        (moves["destructive"], "to replace"),
        (moves["migrate"], "to migrate"),
        (moves["canary"], "as canaries"),
        (moves["stop"], "to stop"),
        (moves["unplaced"], "unplaced"),
    ]
    return f"Plan: {_sums(written, 'job') or 'no jobs'}; {_sums(moved, 'allocation') or 'no allocation changes'}."


def _sums(counts: Iterable[tuple[int, str]], noun: str) -> str:
    """What is not zero, the first with its noun."""
    parts = [(count, words) for count, words in counts if count]
    if not parts:
        return ""
    first, *rest = parts
    shown = [f"{_count(first[0], noun)} {first[1]}", *(f"{count} {words}" for count, words in rest)]
    return ", ".join(shown)


def _job_lines(job: JobPlan) -> Iterator[PlanLine]:
    words = {
        "create": "is new",
        "update": "changes",
        "delete": "is removed",
        "none": "stays as it is written",
    }
    yield _line(_MARK_OF_ACTION[job.action], f"job {job.name} {words[job.action]}", depth=0)
    if job.action == "update":
        for change in job.diff:
            yield _line(" ", _change_words(change))
    yield from move_lines(job, depth=1)


def _moves(job: JobPlan, depth: int) -> Iterator[PlanLine]:
    """Placements and stops; those that are one step (a replacement, a migration) in one line."""
    placed_by_name = _by_name(job.placements)
    for stop in job.stops:
        coupled = stop.reason in {"updating", "migrating"} and placed_by_name.get(stop.name)
        if coupled:
            placement = coupled.pop(0)
            yield _coupled(stop, placement, depth)
        else:
            yield _line("-", f"{stop.name} on {stop.node}: {stop.reason}", depth=depth)
    for placements in placed_by_name.values():
        for placement in placements:
            words = f"{placement.name} on {placement.node} (score {placement.score:.2f})"
            yield _line("+", words, depth=depth)


def _coupled(stop: PlannedStop, placement: PlannedPlacement, depth: int) -> PlanLine:
    where = f"on {stop.node}" if stop.node == placement.node else f"from {stop.node} to {placement.node}"
    mark: Mark = "-/+" if stop.reason == "updating" else ">"
    return _line(mark, f"{stop.name} {where}", depth=depth)


def _by_name(placements: Iterable[PlannedPlacement]) -> dict[str, list[PlannedPlacement]]:
    found: dict[str, list[PlannedPlacement]] = {}
    for placement in placements:
        found.setdefault(placement.name, []).append(placement)
    return found


def _change_words(change: FieldChange) -> str:
    """Both values; of long ones the piece where they begin to differ."""
    before, after = _text(change.before), _text(change.after)
    begin = 0
    if max(len(before), len(after)) > _VALUE_LENGTH:
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
        begin = max(0, same - _CONTEXT)
    return f"{change.path}: {_piece(before, begin)} -> {_piece(after, begin)}"


def _text(value: Any) -> str:  # noqa: ANN401 - whatever a spec can hold
    return "(absent)" if value is None else json.dumps(value, ensure_ascii=False)


def _piece(text: str, begin: int) -> str:
    shown = text[begin : begin + _VALUE_LENGTH]
    return f"{'…' if begin else ''}{shown}{'…' if begin + _VALUE_LENGTH < len(text) else ''}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _line(mark: Mark, text: str, *, depth: int = 1) -> PlanLine:
    return PlanLine(mark=mark, text=clean(text), depth=depth)
