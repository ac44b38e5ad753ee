"""Where changes go: each placement to the best node that is feasible and has room, or a reason for every node.

Pure and deterministic: which node is best is `search`'s answer, ties go to the first name.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from zlib import crc32

import msgspec

from reconciler.changes import Changes, GroupChanges, Place, Stop
from reconciler.room import Room
from reconciler.search import Found, Search
from trueup.models.allocation import Allocation, DeploymentState
from trueup.models.digest import group_digest
from trueup.models.evaluation import UnplacedGroup
from trueup.models.fit import allocated_resources, assign_ports, demand_of
from trueup.models.ids import AllocationId, IdSource, NodeId
from trueup.models.state import ClusterState


class Placement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A placement that found its node: the new allocation, and what it replaces as it will be (None: nothing).

    *evicted* is work of less important jobs that gives way to it, as it will be.
    """

    place: Place
    allocation: Allocation
    score: float
    stopped: Allocation | None = None
    evicted: tuple[Allocation, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One job's plan: all that its pass writes. `stopped` are allocations as they will be.

    *room_version* is that of the state the plan was made from (see `ClusterState.room_version`); None: unknown.
    """

    changes: Changes
    placements: tuple[Placement, ...] = ()
    stopped: tuple[Allocation, ...] = ()
    in_place: tuple[Allocation, ...] = ()
    unplaced: tuple[UnplacedGroup, ...] = ()
    room_version: object = None

    @property
    def all_stopped(self) -> tuple[Allocation, ...]:
        """Everything that is told to stop, alone, for a replacement, or to make room."""
        with_placements = [
            held
            for one in self.placements
            for held in ((one.stopped,) if one.stopped is not None else ()) + one.evicted
        ]
        return (*self.stopped, *with_placements)

    @property
    def is_empty(self) -> bool:
        """Whether no allocation and no deployment changes."""
        return not (
            self.placements
            or self.stopped
            or self.in_place
            or self.changes.deployments
            or self.changes.updates
            or self.changes.ran_at
        )


def plan(changes: Changes, cluster: ClusterState, now: datetime, ids: IdSource) -> Plan:
    """Puts *changes* on nodes of *cluster*, which is only read. Placements of a group go by index."""
    room = Room(cluster)
    stopped: list[Allocation] = []
    in_place: list[Allocation] = []
    placements: list[Placement] = []
    unplaced: list[UnplacedGroup] = []
    for name, group_changes in changes.groups.items():
        stopped += [stop_of(one, now) for one in group_changes.stop]
        in_place += _updated(changes, group_changes, now)
        wanted = [*group_changes.canary, *group_changes.place, *group_changes.migrate]
        wanted += group_changes.destructive
        found, missed = _place_group(name, wanted, room, now, ids)
        placements += found
        unplaced += missed
    return Plan(
        changes=changes,
        placements=tuple(placements),
        stopped=tuple(stopped),
        in_place=tuple(in_place),
        unplaced=tuple(unplaced),
        room_version=cluster.room_version(),
    )


def stop_of(stop: Stop, now: datetime, replaced_by: AllocationId | None = None) -> Allocation:
    """The allocation as it is once told to stop."""
    return msgspec.structs.replace(
        stop.allocation,
        desired_status="evict" if stop.reason == "preempted" else "stop",
        reason=stop.reason,
        replaced_by=replaced_by or stop.allocation.replaced_by,
        modified_at=now,
    )


def _updated(changes: Changes, group_changes: GroupChanges, now: datetime) -> list[Allocation]:
    """What is updated in place, as it will be: `diff` has asked whether it still fits where it is."""
    if changes.version is None:
        return []
    number = changes.version.version
    return [
        msgspec.structs.replace(held, job_version=number, modified_at=now) for held in group_changes.in_place
    ]


def _place_group(
    name: str, wanted: Sequence[Place], room: Room, now: datetime, ids: IdSource
) -> tuple[list[Placement], list[UnplacedGroup]]:
    placements: list[Placement] = []
    missed: list[tuple[Search, Place]] = []
    search: Search | None = None
    maker: _Maker | None = None
    for place in wanted:
        if search is None or maker is None or not search.serves(place):
            search, maker = Search(place, room), _Maker(place, room, now)
        found = search.best(place) or search.by_eviction(place)
        if found is None:
            missed.append((search, place))
            continue
        allocation = maker.allocation(place, found, AllocationId(ids.new_id()))
        if place.stop is None and not found.evicts:
            room.take(allocation)
            search.took(found.row, None)
            placements.append(Placement(place=place, allocation=allocation, score=found.score))
        else:
            placements.append(_taking(place, found, allocation, room, now))
            search.took(found.row, None if place.stop is None else place.stop.allocation)
    return placements, _unplaced(name, missed)


def _taking(place: Place, found: Found, allocation: Allocation, room: Room, now: datetime) -> Placement:
    """The placement of what takes the room of others: of what it replaces, of what it evicts."""
    leaving = [held.allocation for held in found.evicts]
    if place.stop is not None and place.coupled:
        leaving.append(place.stop.allocation)
    room.take(allocation, *leaving)
    return Placement(
        place=place,
        allocation=allocation,
        score=found.score,
        stopped=None if place.stop is None else stop_of(place.stop, now, allocation.id),
        evicted=tuple(
            stop_of(Stop(allocation=held.allocation, reason="preempted"), now) for held in found.evicts
        ),
    )


def _unplaced(name: str, missed: Sequence[tuple[Search, Place]]) -> list[UnplacedGroup]:
    """What found no room, and why. Of those that may go anywhere each is refused by the same nodes: they count once."""
    if not missed:
        return []
    reasons: Counter[str] = Counter()
    anywhere = [one for one in missed if one[1].node_id is None]
    for search, place in (*(one for one in missed if one[1].node_id is not None), *anywhere[-1:]):
        reasons += search.reasons(place)
    return [UnplacedGroup(group=name, count=len(missed), reasons=dict(sorted(reasons.items())))]


class _Maker:
    """Makes the allocations of one group in one version: copies of the first, each with what is its own."""

    def __init__(self, place: Place, room: Room, now: datetime) -> None:
        self._room, self._group, self._demand = room, place.group, demand_of(place.group)
        self._deployment: DeploymentState | None = None
        job, version = place.version.job, place.version
        self._pattern = Allocation(
            id=AllocationId(""),
            name="",
            job=job.name,
            group=place.group.name,
            index=0,
            node_id=NodeId(""),
            node="",
            job_version=version.version,
            revision=version.revision,
            digest=group_digest(job, place.group),
            resources=allocated_resources(place.group),
            created_at=now,
            modified_at=now,
        )

    def allocation(self, place: Place, found: Found, allocation_id: AllocationId) -> Allocation:
        leaving = place.stop.allocation if place.stop is not None else None
        return msgspec.structs.replace(
            self._pattern,
            id=allocation_id,
            name=place.name,
            index=place.index,
            run=place.run,
            node_id=found.node.id,
            node=found.node.name,
            ports=self._ports(place, found, allocation_id) if self._group.ports else {},
            deployment=self._deployment_of(place),
            reschedule_events=place.reschedule_events,
            replaces=None if leaving is None else leaving.id,
            preempts=tuple(held.allocation.id for held in found.evicts) if found.evicts else (),
        )

    def _deployment_of(self, place: Place) -> DeploymentState | None:
        if place.deployment is None:
            return None
        held = self._deployment
        if held is None or (held.id, held.canary) != (place.deployment, place.canary):
            held = self._deployment = DeploymentState(id=place.deployment, canary=place.canary)
        return held

    def _ports(self, place: Place, found: Found, allocation_id: AllocationId) -> dict[str, int]:
        """By the id, which is new each time: a replacement goes where nobody listens, two clusters keep apart."""
        used = self._room.usage(found.node.id)
        if place.stop is not None or found.evicts:
            leaving = place.stop.allocation if place.stop is not None and place.coupled else None
            used = self._room.without(found.node.id, leaving, *(held.allocation for held in found.evicts))
        dynamic = iter(assign_ports(used, self._demand, crc32(allocation_id.encode())) or ())
        return {port.name: next(dynamic) if port.port is None else port.port for port in self._group.ports}
