"""Scheduled batch and sysbatch: each run is a job of its own, known by its time. Pure."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime

from reconciler.changes import Changes, GroupChanges, Place, Stop, earliest
from reconciler.feasibility import check
from reconciler.job_state import (
    JobState,
    ending_anyway,
    groups_gone,
    index_of,
    is_of_run,
    of_another_kind,
    one_for_each,
    verdicts_of,
)
from reconciler.maker import Maker
from reconciler.rules import Verdict
from reconciler.schedule import DueRun, due_run
from trueup.models.allocation import Allocation
from trueup.models.ids import NodeId
from trueup.models.job import TaskGroup
from trueup.models.node import Node
from trueup.models.record import JobVersion


def scheduled(actual: JobState, version: JobVersion, now: datetime) -> Changes:
    """The runs of a job with a schedule: those under way, and the one that is due."""
    runs = {held.run for held in actual.allocations if held.is_wanted and is_of_run(actual, held)}
    verdicts = {
        (group.name, run): _judged(actual, version, group, run, now)
        for group in version.job.groups
        for run in runs
    }
    under_way = any(_any_goes_on(found) for found in verdicts.values())
    due: DueRun = due_run(version, actual.record, actual.allocations, now, under_way=under_way)
    groups: dict[str, GroupChanges] = {}
    next_looks: list[datetime | None] = [due.next_at]
    for group in version.job.groups:
        found = [GroupChanges(stop=tuple(of_another_kind(actual, group)))]
        for run in sorted(runs, key=lambda run: (run is not None, run)):
            of_run = verdicts[group.name, run]
            if due.replaces_running:
                found.append(_ended(of_run))
                continue
            found.append(_one_run(actual, version, group, of_run))
            next_looks += [one.due_at for one in of_run]
        begins = due.starts_at
        if begins is None and _lacks_room(actual, group, sum(len(changes.place) for changes in found)):
            begins = _unfinished(
                actual, version, {run for run in runs if _any_goes_on(verdicts[group.name, run])}
            )
        if begins is not None:
            found.append(GroupChanges(place=_missing(actual, version, group, begins)))
        groups[group.name] = _sum(found)
    groups |= groups_gone(actual, version)
    return Changes(
        job=actual.name,
        version=version,
        groups=groups,
        ran_at=due.considered_at,
        next_look=earliest(next_looks),
    )


def _judged(
    actual: JobState, version: JobVersion, group: TaskGroup, run: datetime | None, now: datetime
) -> list[Verdict]:
    return verdicts_of(actual, version, group, now, _held(actual, group, run))


def _any_goes_on(verdicts: Sequence[Verdict]) -> bool:
    return any(_goes_on(one) for one in verdicts)


def _goes_on(verdict: Verdict) -> bool:
    """Whether it runs, or will again: what failed and is to be placed once more has not ended its run."""
    if verdict.standing == "wait" and verdict.allocation.is_terminal:
        return verdict.due_at is not None
    return verdict.standing not in {"done", "rerun"}


def _ended(verdicts: Sequence[Verdict]) -> GroupChanges:
    going = tuple(Stop(allocation=one.allocation, reason="not needed") for one in verdicts if _goes_on(one))
    return GroupChanges(stop=going, ignore=len(verdicts) - len(going))


def _one_run(
    actual: JobState, version: JobVersion, group: TaskGroup, verdicts: Sequence[Verdict]
) -> GroupChanges:
    """A run that began keeps the version it began with; what failed of it is placed again by its policy."""
    per_node = version.job.type == "sysbatch"
    wanted, twins = one_for_each(verdicts, (lambda held: held.node_id) if per_node else index_of)
    replaced = [one for one in wanted if one.standing == "replace"]
    foreign = [one for one in wanted if one.standing == "foreign"]
    place, lost = _instead_of(actual, version, group, replaced)
    return GroupChanges(
        place=tuple(place),
        stop=(*twins, *ending_anyway(replaced), *(one.stop for one in [*foreign, *lost])),
        ignore=len(wanted) - len(place) - len(foreign) - len(lost),
    )


def _instead_of(
    actual: JobState, version: JobVersion, group: TaskGroup, replaced: Sequence[Verdict]
) -> tuple[list[Place], list[Verdict]]:
    """What takes the place of *replaced*, and those for whom nothing does: of sysbatch, while its node is away."""
    place: list[Place] = []
    lost: list[Verdict] = []
    for one in replaced:
        maker = _maker(actual, version, group, [one.allocation])
        if version.job.type == "batch":
            place.append(maker.instead_of(one))
        elif any(node.id == one.allocation.node_id for node in _nodes_for(actual, version, group)):
            place.append(maker.instead_of(one, node_id=one.allocation.node_id))
        else:
            lost.append(one)
    return place, lost


def _lacks_room(actual: JobState, group: TaskGroup, replacing: int) -> bool:
    """Whether the last pass left more of the group unplaced than what this one places again for what failed."""
    record = actual.record
    return record is not None and any(
        one.group == group.name and one.count > replacing for one in record.unplaced
    )


def _unfinished(
    actual: JobState, version: JobVersion, under_way: AbstractSet[datetime | None]
) -> datetime | None:
    """The newest run that began: what of it found no room stays due until the next one is."""
    noted = None if actual.record is None else actual.record.last_run_at
    may_overlap = version.job.schedule is not None and version.job.schedule.overlap == "allow"
    if not under_way or may_overlap:
        return noted
    return max((run for run in under_way if run is not None), default=None)


def _missing(actual: JobState, version: JobVersion, group: TaskGroup, run: datetime) -> tuple[Place, ...]:
    """What of a run is not placed yet."""
    held = _held(actual, group, run)
    maker = _maker(actual, version, group, held, run)
    if version.job.type == "sysbatch":
        there: set[NodeId] = {one.node_id for one in held}
        nodes = _nodes_for(actual, version, group)
        return tuple(maker.at(0, node.id) for node in nodes if node.id not in there)
    taken = {one.index for one in held}
    return tuple(maker.at(index) for index in range(maker.group.count) if index not in taken)


def _maker(
    actual: JobState,
    version: JobVersion,
    group: TaskGroup,
    held: Sequence[Allocation],
    run: datetime | None = None,
) -> Maker:
    """Makes placements of a run in the version that *held* of it began with; *version* if nothing did."""
    began_with = version if not held else actual.versions.get(held[0].job_version, version)
    return Maker(
        version=began_with,
        group=began_with.job.group(group.name) or group,
        run=run if not held else held[0].run,
    )


def _held(actual: JobState, group: TaskGroup, run: datetime | None) -> list[Allocation]:
    return [
        one
        for one in actual.allocations
        if one.run == run and one.group == group.name and one.is_wanted and is_of_run(actual, one)
    ]


def _nodes_for(actual: JobState, version: JobVersion, group: TaskGroup) -> list[Node]:
    nodes = sorted(actual.nodes.values(), key=lambda node: node.name)
    return [node for node in nodes if check(node, version.job, group, actual.settings) is None]


def _sum(found: Iterable[GroupChanges]) -> GroupChanges:
    parts = list(found)
    return GroupChanges(
        place=tuple(one for changes in parts for one in changes.place),
        stop=tuple(one for changes in parts for one in changes.stop),
        ignore=sum(changes.ignore for changes in parts),
    )
