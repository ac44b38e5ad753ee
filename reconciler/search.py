"""The best node for each placement of a group, one after another.

All nodes are scored at once, as columns; after a placement only the nodes it touched are scored again (all of them
where the group spreads, since a spread looks at the whole). Ties go to the node whose name sorts first. Pure.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from reconciler.changes import Place
from reconciler.feasibility import check, constraints_of
from reconciler.node_table import ABSENT, Column, NodeTable, table_of
from reconciler.preemption import Holder, cost, victims
from reconciler.room import Room
from reconciler.scoring import Neighbourhood, Preferences, boost, preferences_of, score
from trueup.models.allocation import Allocation
from trueup.models.fit import Demand, demand_of, fits
from trueup.models.ids import NodeId
from trueup.models.job import Constraint
from trueup.models.node import Node
from trueup.models.reasons import (
    DISTINCT_HOSTS,
    NO_NODES,
    NOT_READY,
    Reason,
    constraint_failed,
    volume_elsewhere,
)

_NEVER: Final = -np.inf
_POINTS: Final = 1e6
"""Scores are compared as whole millionths, so that the order of floating point sums decides nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A node for a placement, its score, and whom it evicts there."""

    node: Node
    score: float
    evicts: tuple[Holder, ...] = ()


class Search:
    """Finds nodes for one group in one version."""

    def __init__(self, place: Place, room: Room) -> None:
        self._version, self._group, self._room = place.version, place.group, room
        job, settings = place.version.job, room.cluster.settings
        self._demand: Demand = demand_of(place.group)
        self._wanted: Preferences = preferences_of(job, place.group, self._demand, settings)
        self._table: NodeTable = table_of(room.cluster)
        self._may_run = self._table.may_run(job, place.group, settings)
        self._held: Counter[NodeId] = Counter(self._holders())
        self._distinct = [
            one for one in constraints_of(job, place.group) if one.operator.startswith("distinct")
        ]
        self._sticky = [one for one in place.group.volumes if one.sticky and not one.read_only]
        self._by_value = self._spread_counts()
        self._points: Column | None = None

    def serves(self, place: Place) -> bool:
        """Whether this search is about the same group in the same version."""
        return place.version is self._version and place.group is self._group

    def best(self, place: Place) -> Found | None:
        """The best node for *place*, or None if none has room."""
        home = self._home(place)
        if home is not None:
            row = self._table.row_of.get(home)
            rows = [] if row is None or not self._may_run[row] else [row]
            return self._best_of((self._table.nodes[one] for one in rows), place)
        if place.node_id is not None:
            node = self._room.cluster.nodes.get(place.node_id)
            return None if node is None else self._best_of([node], place)
        special = self._special_rows(place)
        plain = self._best_plain(place, special)
        apart = self._best_of((self._table.nodes[row] for row in special if self._may_run[row]), place)
        if plain is None or apart is None:
            return plain or apart
        return min(plain, apart, key=lambda one: (-one.score, one.node.name))

    def by_eviction(self, place: Place) -> Found | None:
        """The node where the least important work would have to give way; None if none may, or that is not enough."""
        job = self._version.job
        if job.type not in self._room.cluster.settings.preemption or self._home(place) is not None:
            return None
        leaving = _leaving(place)
        best: tuple[tuple[int, int, int], str, Found] | None = None
        for node in self._candidates(place):
            if any(self._breaks(node, one, place) for one in self._distinct):
                continue
            used = self._room.without(node.id, leaving)
            found = victims(node, used, self._demand, self._room.holders(node.id, job.name), job.priority)
            if not found:
                continue
            entry = (cost(found), node.name, Found(node=node, score=self._score(node, place), evicts=found))
            if best is None or entry[:2] < best[:2]:
                best = entry
        return None if best is None else best[2]

    def took(self, node: Node, leaving: Allocation | None) -> None:
        """Takes in that *node* got a placement, and that *leaving* went."""
        self._count(node.id, 1)
        touched = {node.id}
        if leaving is not None and not leaving.is_terminal:
            self._count(leaving.node_id, -1)
        if leaving is not None:
            touched.add(leaving.node_id)
        if self._wanted.spreads or (leaving is not None and self._distinct):
            self._points = None
        if self._points is not None:
            for node_id in touched:
                self._score_again(node_id)

    def reasons(self, place: Place) -> Counter[str]:
        """Why each node refuses *place*, counted."""
        cluster, job = self._room.cluster, self._version.job
        if not cluster.nodes:
            return Counter({NO_NODES: 1})
        home = self._home(place)
        found: Counter[str] = Counter()
        for row, node in enumerate(self._table.nodes):
            if home is not None and node.id != home:
                there = cluster.nodes.get(home)
                found[volume_elsewhere(self._sticky[0].source, home if there is None else there.name)] += 1
            elif not self._may_run[row]:
                found[check(node, job, self._group, cluster.settings) or NOT_READY] += 1
            elif place.node_id is None or place.node_id == node.id:
                reason = self._refuses(node, place)
                if reason is not None:
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

    def _special_rows(self, place: Place) -> Sequence[int]:
        """Rows where *place* is scored unlike any other placement: what it replaces is there, or failed there."""
        ids = set(place.avoid_nodes)
        if place.stop is not None:
            ids.add(place.stop.allocation.node_id)
        return [row for one in ids if (row := self._table.row_of.get(one)) is not None]

    def _best_plain(self, place: Place, special: Sequence[int]) -> Found | None:
        """The best node but *special* rows. What has no room now gets none later, and is not looked at again."""
        points = self._all_points() if self._points is None else self._points
        self._points = points
        aside = points[list(special)]
        points[list(special)] = _NEVER
        found: Found | None = None
        while len(points):
            row = int(points.argmax())
            if points[row] == _NEVER:
                break
            node = self._table.nodes[row]
            if self._refuses(node, place) is None:
                found = Found(node=node, score=self._score(node, place))
                break
            points[row] = _NEVER
        points[list(special)] = aside
        return found

    def _all_points(self) -> Column:
        """Every node's score in millionths; minus infinity where the group cannot go."""
        table, demand, wanted = self._table, self._demand, self._wanted
        used_cpu, used_memory = table.used_cpu, table.used_memory
        if self._room.changed:
            used_cpu, used_memory = used_cpu.copy(), used_memory.copy()
            for node_id, used in self._room.changed.items():
                row = table.row_of[node_id]
                used_cpu[row], used_memory[row] = used.cpu_millicores, used.memory_bytes
        cpu, memory = used_cpu + demand.cpu_millicores, used_memory + demand.memory_bytes
        has_room = self._may_run & (cpu <= table.cpu) & (memory <= table.memory)
        cpu, memory = cpu / np.maximum(table.cpu, 1), memory / np.maximum(table.memory, 1)
        total = 1 - (cpu + memory) / 2 if wanted.spread_out else np.minimum(cpu, memory)
        parts = np.ones(len(table.nodes))
        if wanted.count > 1 and self._held:
            twins = self._twins()
            crowded = np.where(twins < wanted.count, -(twins + 1) / wanted.count, -1.0)
            total = total + np.where(twins > 0, crowded, 0.0)
            parts = parts + (twins > 0)
        if wanted.affinities:
            weights = sum(abs(one.weight) for one in wanted.affinities) or 1
            for one in wanted.affinities:
                total = total + np.where(table.meets(one), one.weight / weights, 0.0)
            parts = parts + 1
        if wanted.spreads:
            total = total + self._spread_part()
            parts = parts + 1
        return np.where(has_room, np.rint(total / parts * _POINTS), _NEVER)

    def _twins(self) -> Column:
        twins = np.zeros(len(self._table.nodes))
        for node_id, held in self._held.items():
            row = self._table.row_of.get(node_id)
            if row is not None and held > 0:
                twins[row] = held
        return twins

    def _spread_part(self) -> Column:
        spreads = self._wanted.spreads
        total = np.zeros(len(self._table.nodes))
        for one in spreads:
            codes, values = self._table.values(one.attribute)
            there = self._by_value[one.attribute]
            boosts = [one.weight * boost(one, value, there, self._wanted.count) for value in values]
            # The last stands for nodes without a value: ABSENT counts from the end.
            total += np.array([*boosts, -abs(one.weight)], dtype=np.float64)[codes]
        return total / (sum(abs(one.weight) for one in spreads) or 1)

    def _score_again(self, node_id: NodeId) -> None:
        row = self._table.row_of.get(node_id)
        if self._points is None or row is None:
            return
        node = self._table.nodes[row]
        fits_there = self._may_run[row] and fits(node, self._room.usage(node_id), self._demand) is None
        self._points[row] = round(self._score(node) * _POINTS) if fits_there else _NEVER

    def _candidates(self, place: Place) -> Iterable[Node]:
        if place.node_id is not None:
            node = self._room.cluster.nodes.get(place.node_id)
            return [] if node is None else [node]
        return (self._table.nodes[int(row)] for row in np.flatnonzero(self._may_run))

    def _best_of(self, nodes: Iterable[Node], place: Place) -> Found | None:
        found = [
            Found(node=node, score=self._score(node, place))
            for node in nodes
            if self._refuses(node, place) is None
        ]
        return min(found, key=lambda one: (-one.score, one.node.name), default=None)

    def _refuses(self, node: Node, place: Place) -> Reason | None:
        for constraint in self._distinct:
            reason = self._breaks(node, constraint, place)
            if reason is not None:
                return reason
        return fits(node, self._room.without(node.id, _leaving(place)), self._demand)

    def _breaks(self, node: Node, constraint: Constraint, place: Place) -> Reason | None:
        """Why a constraint on being distinct would be broken there; None if not."""
        leaving = _counted(place)
        if constraint.operator == "distinct_hosts":
            held = self._held[node.id] - (leaving == node.id)
            return DISTINCT_HOSTS if held > 0 else None
        attribute, value = constraint.attribute, constraint.value
        codes, _ = self._table.values(attribute)
        mine = codes[self._table.row_of[node.id]]
        if mine == ABSENT:
            return constraint_failed(attribute, "is_set", "")
        limit = int(value) if value.isdigit() else 1
        held = 0
        for node_id, count in self._held.items():
            row = self._table.row_of.get(node_id)
            if row is not None and codes[row] == mine:
                held += count - (leaving == node_id)
        return constraint_failed(attribute, "distinct_property", value) if held >= limit else None

    def _score(self, node: Node, place: Place | None = None) -> float:
        coupled = None if place is None else _leaving(place)
        twins = self._held[node.id] - (place is not None and _counted(place) == node.id)
        around = Neighbourhood(
            twins=max(twins, 0),
            by_value=self._by_value,
            avoided=place is not None and node.id in place.avoid_nodes,
        )
        return score(node, self._room.without(node.id, coupled), self._wanted, around)

    def _holders(self) -> Iterable[NodeId]:
        for held in self._room.cluster.allocations_of_job(self._version.job.name):
            if held.group == self._group.name and held.is_wanted and not held.is_terminal:
                yield held.node_id

    def _count(self, node_id: NodeId, by: int) -> None:
        """Counts an allocation of the group in or out, on its node and under each value a spread looks at."""
        self._held[node_id] += by
        row = self._table.row_of.get(node_id)
        for spread in self._wanted.spreads:
            codes, values = self._table.values(spread.attribute)
            if row is not None and self._may_run[row] and codes[row] != ABSENT:
                self._by_value[spread.attribute][values[codes[row]]] += by

    def _spread_counts(self) -> Mapping[str, Counter[str]]:
        """How many of the group are at each value that a node which may run it has."""
        counts: dict[str, Counter[str]] = {}
        for spread in self._wanted.spreads:
            codes, values = self._table.values(spread.attribute)
            present = [int(code) for code in np.unique(codes[self._may_run]) if code != ABSENT]
            counts[spread.attribute] = Counter({values[code]: 0 for code in present})
            for node_id, held in self._held.items():
                row = self._table.row_of.get(node_id)
                if row is not None and self._may_run[row] and codes[row] != ABSENT:
                    counts[spread.attribute][values[codes[row]]] += max(held, 0)
        return counts


def _leaving(place: Place) -> Allocation | None:
    """What makes room on its own node for *place*."""
    return place.stop.allocation if place.stop is not None and place.coupled else None


def _counted(place: Place) -> NodeId | None:
    """The node on which what *place* replaces still counts as one of the group; None where it has ended."""
    leaving = None if place.stop is None else place.stop.allocation
    return None if leaving is None or leaving.is_terminal else leaving.node_id
