"""What a revision would end without a replacement: its whole effect, not that of its first pass. Pure.

Removal, `count: 0` and `suspended` end what they name. A constraint, a label or a drain ends what runs on every node of
system jobs; what counts its instances moves elsewhere, and ends where a drain finds no room for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from reconciler.changes import Changes, GroupChanges, Place, Stop
from reconciler.dirty import evaluation_order
from reconciler.feasibility import check_staying
from reconciler.planner import plan, stop_of
from trueup.models.allocation import Allocation
from trueup.models.ids import NodeId, RevisionId
from trueup.models.job import Job, TaskGroup
from trueup.models.node import Node
from trueup.models.record import JobVersion
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings


class Loss(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A revision beside what was last applied.

    *wanted* are all jobs as they would be wanted, *nodes* those that its Node documents change, as they would be.
    *unknown* are jobs of adopted allocations that may be in documents nobody can read: nothing of them ends.
    """

    state: ClusterState
    revision: RevisionId
    wanted: Mapping[str, Job]
    nodes: Mapping[NodeId, Node]
    removed_policies: tuple[str, ...]
    settings: ClusterSettings
    now: datetime
    unknown: frozenset[str] = frozenset()


def ended_by(loss: Loss) -> list[Allocation]:
    """All wanted allocations that would end without a replacement, also those that have failed or are lost."""
    by_group: dict[tuple[str, str], list[Allocation]] = {}
    for held in list(loss.state.allocations.values()):
        if held.is_wanted and held.job not in loss.unknown:
            by_group.setdefault((held.job, held.group), []).append(held)
    found: list[Allocation] = []
    for (job_name, group_name), held_ones in sorted(by_group.items()):
        job = loss.wanted.get(job_name)
        group = None if job is None or job.suspended else job.group(group_name)
        if job is None or group is None:
            found += held_ones
        elif job.type in {"system", "sysbatch"}:
            found += _of_every_node(loss, job, group, held_ones)
        elif job.schedule is None:
            found += _beyond_count(group, held_ones)
    found += _without_room(loss, found)
    return [held for held in found if held.client_status != "complete"]


def _beyond_count(group: TaskGroup, held_ones: Sequence[Allocation]) -> list[Allocation]:
    """The highest indexes go first; what shares an index with another is replaced by it."""
    if len(held_ones) <= group.count:
        return []
    indexes = sorted({held.index for held in held_ones})
    going = set(indexes[group.count :])
    return [held for held in held_ones if held.index in going]


def _of_every_node(
    loss: Loss, job: Job, group: TaskGroup, held_ones: Iterable[Allocation]
) -> list[Allocation]:
    applied = loss.state.wanted_job(job.name)
    if applied == job and not loss.nodes and loss.settings == loss.state.settings:
        return []
    found = []
    for held in held_ones:
        before = loss.state.nodes.get(held.node_id)
        after = loss.nodes.get(held.node_id, before)
        if after is None or before is None or before.drain is not None:
            continue
        old = applied or job
        stayed = check_staying(before, old, old.group(group.name) or group, loss.state.settings) is None
        stays = check_staying(after, job, group, loss.settings) is None and after.drain is None
        if stayed and not stays:
            found.append(held)
    return found


def _without_room(loss: Loss, ended: Iterable[Allocation]) -> list[Allocation]:
    """What would leave newly drained nodes and finds no room elsewhere, once what ends has made room."""
    drained = {
        node.id
        for node in loss.nodes.values()
        if node.drain is not None and loss.state.nodes[node.id].drain is None
    }
    if not drained:
        return []
    after = loss.state.copy()
    after.settings = loss.settings
    for node_id, node in loss.nodes.items():
        after.nodes[node_id] = node
    for held in ended:
        after.put_allocation(stop_of(Stop(allocation=held, reason="not needed"), loss.now))
    leaving: dict[str, list[Allocation]] = {}
    for node_id in sorted(drained):
        for held in after.allocations_on_node(node_id):
            job = loss.wanted.get(held.job)
            if (
                held.is_wanted
                and not held.is_terminal
                and job is not None
                and job.type in {"service", "batch"}
            ):
                leaving.setdefault(held.job, []).append(held)
    found: list[Allocation] = []
    ids = _Numbers()
    for name in evaluation_order(after, leaving):
        outcome = plan(_moves(loss, loss.wanted[name], leaving[name]), after, loss.now, ids)
        for placement in outcome.placements:
            after.put_allocation(placement.allocation)
        moved = {one.place.stop.allocation.id for one in outcome.placements if one.place.stop is not None}
        found += [held for held in leaving[name] if held.id not in moved]
    return found


def _moves(loss: Loss, job: Job, leaving: Sequence[Allocation]) -> Changes:
    current = loss.state.current_version(job.name)
    version = JobVersion(
        job=job,
        version=1 if current is None else current.version,
        revision=loss.revision,
        digest="" if current is None else current.digest,
        created_at=loss.now,
    )
    groups = {
        group.name: GroupChanges(
            migrate=tuple(
                Place(
                    version=version,
                    group=group,
                    index=held.index,
                    run=held.run,
                    stop=Stop(allocation=held, reason="migrating"),
                    coupled=True,
                )
                for held in leaving
                if held.group == group.name
            )
        )
        for group in job.groups
    }
    return Changes(job=job.name, version=version, groups=groups)


class _Numbers:
    """Ids for placements that nobody carries out."""

    def __init__(self) -> None:
        self._given = 0

    def new_id(self) -> str:
        self._given += 1
        return f"would-be-{self._given}"
