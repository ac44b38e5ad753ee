"""Where changes go: each placement to the best node that is feasible and has room, or a reason for every node.

Pure and deterministic: nodes are looked at by name, ties go to the first. Every node is scored once a group; after
a placement only the node that took it is scored again (all of them where the group spreads, since a spread looks
at the whole).
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from reconciler.changes import Changes, GroupChanges, Place, Stop
from reconciler.feasibility import check, check_staying, constraints_of
from reconciler.preemption import Holder, cost, victims
from reconciler.scoring import Neighbourhood, Preferences, preferences_of, score
from trueup.models.allocation import Allocation, DeploymentState
from trueup.models.digest import content_digest, group_digest
from trueup.models.evaluation import UnplacedGroup
from trueup.models.fit import Demand, NodeUsage, allocated_resources, assign_ports, demand_of, fits
from trueup.models.ids import AllocationId, IdSource, NodeId
from trueup.models.job import Constraint
from trueup.models.node import Node, attributes_of
from trueup.models.reasons import (
    DISTINCT_HOSTS,
    NO_NODES,
    NOT_READY,
    Reason,
    constraint_failed,
    volume_elsewhere,
)
from trueup.models.state import ClusterState


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A placement that found its node: the new allocation, and what it replaces as it will be (None: nothing).

    *evicted* is work of less important jobs that gives way to it, as it will be.
    """

    place: Place
    allocation: Allocation
    score: float
    stopped: Allocation | None = None
    evicted: tuple[Allocation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One job's plan: all that its pass writes. `stopped` are allocations as they will be."""

    changes: Changes
    placements: tuple[Placement, ...] = ()
    stopped: tuple[Allocation, ...] = ()
    in_place: tuple[Allocation, ...] = ()
    unplaced: tuple[UnplacedGroup, ...] = ()

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
        settled, moved = _in_place(changes, group_changes, cluster, now)
        in_place += settled
        wanted = [*group_changes.canary, *group_changes.place, *moved, *group_changes.migrate]
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


@dataclass(slots=True)
class Room:
    """The cluster's room as a plan goes on: running totals of the state, with what the plan itself takes."""

    cluster: ClusterState
    _changed: dict[NodeId, NodeUsage] = field(default_factory=dict)
    _leaving: set[AllocationId] = field(default_factory=set)

    def usage(self, node_id: NodeId) -> NodeUsage:
        """What is taken on the node. Not to be changed by the caller."""
        return self._changed.get(node_id) or self.cluster.usage(node_id)

    def without(self, node_id: NodeId, *leaving: Allocation | None) -> NodeUsage:
        """What is taken on the node once those of *leaving* that are there have gone."""
        gone = [
            held for held in leaving if held is not None and held.node_id == node_id and held.holds_resources
        ]
        used = self.usage(node_id)
        if not gone:
            return used
        used = used.copy()
        for held in gone:
            used.remove(held)
        return used

    def take(self, allocation: Allocation, *leaving: Allocation) -> None:
        """Counts a placement in, and what goes for it out."""
        used = self.usage(allocation.node_id).copy()
        used.add(allocation)
        self._changed[allocation.node_id] = used
        for held in leaving:
            self._leaving.add(held.id)
            if held.holds_resources:
                old = self.usage(held.node_id).copy()
                old.remove(held)
                self._changed[held.node_id] = old

    def holders(self, node_id: NodeId, job: str) -> list[Holder]:
        """What of other jobs runs on the node and could be told to go."""
        found = []
        for held in self.cluster.allocations_on_node(node_id):
            if held.job == job or held.id in self._leaving or not held.is_wanted or held.is_terminal:
                continue
            wanted = self.cluster.wanted_job(held.job)
            if wanted is not None:
                found.append(Holder(allocation=held, priority=wanted.priority))
        return found


def _in_place(
    changes: Changes, group_changes: GroupChanges, cluster: ClusterState, now: datetime
) -> tuple[list[Allocation], list[Place]]:
    """Updates in place where the allocation still fits, moves where it does not."""
    version = changes.version
    if version is None:
        return [], []
    settled: list[Allocation] = []
    moved: list[Place] = []
    for held in group_changes.in_place:
        group = version.job.group(held.group)
        node = cluster.nodes.get(held.node_id)
        if group is None:
            continue
        if (
            node is None
            or node.status != "ready"
            or not check_staying(node, version.job, group, cluster.settings)
        ):
            settled.append(msgspec.structs.replace(held, job_version=version.version, modified_at=now))
        else:
            stop = Stop(allocation=held, reason="updating")
            moved.append(Place(version=version, group=group, index=held.index, stop=stop, coupled=True))
    return settled, moved


def _place_group(
    name: str, wanted: Sequence[Place], room: Room, now: datetime, ids: IdSource
) -> tuple[list[Placement], list[UnplacedGroup]]:
    placements: list[Placement] = []
    reasons: Counter[str] = Counter()
    missed = 0
    search: _Search | None = None
    for place in wanted:
        if search is None or not search.serves(place):
            search = _Search(place, room)
        found = search.best(place) or search.by_eviction(place)
        if found is None:
            missed += 1
            reasons = search.reasons(place)
            continue
        leaving = place.stop.allocation if place.stop is not None else None
        allocation = _allocation(place, found, room, now, ids)
        evicted = tuple(held.allocation for held in found.evicts)
        room.take(allocation, *evicted, *([leaving] if leaving is not None and place.coupled else []))
        search.took(found.node, leaving)
        placements.append(
            Placement(
                place=place,
                allocation=allocation,
                score=found.score,
                stopped=None if place.stop is None else stop_of(place.stop, now, allocation.id),
                evicted=tuple(stop_of(Stop(allocation=held, reason="preempted"), now) for held in evicted),
            )
        )
    if not missed:
        return placements, []
    return placements, [UnplacedGroup(group=name, count=missed, reasons=dict(sorted(reasons.items())))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A node for a placement, its score, and whom it evicts there."""

    node: Node
    score: float
    evicts: tuple[Holder, ...] = ()


def _allocation(place: Place, found: _Found, room: Room, now: datetime, ids: IdSource) -> Allocation:
    node = found.node
    leaving = place.stop.allocation if place.stop is not None else None
    going = [held.allocation for held in found.evicts]
    used = room.without(node.id, leaving if place.coupled else None, *going)
    allocation_id = AllocationId(ids.new_id())
    return Allocation(
        id=allocation_id,
        name=place.name,
        job=place.version.job.name,
        group=place.group.name,
        index=place.index,
        run=place.run,
        node_id=node.id,
        node=node.name,
        job_version=place.version.version,
        revision=place.version.revision,
        digest=group_digest(place.version.job, place.group),
        ports=_ports(place, used, allocation_id),
        resources=allocated_resources(place.group),
        deployment=None
        if place.deployment is None
        else DeploymentState(id=place.deployment, canary=place.canary),
        reschedule_events=place.reschedule_events,
        replaces=None if leaving is None else leaving.id,
        preempts=tuple(held.id for held in going),
        created_at=now,
        modified_at=now,
    )


def _ports(place: Place, used: NodeUsage, allocation_id: AllocationId) -> dict[str, int]:
    """The id is new each time: a replacement goes where nobody listens, and two clusters of a machine keep apart."""
    demand = demand_of(place.group)
    offset = int(content_digest(allocation_id.encode()), 16)
    dynamic = iter(assign_ports(used, demand, offset) or ())
    return {port.name: next(dynamic) if port.port is None else port.port for port in place.group.ports}


class _Search:
    """The best node for placements of one group in one version, one after another."""

    def __init__(self, place: Place, room: Room) -> None:
        self._version, self._group, self._room = place.version, place.group, room
        self._demand: Demand = demand_of(place.group)
        job = place.version.job
        self._wanted: Preferences = preferences_of(job, place.group, self._demand, room.cluster.settings)
        self._refused: Counter[str] = Counter()
        self._nodes: dict[NodeId, Node] = {}
        for node in sorted(room.cluster.nodes.values(), key=lambda node: node.name):
            reason = check(node, job, place.group, room.cluster.settings)
            if reason is None:
                self._nodes[node.id] = node
            else:
                self._refused[reason] += 1
        self._held: Counter[NodeId] = Counter(self._holders())
        self._distinct = [
            one for one in constraints_of(job, place.group) if one.operator.startswith("distinct")
        ]
        self._sticky = [one for one in place.group.volumes if one.sticky and not one.read_only]
        self._by_value = self._spread_counts()
        self._heap: list[tuple[float, str, NodeId]] | None = None

    def serves(self, place: Place) -> bool:
        """Whether this search is about the same group in the same version."""
        return place.version is self._version and place.group is self._group

    def by_eviction(self, place: Place) -> _Found | None:
        """The node where the least important work would have to give way; None if none may, or that is not enough."""
        job = self._version.job
        if job.type not in self._room.cluster.settings.preemption or self._home(place) is not None:
            return None
        leaving = place.stop.allocation if place.stop is not None and place.coupled else None
        best: tuple[tuple[int, int, int], str, _Found] | None = None
        for node in self._candidates(place):
            if any(self._breaks(node, one, place) for one in self._distinct):
                continue
            used = self._room.without(node.id, leaving)
            found = victims(node, used, self._demand, self._room.holders(node.id, job.name), job.priority)
            if not found:
                continue
            entry = (cost(found), node.name, _Found(node=node, score=self._score(node, place), evicts=found))
            if best is None or entry[:2] < best[:2]:
                best = entry
        return None if best is None else best[2]

    def best(self, place: Place) -> _Found | None:
        """The best node for *place* and its score, or None. Ties go to the node whose name sorts first."""
        home = self._home(place)
        if home is not None:
            return self._best_of([node for node in self._nodes.values() if node.id == home], place)
        if place.node_id is not None or place.stop is not None or place.avoid_nodes:
            return self._best_of(self._candidates(place), place)
        if self._heap is None:
            self._heap = [self._entry(node) for node in self._nodes.values()]
            heapq.heapify(self._heap)
        while self._heap:
            points, _, node_id = self._heap[0]
            node = self._nodes[node_id]
            if self._refuses(node, place) is None:
                return _Found(node=node, score=-points)
            heapq.heappop(self._heap)
        return None

    def took(self, node: Node, leaving: Allocation | None) -> None:
        """Takes in that *node* got a placement, and that *leaving* went."""
        self._held[node.id] += 1
        if (
            leaving is not None
            and leaving.job == self._version.job.name
            and leaving.group == self._group.name
        ):
            self._held[leaving.node_id] -= 1
        self._by_value = self._spread_counts()
        if self._heap is None:
            return
        if self._wanted.spreads or leaving is not None:
            self._heap = None
        elif self._heap and self._heap[0][2] == node.id:
            heapq.heapreplace(self._heap, self._entry(node))
        else:
            self._heap = None

    def reasons(self, place: Place) -> Counter[str]:
        """Why each node refuses *place*, counted."""
        if not self._room.cluster.nodes:
            return Counter({NO_NODES: 1})
        home = self._home(place)
        if home is not None:
            return self._reasons_of_home(home, place)
        found = Counter(self._refused)
        for node in self._nodes.values():
            reason = self._refuses(node, place)
            if reason is not None and (place.node_id is None or place.node_id == node.id):
                found[reason] += 1
        return found

    def _home(self, place: Place) -> NodeId | None:
        """The node that a name is bound to by a written host volume it has used; None if it may go anywhere.

        The contract: a replacement goes only there, until `sticky: false` or `Node.lost`.
        """
        if not self._sticky or place.node_id is not None:
            return None
        held = self._room.cluster.allocations_of_job(self._version.job.name)
        used = [one for one in held if one.name == place.name and one.tasks]
        newest = max(used, key=lambda one: (one.created_at, one.id), default=None)
        if newest is None:
            return None
        node = self._room.cluster.nodes.get(newest.node_id)
        return None if node is not None and node.lost else newest.node_id

    def _reasons_of_home(self, home: NodeId, place: Place) -> Counter[str]:
        cluster = self._room.cluster
        found: Counter[str] = Counter()
        node = cluster.nodes.get(home)
        name = home if node is None else node.name
        for other in cluster.nodes.values():
            if other.id != home:
                found[volume_elsewhere(self._sticky[0].source, name)] += 1
            elif home in self._nodes:
                found[self._refuses(other, place) or NOT_READY] += 1
            else:
                job = self._version.job
                found[check(other, job, self._group, cluster.settings) or NOT_READY] += 1
        return found

    def _candidates(self, place: Place) -> Iterable[Node]:
        if place.node_id is None:
            return self._nodes.values()
        node = self._nodes.get(place.node_id) or self._room.cluster.nodes.get(place.node_id)
        return [] if node is None else [node]

    def _best_of(self, nodes: Iterable[Node], place: Place) -> _Found | None:
        best: tuple[float, str, Node] | None = None
        for node in nodes:
            if self._refuses(node, place) is not None:
                continue
            entry = (-self._score(node, place), node.name, node)
            if best is None or entry[:2] < best[:2]:
                best = entry
        return None if best is None else _Found(node=best[2], score=-best[0])

    def _refuses(self, node: Node, place: Place) -> Reason | None:
        leaving = place.stop.allocation if place.stop is not None and place.coupled else None
        for constraint in self._distinct:
            reason = self._breaks(node, constraint, place)
            if reason is not None:
                return reason
        return fits(node, self._room.without(node.id, leaving), self._demand)

    def _breaks(self, node: Node, constraint: Constraint, place: Place) -> Reason | None:
        """Why a constraint on being distinct would be broken there; None if not."""
        operator, attribute, value = constraint.operator, constraint.attribute, constraint.value
        leaving = None if place.stop is None else place.stop.allocation.node_id
        if operator == "distinct_hosts":
            held = self._held[node.id] - (leaving == node.id)
            return DISTINCT_HOSTS if held > 0 else None
        mine = attributes_of(node).get(attribute)
        if mine is None:
            return constraint_failed(attribute, "is_set", "")
        limit = int(value) if value.isdigit() else 1
        held = 0
        for node_id, count in self._held.items():
            other = self._room.cluster.nodes.get(node_id)
            if other is not None and attributes_of(other).get(attribute) == mine:
                held += count - (leaving == node_id)
        return constraint_failed(attribute, "distinct_property", value) if held >= limit else None

    def _score(self, node: Node, place: Place | None = None) -> float:
        leaving = None if place is None or place.stop is None else place.stop.allocation
        coupled = leaving if place is not None and place.coupled else None
        twins = self._held[node.id] - (leaving is not None and leaving.node_id == node.id)
        around = Neighbourhood(
            twins=max(twins, 0),
            by_value=self._by_value,
            avoided=place is not None and node.id in place.avoid_nodes,
        )
        return score(node, self._room.without(node.id, coupled), self._wanted, around)

    def _entry(self, node: Node) -> tuple[float, str, NodeId]:
        return (-self._score(node), node.name, node.id)

    def _holders(self) -> Iterable[NodeId]:
        for held in self._room.cluster.allocations_of_job(self._version.job.name):
            if held.group == self._group.name and held.is_wanted and not held.is_terminal:
                yield held.node_id

    def _spread_counts(self) -> Mapping[str, Mapping[str, int]]:
        counts: dict[str, Counter[str]] = {}
        for spread in self._wanted.spreads:
            values = counts.setdefault(spread.attribute, Counter())
            for node in self._nodes.values():
                value = attributes_of(node).get(spread.attribute)
                if value is not None:
                    values[value] += max(self._held[node.id], 0)
        return counts
