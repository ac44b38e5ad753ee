"""System and sysbatch: one allocation of each group on every node that may run it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.changes import Changes, GroupChanges, Place, Stop, earliest
from reconciler.feasibility import check, check_staying
from reconciler.job_state import (
    JobState,
    groups_gone,
    is_of_version,
    of_another_kind,
    of_group,
    preference,
    verdicts_of,
)
from reconciler.maker import Maker
from reconciler.rollout import Rollout, govern
from reconciler.rules import Verdict
from trueup.models.allocation import Allocation, StopReason
from trueup.models.digest import group_digest
from trueup.models.ids import NodeId
from trueup.models.job import TaskGroup
from trueup.models.node import Node
from trueup.models.record import JobVersion


def on_every_node(actual: JobState, version: JobVersion, now: datetime) -> Changes:
    """System and sysbatch: one allocation of each group on every node that may run it."""
    verdicts = {
        group.name: verdicts_of(actual, version, group, now, of_group(actual, group))
        for group in version.job.groups
    }
    rollout = govern(version, verdicts, actual.deployments, now)
    groups = {
        group.name: _system_changes(actual, version, group, verdicts[group.name], rollout, now)
        for group in version.job.groups
    }
    groups |= groups_gone(actual, version)
    return Changes(
        job=actual.name,
        version=version,
        groups=groups,
        updates=rollout.updates,
        next_look=earliest(
            [
                rollout.next_look,
                *_drain_deadlines(actual, now),
                *(one.due_at for found in verdicts.values() for one in found),
            ]
        ),
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
    foreign = [*of_another_kind(actual, group), *(one.stop for one in verdicts if one.standing == "foreign")]
    by_node: dict[NodeId, list[Verdict]] = {}
    for one in verdicts:
        if one.standing not in {"leaving", "foreign"}:
            by_node.setdefault(one.allocation.node_id, []).append(one)
    found = _Sorted(actual=actual, maker=Maker(version=version, group=group), stop=list(foreign))
    for node in sorted(actual.nodes.values(), key=lambda node: node.name):
        held = sorted(by_node.pop(node.id, []), key=lambda one: preference(one, digest))
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

    actual: JobState
    maker: "Maker"
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
        elif held.reason == "lost":
            # Nothing takes its place while its node is away; the node begins afresh when it returns.
            self.stop.append(held.stop)
        elif held.standing in {"replace", "rerun"} or allocation.is_terminal:
            self.ignored += 1
        elif node.status == "ready" and not stays:
            self.stop.append(Stop(allocation=allocation, reason=_leaving_reason(node)))
        elif held.standing == "keep" and allocation.digest != digest:
            # An ineligible or draining node takes no new one: what runs there stays as it is.
            if accepts:
                self.outdated.append(held)
            else:
                self.ignored += 1
        elif not is_of_version(self.actual, self.maker.version, allocation):
            self.in_place.append(allocation)
        else:
            self.ignored += 1


def _must_leave(node: Node, version: JobVersion, group: TaskGroup, actual: JobState, now: datetime) -> bool:
    """Whether it ends: its node no longer fits, or the drain is overdue, or has moved all else and this is no batch."""
    if check_staying(node, version.job, group, actual.settings) is not None:
        return True
    if node.drain is None:
        return False
    is_last = version.job.type == "system" and node.id in actual.emptied_nodes
    return is_last or now >= node.drain.deadline_at


def _leaving_reason(node: Node) -> StopReason:
    return "migrating" if node.drain is not None else "not needed"
