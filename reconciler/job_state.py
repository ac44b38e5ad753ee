"""All of one job that a pass reads, and its allocations judged by the rules. Pure."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec

from reconciler.changes import GroupChanges, Stop
from reconciler.rules import Subject, Verdict, judge
from trueup.models.allocation import Allocation, StopReason
from trueup.models.deployment import Deployment
from trueup.models.digest import group_digest
from trueup.models.ids import NodeId
from trueup.models.job import Job, TaskGroup
from trueup.models.node import Node
from trueup.models.record import JobRecord, JobVersion
from trueup.models.remembered import remembered
from trueup.models.template import ClusterSettings


class JobState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All of one job that a pass reads.

    *version* is the one wanted (None: the job is removed), *stable* the newest healthy one before it with other tasks,
    *reverted* says that *version* is one that was gone back to. *waits_for* names dependencies that are not yet
    healthy, *stops_after* dependants that have not ended yet, *emptied_nodes* draining nodes on which nothing but
    system jobs is left.
    """

    name: str
    record: JobRecord | None
    version: JobVersion | None
    versions: Mapping[int, JobVersion]
    allocations: Sequence[Allocation]
    deployments: Sequence[Deployment]
    nodes: Mapping[NodeId, Node]
    settings: ClusterSettings
    stable: JobVersion | None = None
    reverted: bool = False
    waits_for: tuple[str, ...] = ()
    stops_after: tuple[str, ...] = ()
    emptied_nodes: frozenset[NodeId] = frozenset()


def verdicts_of(
    actual: JobState, version: JobVersion, group: TaskGroup, now: datetime, held: Sequence[Allocation]
) -> list[Verdict]:
    """What each of *held* is to its group, by index."""
    digest = group_digest(version.job, group)
    found = []
    for allocation in held:
        placed_by = actual.versions.get(allocation.job_version)
        found.append(
            judge(
                Subject(
                    allocation=allocation,
                    node=actual.nodes.get(allocation.node_id),
                    job=version.job,
                    group=group,
                    digest=digest,
                    type_when_placed=version.job.type if placed_by is None else placed_by.job.type,
                    now=now,
                )
            )
        )
    return sorted(found, key=lambda one: (one.allocation.index, one.allocation.created_at, one.allocation.id))


def is_of_version(actual: JobState, version: JobVersion, held: Allocation) -> bool:
    """Whether *version* changes nothing for it: it is of it, or of one that differs in what touches no allocation.

    The contract: `promote`, `frozen` and `suspended` are neither in place nor destructive.
    """
    if held.job_version == version.version:
        return True
    earlier = actual.versions.get(held.job_version)
    return earlier is not None and _settled_part(earlier.job) == _settled_part(version.job)


@remembered
def _settled_part(job: Job) -> Job:
    update = msgspec.structs.replace(job.update, promote="")
    return msgspec.structs.replace(job, update=update, frozen=False, suspended=False)


def of_group(actual: JobState, group: TaskGroup) -> list[Allocation]:
    """What of the group is wanted, scheduled runs apart."""
    return [
        held
        for held in actual.allocations
        if held.group == group.name and held.is_wanted and not is_of_run(actual, held)
    ]


def of_another_kind(actual: JobState, group: TaskGroup) -> list[Stop]:
    """What runs of the group from before the job got its schedule, or of a schedule that it has no more: it ends."""
    has_runs = actual.version is not None and actual.version.job.schedule is not None
    return [
        Stop(allocation=held, reason="not needed")
        for held in by_index(actual.allocations)
        if held.group == group.name
        and held.is_wanted
        and not held.is_terminal
        and is_of_run(actual, held) != has_runs
    ]


def is_of_run(actual: JobState, held: Allocation) -> bool:
    """Whether it belongs to a scheduled run, be it one whose time nobody noted."""
    placed_by = actual.versions.get(held.job_version)
    return held.run is not None or (placed_by is not None and placed_by.job.schedule is not None)


def groups_gone(actual: JobState, version: JobVersion) -> dict[str, GroupChanges]:
    """Groups that the job has no more: what runs of them ends."""
    names = {group.name for group in version.job.groups}
    gone = [
        held
        for held in by_index(actual.allocations)
        if held.group not in names and held.is_wanted and not held.is_terminal
    ]
    return {
        name: GroupChanges(
            stop=tuple(Stop(allocation=held, reason="not needed") for held in gone if held.group == name)
        )
        for name in sorted({held.group for held in gone})
    }


def preference(verdict: Verdict, digest: str) -> tuple[int, int, int, datetime, str]:
    """Sorts first what to keep of several: running before gone, of the wanted version, newest version, oldest."""
    held = verdict.allocation
    standing = {"keep": 0, "done": 0, "migrate": 1, "wait": 2, "replace": 3, "rerun": 3}.get(
        verdict.standing, 4
    )
    return (standing, 0 if held.digest == digest else 1, -held.job_version, held.created_at, held.id)


def one_for_each(
    verdicts: Sequence[Verdict], place: Callable[[Allocation], int | NodeId]
) -> tuple[list[Verdict], list[Stop]]:
    """The best of those that share a *place*, and stops for the others: a name is wanted once.

    What gives way to another version (to a promoted canary) is updated by it.
    """
    by_place: dict[int | NodeId, list[Verdict]] = {}
    for one in verdicts:
        by_place.setdefault(place(one.allocation), []).append(one)
    kept: list[Verdict] = []
    twins: list[Stop] = []
    for found in by_place.values():
        best, *others = sorted(found, key=lambda one: preference(one, ""))
        kept.append(best)
        for one in others:
            is_older = one.allocation.digest != best.allocation.digest
            twins.append(surplus_stop(one, "updating" if is_older else "not needed"))
    return kept, twins


def scale_down(verdicts: Sequence[Verdict], count: int) -> tuple[list[Verdict], list[Stop]]:
    """What stays and what goes: draining ones first, then the highest index; gaps are never closed by moving.

    What has finished is not needed either, but stays as it is: it counts again should the count grow.
    """
    surplus = len(verdicts) - count
    if surplus <= 0:
        return list(verdicts), []
    order = sorted(
        verdicts,
        key=lambda one: (one.standing not in {"migrate", "replace", "rerun"}, -one.allocation.index),
    )
    going = order[:surplus]
    ids = {one.allocation.id for one in going}
    stops = [surplus_stop(one, "not needed") for one in going if one.standing not in {"done", "rerun"}]
    return [one for one in verdicts if one.allocation.id not in ids], stops


def index_of(held: Allocation) -> int:
    """Its index, by which what is counted is known."""
    return held.index


def surplus_stop(verdict: Verdict, reason: StopReason) -> Stop:
    """The stop of what nothing takes the place of; what was lost is told so."""
    return stop_for(verdict, "lost" if verdict.reason == "lost" else reason)


def stop_for(verdict: Verdict, reason: StopReason) -> Stop:
    """The stop of a judged allocation, for another reason than its verdict's."""
    return Stop(allocation=verdict.allocation, reason=reason)


def ending_anyway(verdicts: Sequence[Verdict]) -> tuple[Stop, ...]:
    """Stops of what ends now, whether or not its replacement finds room."""
    return tuple(one.stop for one in verdicts if one.ends_anyway)


def by_index(held: Sequence[Allocation]) -> list[Allocation]:
    """In the order of groups and indexes."""
    return sorted(held, key=lambda one: (one.group, one.index, one.id))
