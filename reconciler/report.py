"""What a dry run shows: the contract's section 5, made from the plans themselves."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from reconciler.changes import GroupChanges
from reconciler.evaluate import unplaced_of
from reconciler.planner import Plan
from trueup.models.allocation import Allocation
from trueup.models.codec import Model, to_plain
from trueup.models.errors import SpecError
from trueup.models.evaluation import UnplacedGroup
from trueup.models.job import Job
from trueup.models.revision import Held

Action = Literal["create", "update", "delete", "none"]


class GroupCounts(Model, frozen=True, kw_only=True):
    """Counts of one pass over one group; `destructive_total` is the whole rollout."""

    place: int = 0
    stop: int = 0
    in_place: int = 0
    destructive: int = 0
    destructive_total: int = 0
    migrate: int = 0
    canary: int = 0
    ignore: int = 0


class FieldChange(Model, frozen=True, kw_only=True):
    """One field of the spec, before and after (None: absent)."""

    path: str
    before: Any = None
    after: Any = None


class PlannedPlacement(Model, frozen=True, kw_only=True):
    """A placement and the score that won."""

    name: str
    node: str
    score: float


class PlannedStop(Model, frozen=True, kw_only=True):
    """An allocation that would be told to stop, and why."""

    id: str
    name: str
    node: str
    reason: str


class JobPlan(Model, frozen=True, kw_only=True):
    """One job's part of the report. *action* is about the spec; `none` may still move allocations."""

    name: str
    action: Action
    groups: dict[str, GroupCounts] = {}
    diff: tuple[FieldChange, ...] = ()
    placements: tuple[PlannedPlacement, ...] = ()
    stops: tuple[PlannedStop, ...] = ()
    unplaced: tuple[UnplacedGroup, ...] = ()
    next_look: datetime | None = None

    @property
    def is_changed(self) -> bool:
        """Whether anything of it would change. What finds no room, and found none before, changes nothing."""
        moved = self.placements or self.stops or any(one.in_place for one in self.groups.values())
        return self.action != "none" or bool(moved)


class LostGroup(Model, frozen=True, kw_only=True):
    """How many of a group the loss of a node would leave without room, and why."""

    job: str
    group: str
    count: int
    reasons: dict[str, int] = {}


class NodeLoss(Model, frozen=True, kw_only=True):
    """What the loss of a node would do: *moved* find room elsewhere, *unplaced* do not."""

    node: str
    moved: int = 0
    unplaced: tuple[LostGroup, ...] = ()


class PlanReport(Model, frozen=True, kw_only=True):
    """The whole report. *losses* None: nobody asked."""

    revision: str
    base_revision: str | None
    index: int
    held: Held | None
    jobs: tuple[JobPlan, ...]
    errors: tuple[SpecError, ...] = ()
    warnings: tuple[str, ...] = ()
    losses: tuple[NodeLoss, ...] | None = None

    @property
    def has_changes(self) -> bool:
        """Whether applying it would change anything, or it would be held."""
        return self.held is not None or any(job.is_changed for job in self.jobs)


def report_document(report: PlanReport) -> dict[str, Any]:
    """The report as the contract's JSON: every field present, `losses` where it was asked for."""
    document = {
        "revision": report.revision,
        "base_revision": report.base_revision,
        "index": report.index,
        "held": None if report.held is None else _held_document(report.held),
        "summary": _summary(report.jobs),
        "jobs": [_job_document(job) for job in report.jobs],
        "errors": [error_document(error) for error in report.errors],
        "warnings": list(report.warnings),
    }
    if report.losses is not None:
        document["losses"] = [_loss_document(loss) for loss in report.losses]
    return document


def _loss_document(loss: NodeLoss) -> dict[str, Any]:
    return {
        "node": loss.node,
        "moved": loss.moved,
        "unplaced": [
            {"job": one.job, "group": one.group, "count": one.count, "reasons": dict(one.reasons)}
            for one in loss.unplaced
        ],
    }


def job_plan(
    name: str, action: Action, before: Job | None, after: Job | None, outcome: Plan | None
) -> JobPlan:
    """One job's part, from its plan (None: the job is not touched by a pass)."""
    changes = field_changes(before, after) if action != "none" else ()
    if outcome is None:
        return JobPlan(name=name, action=action, diff=changes)
    stopped = outcome.all_stopped
    return JobPlan(
        name=name,
        action=action,
        groups={
            group: _counts(group, found, outcome) for group, found in sorted(outcome.changes.groups.items())
        },
        diff=changes,
        placements=tuple(
            PlannedPlacement(name=one.allocation.name, node=one.allocation.node, score=round(one.score, 6))
            for one in outcome.placements
        ),
        stops=tuple(
            _planned_stop(one) for one in sorted(stopped, key=lambda one: (one.group, one.index, one.id))
        ),
        unplaced=unplaced_of(outcome),
        next_look=outcome.changes.next_look,
    )


def field_changes(before: Job | None, after: Job | None) -> tuple[FieldChange, ...]:
    """Every field that differs between two jobs, by path; lists of named things are compared by name."""
    found: list[FieldChange] = []
    if before is None or after is None:
        old = {} if before is None else to_plain(before)
        new = {} if after is None else to_plain(after)
        _compare("", old, new, found)
    else:
        _compare("", before, after, found)
    return tuple(found)


def _compare(path: str, before: object, after: object, found: list[FieldChange]) -> None:
    """Models are compared field by field, so that a default that is not written shows as the value it stands for."""
    if before == after:
        return
    old, new = _parts(before), _parts(after)
    if old is None or new is None or type(before) is not type(after):
        found.append(FieldChange(path=path, before=to_plain(before), after=to_plain(after)))
        return
    form = "{}[{}]" if isinstance(before, (tuple, list)) else "{}.{}"
    for key in sorted({*old, *new}):
        where = form.format(path, key) if path else key
        _compare(where, old.get(key), new.get(key), found)


def _parts(value: object) -> Mapping[str, object] | None:
    """What is in a model, a mapping or a list of named things, by name; None for anything else."""
    if isinstance(value, msgspec.Struct):
        return {field.encode_name: getattr(value, field.name) for field in msgspec.structs.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): held for key, held in value.items()}
    if not isinstance(value, (tuple, list)) or not value:
        return None
    named = {name: held for held in value if (name := _name_of(held)) is not None}
    return named if len(named) == len(value) else None


def _name_of(held: object) -> str | None:
    name = held.get("name") if isinstance(held, Mapping) else getattr(held, "name", None)
    return None if name is None else str(name)


def _counts(group: str, found: GroupChanges, outcome: Plan) -> GroupCounts:
    """A stop that goes with a lost or rescheduled one's replacement is counted as a stop, not as coupled."""
    own = [one for one in outcome.placements if one.allocation.group == group]
    uncoupled = sum(1 for one in own if one.stopped is not None and not one.place.coupled)
    moved = sum(1 for one in outcome.in_place if one.group == group)
    return GroupCounts(
        place=len(found.place),
        stop=len(found.stop) + uncoupled,
        in_place=moved,
        destructive=len(found.destructive) + len(found.in_place) - moved,
        destructive_total=found.destructive_total + len(found.in_place) - moved,
        migrate=len(found.migrate),
        canary=len(found.canary),
        ignore=found.ignore,
    )


def _planned_stop(held: Allocation) -> PlannedStop:
    return PlannedStop(id=held.id, name=held.name, node=held.node, reason=held.reason)


def _summary(jobs: Sequence[JobPlan]) -> dict[str, dict[str, int]]:
    words = {"create": "create", "update": "update", "delete": "delete", "none": "unchanged"}
    counted = dict.fromkeys(("create", "update", "delete", "unchanged"), 0)
    for job in jobs:
        counted[words[job.action]] += 1
    groups = [group for job in jobs for group in job.groups.values()]
    allocations = {
        field: sum(getattr(group, field) for group in groups)
        for field in ("place", "stop", "in_place", "destructive", "migrate", "canary")
    }
    allocations["unplaced"] = sum(one.count for job in jobs for one in job.unplaced)
    return {"jobs": counted, "allocations": allocations}


def _job_document(job: JobPlan) -> dict[str, Any]:
    return {
        "name": job.name,
        "action": job.action,
        "groups": {
            name: {field: getattr(group, field) for field in GroupCounts.__struct_fields__}
            for name, group in job.groups.items()
        },
        "diff": [{"path": one.path, "before": one.before, "after": one.after} for one in job.diff],
        "placements": [{"name": one.name, "node": one.node, "score": one.score} for one in job.placements],
        "stops": [
            {"id": one.id, "name": one.name, "node": one.node, "reason": one.reason} for one in job.stops
        ],
        "unplaced": [
            {"group": one.group, "count": one.count, "reasons": dict(one.reasons)} for one in job.unplaced
        ],
        "next_look": to_plain(job.next_look),
    }


def _held_document(held: Held) -> dict[str, Any]:
    return {
        "revision": held.revision,
        "reason": held.reason,
        "removes": list(held.removes),
        "confirm": held.confirm,
    }


def error_document(error: SpecError) -> dict[str, Any]:
    """An error by the contract's section 3: every field present."""
    return {
        "file": error.file,
        "line": error.line,
        "column": error.column,
        "path": error.path,
        "message": error.message,
        "hint": error.hint,
    }
