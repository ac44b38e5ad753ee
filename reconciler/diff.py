"""The difference between what git wants of one job and what is: what to place, stop, migrate and update.

Pure, and blind to room: which node takes a placement, and whether any can, is `planner`'s answer. Source of the
rules: the contract's *Semantics* and Nomad's reconciler.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.canaries import canary_indexes, is_canary
from reconciler.changes import Changes, GroupChanges, Place, Stop, earliest
from reconciler.feasibility import check, check_staying
from reconciler.rollout import Rollout, cancelled, govern
from reconciler.rules import Subject, Verdict, judge
from reconciler.schedule import DueRun, due_run
from trueup.models.allocation import Allocation, StopReason
from trueup.models.deployment import Deployment
from trueup.models.digest import group_digest
from trueup.models.ids import AllocationId, NodeId
from trueup.models.job import TaskGroup
from trueup.models.node import Node
from trueup.models.record import JobRecord, JobVersion
from trueup.models.template import ClusterSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
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


def diff(actual: JobState, now: datetime) -> Changes:
    """What should change for one job, in one pass."""
    if actual.version is None:
        return _end(actual, None, "job removed", now)
    job = actual.version.job
    if job.suspended:
        return _end(actual, actual.version, "suspended", now)
    if actual.waits_for and not actual.allocations:
        return Changes(job=job.name, version=actual.version, waits_for=actual.waits_for)
    if job.schedule is not None:
        return _scheduled(actual, actual.version, now)
    if job.type in {"system", "sysbatch"}:
        return _on_every_node(actual, actual.version, now)
    return _counted(actual, actual.version, now)


def _end(actual: JobState, version: JobVersion | None, reason: StopReason, now: datetime) -> Changes:
    """Ends all of a job; what has finished stays as history. Dependants end first."""
    wanted = [held for held in actual.allocations if held.is_wanted and not held.is_terminal]
    if actual.stops_after and reason == "job removed":
        return Changes(job=actual.name, version=version, waits_for=actual.stops_after)
    groups: dict[str, GroupChanges] = {}
    for name in sorted({held.group for held in wanted}):
        stops = tuple(
            Stop(allocation=held, reason=reason) for held in _by_index(wanted) if held.group == name
        )
        groups[name] = GroupChanges(stop=stops)
    return Changes(
        job=actual.name, version=version, groups=groups, deployments=cancelled(actual.deployments, now)
    )


def _counted(actual: JobState, version: JobVersion, now: datetime) -> Changes:
    """Service and batch: *count* allocations of each group, by index."""
    verdicts = {
        group.name: _verdicts(actual, version, group, now, _of_group(actual, group))
        for group in version.job.groups
    }
    rollout = govern(
        version, verdicts, actual.deployments, now, stable=actual.stable, reverted=actual.reverted
    )
    groups = {
        group.name: _group_changes(actual, version, group, verdicts[group.name], rollout)
        for group in version.job.groups
    }
    groups |= _groups_gone(actual, version)
    return Changes(
        job=actual.name,
        version=version,
        groups=groups,
        deployments=rollout.deployments_for(groups),
        updates=rollout.updates,
        stable_version=rollout.stable_version,
        reverts_to=rollout.reverts_to,
        reverts_because=rollout.reverts_because,
        next_look=earliest(
            [rollout.next_look, *(one.due_at for found in verdicts.values() for one in found)]
        ),
    )


def _group_changes(
    actual: JobState,
    version: JobVersion,
    group: TaskGroup,
    verdicts: Sequence[Verdict],
    rollout: Rollout,
) -> GroupChanges:
    foreign = tuple(one.stop for one in verdicts if one.standing == "foreign")
    counted = [one for one in verdicts if one.standing not in {"leaving", "foreign"}]
    canaries = [one for one in counted if is_canary(one.allocation)]
    others = [one for one in counted if not is_canary(one.allocation)]
    if group.name in rollout.canaries:
        return _beside_canaries(actual, version, group, canaries, others, rollout, foreign)
    # Those of the rollout under way were promoted in this very pass; what an older one left has no part in it.
    promoted = [one for one in canaries if one.allocation.id in rollout.promoted]
    dropped = tuple(_stop(one, "not needed") for one in canaries if one not in promoted)
    held, twins = _one_for_each_index([*others, *promoted], rollout.promoted)
    kept, surplus = _scale_down(held, group.count)
    digest = group_digest(version.job, group)
    maker = _Maker(version=version, group=group, rollout=rollout)
    replaced = [maker.instead_of(one) for one in kept if one.standing in {"replace", "rerun"}]
    missing = [maker.at(index) for index in _free_indexes(kept, group.count)]
    place = tuple(sorted([*replaced, *missing], key=lambda one: one.index))
    staying = [one for one in kept if one.standing in {"keep", "wait"}]
    outdated = [one for one in staying if one.allocation.digest != digest and one.standing == "keep"]
    migrating = [one for one in kept if one.standing == "migrate"]
    budget = rollout.budget(group.name, len(place))
    destructive = tuple(maker.coupled(one, "updating") for one in outdated[:budget])
    paced = migrating[: rollout.drain_pace(group.name, len(place) + len(destructive))]
    in_place = tuple(
        one.allocation
        for one in staying
        if one.allocation.digest == digest
        and one.allocation.job_version != version.version
        and not one.allocation.is_terminal
    )
    stop = (*foreign, *dropped, *twins, *(one.stop for one in surplus))
    touched = len(in_place) + len(destructive) + len(paced) + len(replaced)
    return GroupChanges(
        place=place,
        stop=stop,
        in_place=in_place,
        destructive=destructive,
        destructive_total=len(outdated),
        migrate=tuple(maker.coupled(one, "migrating") for one in paced),
        ignore=len(kept) - touched,
    )


def _beside_canaries(
    actual: JobState,
    version: JobVersion,
    group: TaskGroup,
    canaries: Sequence[Verdict],
    others: Sequence[Verdict],
    rollout: Rollout,
    foreign: tuple[Stop, ...],
) -> GroupChanges:
    """While canaries are not promoted: they alone are new, and the old version is kept whole in the old version."""
    digest = group_digest(version.job, group)
    older = _older_version(actual, version, group, others)
    held, twins = _one_for_each_index(others)
    kept, surplus = _scale_down(held, group.count)
    old = _Maker(version=older, group=older.job.group(group.name) or group)
    new = _Maker(version=version, group=group, rollout=rollout)
    replaced = [old.instead_of(one) for one in kept if one.standing in {"replace", "rerun"}]
    missing = [old.at(index) for index in _free_indexes(kept, group.count)]
    outdated = [one for one in kept if one.standing == "keep" and one.allocation.digest != digest]
    migrating = [one for one in kept if one.standing == "migrate"]
    paced = migrating[: rollout.drain_pace(group.name, len(replaced) + len(missing))]
    mine = [
        one
        for one in canaries
        if one.allocation.deployment is not None and one.allocation.deployment.id == rollout.id
    ][: rollout.canaries[group.name]]
    dropped = tuple(_stop(one, "not needed") for one in canaries if one not in mine)
    lost = [new.instead_of(one, canary=True) for one in mine if one.standing in {"replace", "rerun"}]
    indexes = canary_indexes(
        [one.allocation.index for one in outdated],
        [one.allocation.index for one in mine],
        [one.allocation.index for one in kept],
        rollout.canaries[group.name] - len(mine),
    )
    in_place = tuple(
        one.allocation
        for one in [*kept, *mine]
        if one.standing in {"keep", "wait"}
        and one.allocation.digest == digest
        and one.allocation.job_version != version.version
        and not one.allocation.is_terminal
    )
    return GroupChanges(
        place=tuple(sorted([*replaced, *missing], key=lambda one: one.index)),
        stop=(*foreign, *dropped, *twins, *(one.stop for one in surplus)),
        in_place=in_place,
        destructive_total=len(outdated),
        migrate=tuple(old.coupled(one, "migrating") for one in paced),
        canary=(*lost, *(new.at(index, canary=True) for index in indexes)),
        ignore=len(kept) + len(mine) - len(in_place) - len(replaced) - len(lost) - len(paced),
    )


def _older_version(
    actual: JobState, version: JobVersion, group: TaskGroup, others: Sequence[Verdict]
) -> JobVersion:
    """The version that the group runs beside its canaries: the newest of those its allocations have."""
    numbers = sorted({one.allocation.job_version for one in others}, reverse=True)
    found = [actual.versions[number] for number in numbers if number in actual.versions]
    digest = group_digest(version.job, group)
    for one in found:
        old = one.job.group(group.name)
        if old is not None and group_digest(one.job, old) != digest:
            return one
    return version if actual.stable is None else actual.stable


def _stop(verdict: Verdict, reason: StopReason) -> Stop:
    return Stop(allocation=verdict.allocation, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    """Makes placements of one group in one version."""

    version: JobVersion
    group: TaskGroup
    rollout: Rollout | None = None
    run: datetime | None = None

    def at(self, index: int, node_id: NodeId | None = None, *, canary: bool = False) -> Place:
        return Place(
            version=self.version,
            group=self.group,
            index=index,
            run=self.run,
            canary=canary,
            deployment=None if self.rollout is None else self.rollout.id,
            node_id=node_id,
        )

    def instead_of(
        self,
        verdict: Verdict,
        *,
        coupled: bool = False,
        canary: bool = False,
        node_id: NodeId | None = None,
    ) -> Place:
        held = verdict.allocation
        return Place(
            version=self.version,
            group=self.group,
            index=held.index,
            run=self.run,
            stop=verdict.stop,
            coupled=coupled,
            canary=canary,
            deployment=None if self.rollout is None else self.rollout.id,
            node_id=node_id,
            avoid_nodes=frozenset(event.node_id for event in verdict.events if event.node_id is not None),
            reschedule_events=verdict.events,
        )

    def coupled(self, verdict: Verdict, reason: StopReason, node_id: NodeId | None = None) -> Place:
        changed = Verdict(
            allocation=verdict.allocation, standing=verdict.standing, reason=reason, events=verdict.events
        )
        return self.instead_of(changed, coupled=True, node_id=node_id)


def _on_every_node(actual: JobState, version: JobVersion, now: datetime) -> Changes:
    """System and sysbatch: one allocation of each group on every node that may run it."""
    verdicts = {
        group.name: _verdicts(actual, version, group, now, _of_group(actual, group))
        for group in version.job.groups
    }
    rollout = govern(version, verdicts, actual.deployments, now)
    groups = {
        group.name: _system_changes(actual, version, group, verdicts[group.name], rollout, now)
        for group in version.job.groups
    }
    groups |= _groups_gone(actual, version)
    return Changes(
        job=actual.name,
        version=version,
        groups=groups,
        updates=rollout.updates,
        next_look=earliest([rollout.next_look, *_drain_deadlines(actual, now)]),
    )


def _drain_deadlines(actual: JobState, now: datetime) -> list[datetime | None]:
    drained = {held.node_id for held in actual.allocations if not held.is_terminal}
    drains = [node.drain for node in actual.nodes.values() if node.id in drained]
    return [drain.deadline_at for drain in drains if drain is not None and drain.deadline_at > now]


def _system_changes(
    actual: JobState,
    version: JobVersion,
    group: TaskGroup,
    verdicts: Sequence[Verdict],
    rollout: Rollout,
    now: datetime,
) -> GroupChanges:
    job, digest = version.job, group_digest(version.job, group)
    foreign = [one.stop for one in verdicts if one.standing == "foreign"]
    by_node: dict[NodeId, list[Verdict]] = {}
    for one in verdicts:
        if one.standing not in {"leaving", "foreign"}:
            by_node.setdefault(one.allocation.node_id, []).append(one)
    found = _Sorted(maker=_Maker(version=version, group=group), stop=list(foreign))
    for node in sorted(actual.nodes.values(), key=lambda node: node.name):
        held = sorted(by_node.pop(node.id, []), key=lambda one: _preference(one, digest))
        found.stop += [Stop(allocation=one.allocation, reason="not needed") for one in held[1:]]
        accepts = check(node, job, group, actual.settings) is None
        if not held:
            found.missing(node, accepts=accepts)
            continue
        stays = not _must_leave(node, version, group, actual, now)
        found.take(held[0], node, digest, accepts=accepts, stays=stays)
    gone = [one for found in by_node.values() for one in found if not one.allocation.is_terminal]
    stop = (*found.stop, *(Stop(allocation=one.allocation, reason="lost") for one in gone))
    budget = rollout.budget(group.name, 0)
    destructive = tuple(
        found.maker.coupled(one, "updating", one.allocation.node_id) for one in found.outdated[:budget]
    )
    return GroupChanges(
        place=tuple(found.place),
        stop=stop,
        in_place=tuple(found.in_place),
        destructive=destructive,
        destructive_total=len(found.outdated),
        ignore=found.ignored + len(found.outdated) - len(destructive),
    )


@dataclass(slots=True, kw_only=True)
class _Sorted:
    """A system group's allocations, node by node, by what becomes of them."""

    maker: "_Maker"
    stop: list[Stop]
    place: list[Place] = field(default_factory=list)
    outdated: list[Verdict] = field(default_factory=list)
    in_place: list[Allocation] = field(default_factory=list)
    ignored: int = 0

    def missing(self, node: Node, *, accepts: bool) -> None:
        """A node that holds none."""
        if accepts:
            self.place.append(self.maker.at(0, node.id))

    def take(self, held: Verdict, node: Node, digest: str, *, accepts: bool, stays: bool) -> None:
        """A node's one allocation. *accepts*: the node may take a new one; *stays*: this one may go on there."""
        allocation = held.allocation
        if held.standing in {"replace", "rerun"} and accepts:
            self.place.append(self.maker.instead_of(held, node_id=node.id))
        elif held.standing in {"replace", "rerun"} or allocation.is_terminal:
            self.ignored += 1
        elif node.status == "ready" and not stays:
            self.stop.append(Stop(allocation=allocation, reason=_leaving_reason(node)))
        elif held.standing == "keep" and allocation.digest != digest:
            self.outdated.append(held)
        elif allocation.job_version != self.maker.version.version:
            self.in_place.append(allocation)
        else:
            self.ignored += 1


def _must_leave(node: Node, version: JobVersion, group: TaskGroup, actual: JobState, now: datetime) -> bool:
    """Whether a system allocation ends: its node no longer fits, or is drained of all else, or overdue."""
    if check_staying(node, version.job, group, actual.settings) is not None:
        return True
    if node.drain is None:
        return False
    return node.id in actual.emptied_nodes or now >= node.drain.deadline_at


def _leaving_reason(node: Node) -> StopReason:
    return "migrating" if node.drain is not None else "not needed"


def _scheduled(actual: JobState, version: JobVersion, now: datetime) -> Changes:
    """Scheduled batch: each run is a batch of its own, known by its time."""
    record = actual.record
    due: DueRun = due_run(version, record, actual.allocations, now)
    runs = sorted({held.run for held in actual.allocations if held.run is not None and held.is_wanted})
    groups: dict[str, GroupChanges] = {}
    next_looks: list[datetime | None] = [due.next_at]
    for group in version.job.groups:
        found: list[GroupChanges] = []
        for run in runs:
            changes, look = _one_run(actual, version, group, run, now, ended=due.replaces_running)
            found.append(changes)
            next_looks.append(look)
        if due.starts_at is not None:
            maker = _Maker(version=version, group=group, run=due.starts_at)
            found.append(GroupChanges(place=tuple(maker.at(index) for index in range(group.count))))
        groups[group.name] = _sum(found)
    groups |= _groups_gone(actual, version)
    return Changes(
        job=actual.name,
        version=version,
        groups=groups,
        ran_at=due.considered_at,
        next_look=earliest(next_looks),
    )


def _one_run(
    actual: JobState, version: JobVersion, group: TaskGroup, run: datetime, now: datetime, *, ended: bool
) -> tuple[GroupChanges, datetime | None]:
    """A run that began keeps the version it began with; what failed of it is placed again by its policy."""
    held = [one for one in actual.allocations if one.run == run and one.group == group.name]
    verdicts = [one for one in _verdicts(actual, version, group, now, held) if one.standing != "leaving"]
    if ended:
        going = [one for one in verdicts if not one.allocation.is_terminal]
        stops = tuple(Stop(allocation=one.allocation, reason="not needed") for one in going)
        return GroupChanges(stop=stops, ignore=len(verdicts) - len(going)), None
    place = []
    for one in verdicts:
        if one.standing != "replace":
            continue
        began_with = actual.versions.get(one.allocation.job_version, version)
        of = began_with.job.group(group.name) or group
        place.append(_Maker(version=began_with, group=of, run=run).instead_of(one))
    changes = GroupChanges(place=tuple(place), ignore=len(verdicts) - len(place))
    return changes, earliest([one.due_at for one in verdicts])


def _verdicts(
    actual: JobState, version: JobVersion, group: TaskGroup, now: datetime, held: Sequence[Allocation]
) -> list[Verdict]:
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


def _of_group(actual: JobState, group: TaskGroup) -> list[Allocation]:
    return [
        held
        for held in actual.allocations
        if held.group == group.name and held.is_wanted and held.run is None
    ]


def _groups_gone(actual: JobState, version: JobVersion) -> dict[str, GroupChanges]:
    """Groups that the job has no more: what runs of them ends."""
    names = {group.name for group in version.job.groups}
    gone = [
        held
        for held in actual.allocations
        if held.is_wanted
        and not held.is_terminal
        and (held.group not in names or (held.run is None) != (version.job.schedule is None))
    ]
    return {
        name: GroupChanges(
            stop=tuple(
                Stop(allocation=held, reason="not needed") for held in _by_index(gone) if held.group == name
            )
        )
        for name in sorted({held.group for held in gone})
        if name not in names
    }


def _one_for_each_index(
    verdicts: Sequence[Verdict], promoted: frozenset[AllocationId] = frozenset()
) -> tuple[list[Verdict], list[Stop]]:
    """The best of those that share an index, and stops for the others: a name is wanted once.

    What gives way to a canary that was *promoted* in this pass is updated by it.
    """
    by_index: dict[int, list[Verdict]] = {}
    for one in verdicts:
        by_index.setdefault(one.allocation.index, []).append(one)
    kept: list[Verdict] = []
    twins: list[Stop] = []
    for _, found in sorted(by_index.items()):
        best, *others = sorted(found, key=lambda one: _preference(one, ""))
        kept.append(best)
        reason: StopReason = "updating" if best.allocation.id in promoted else "not needed"
        twins += [_stop(one, reason) for one in others]
    return kept, twins


def _preference(verdict: Verdict, digest: str) -> tuple[int, int, int, datetime, str]:
    """Sorts first what to keep of several: running before gone, of the wanted version, newest version, oldest."""
    held = verdict.allocation
    standing = {"keep": 0, "done": 0, "migrate": 1, "wait": 2, "replace": 3, "rerun": 3}.get(
        verdict.standing, 4
    )
    return (standing, 0 if held.digest == digest else 1, -held.job_version, held.created_at, held.id)


def _scale_down(verdicts: Sequence[Verdict], count: int) -> tuple[list[Verdict], list[Verdict]]:
    """What stays and what goes: draining ones first, then the highest index; gaps are never closed by moving."""
    surplus = len(verdicts) - count
    if surplus <= 0:
        return list(verdicts), []
    order = sorted(
        verdicts,
        key=lambda one: (one.standing not in {"migrate", "replace", "rerun"}, -one.allocation.index),
    )
    going = order[:surplus]
    ids = {one.allocation.id for one in going}
    return [one for one in verdicts if one.allocation.id not in ids], going


def _free_indexes(kept: Sequence[Verdict], count: int) -> list[int]:
    taken = {one.allocation.index for one in kept}
    free: list[int] = []
    index = 0
    while len(taken) + len(free) < count:
        if index not in taken:
            free.append(index)
        index += 1
    return free


def _by_index(held: Sequence[Allocation]) -> list[Allocation]:
    return sorted(held, key=lambda one: (one.group, one.index, one.id))


def _sum(found: Sequence[GroupChanges]) -> GroupChanges:
    return GroupChanges(
        place=tuple(one for changes in found for one in changes.place),
        stop=tuple(one for changes in found for one in changes.stop),
        ignore=sum(changes.ignore for changes in found),
    )
