"""The best node for each placement of a group, one after another.

All nodes are scored at once, as columns; after a placement only the nodes it touched are scored again (what a spread
makes of all of them is added for each placement). Ties go to the node whose name sorts first. Pure.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

import msgspec
import numpy as np

from reconciler.changes import Place
from reconciler.columns import FREE_CPU, FREE_MEMORY, Column, Mask
from reconciler.distinct import Distinct, distinct_of
from reconciler.gates import refused
from reconciler.node_table import NodeTable, table_of
from reconciler.packing import NEVER
from reconciler.preemption import PRIORITY_DELTA, Holder, cost, victims
from reconciler.ranking import Entry, Ranking
from reconciler.room import Room
from reconciler.scoring import Score, rows_held
from trueup.models.allocation import Allocation
from trueup.models.fit import DYNAMIC_PORTS, Demand, demand_of, fits
from trueup.models.ids import NodeId
from trueup.models.job import Job
from trueup.models.node import Node
from trueup.models.reasons import NO_NODES, Reason, insufficient, volume_elsewhere

Eviction: TypeAlias = tuple[tuple[int, int, int], int, tuple[Holder, ...]]
"""Its cost, the row, and who would have to go."""


class Found(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A node for a placement, the row it is in, its score, and whom it evicts there."""

    node: Node
    row: int
    score: float
    evicts: tuple[Holder, ...] = ()


class Search:
    """Finds nodes for one group in one version."""

    def __init__(self, place: Place, room: Room) -> None:
        self._version, self._group, self._room = place.version, place.group, room
        job, settings = place.version.job, room.cluster.settings
        self._priority = (room.cluster.wanted_job(job.name) or job).priority
        self._demand: Demand = demand_of(place.group)
        self._table: NodeTable = table_of(room.cluster)
        self._gates = self._table.gates(job, place.group, settings)
        _, self._may_run, bar = self._table.passing(self._gates)
        packing = self._table.packing(self._demand, bar, settings.placement)
        self._score = Score(self._table, job, place.group, packing)
        self._held = rows_held(self._rows_of_others())
        self._distinct: Sequence[Distinct] = distinct_of(job, place.group, self._table, self._held)
        if self._score.spreading is not None:
            self._score.spreading.begin(self._may_run, self._held)
        self._sticky = [one for one in place.group.volumes if one.sticky and not one.read_only]
        self._asks_each = bool(self._demand.static_ports or self._distinct) or self._may_lack_ports(job)
        self._full: set[int] = set()
        self._touched: set[int] = set()
        """Rows that changed since they were scored."""
        self._evictions: dict[int, Eviction] | None = None
        self._evict_again: set[int] = set()
        self._ranking: Ranking | None = None
        self._landscape: Column | None = None

    def serves(self, place: Place) -> bool:
        """Whether this search is about the same group in the same version."""
        return place.version is self._version and place.group is self._group

    def best(self, place: Place) -> Found | None:
        """The best node for *place*, or None if none has room."""
        if place.node_id is not None or self._sticky:
            pinned = self._pinned(place)
            if pinned is not None:
                return self._found(self._best_of(pinned, place))
        if place.stop is None and not place.avoid_nodes:
            return self._found(self._best_plain(place))
        special = self._special_rows(place)
        plain = self._best_plain(place, special)
        apart = self._best_of([row for row in special if self._may_run[row]], place)
        return self._found(max((one for one in (plain, apart) if one is not None), default=None, key=_order))

    def by_eviction(self, place: Place) -> Found | None:
        """The node where the least important work would have to give way; None if none may, or that is not enough."""
        job = self._version.job
        if job.type not in self._room.cluster.settings.preemption or self._home(place) is not None:
            return None
        if place.node_id is not None:
            row = self._table.row_of.get(place.node_id)
            found = None if row is None else self._eviction(row, place)
            return self._evicting([] if found is None else [found], place)
        if self._evictions is None:
            self._evict_again = (
                set(np.flatnonzero(self._may_run).tolist()) if self._has_less_important() else set()
            )
            self._evictions = {}
        for row in self._evict_again:
            self._evictions.pop(row, None)
            if (found := self._eviction(row, None)) is not None:
                self._evictions[row] = found
        self._evict_again.clear()
        special = self._special_rows(place)
        options = [one for row, one in self._evictions.items() if row not in special]
        apart = [self._eviction(row, place) for row in special if self._may_run[row]]
        return self._evicting([*options, *(one for one in apart if one is not None)], place)

    def took(self, row: int, leaving: Allocation | None) -> None:
        """Takes in that a row got a placement, and that *leaving* went."""
        self._count(row, 1)
        self._touched.add(row)
        self._full.discard(row)  # Who was evicted there may have left more than this one takes.
        gone = None if leaving is None else self._table.row_of.get(leaving.node_id)
        if gone is None or leaving is None:
            return
        self._touched.add(gone)
        self._full.discard(gone)
        if not leaving.is_terminal:
            self._count(gone, -1)
        if self._distinct:
            self._begin_anew()

    def reasons(self, place: Place) -> Counter[str]:
        """Why each node refuses *place*, counted."""
        if not self._room.cluster.nodes:
            return Counter({NO_NODES: 1})
        among = np.ones(len(self._table.nodes), dtype=np.bool_)
        found: Counter[str] = Counter()
        home = self._home(place)
        if home is not None:
            there = self._room.cluster.nodes.get(home)
            elsewhere = volume_elsewhere(self._sticky[0].source, home if there is None else there.name)
            row = self._table.row_of.get(home)
            among[:] = False
            found[elsewhere] = len(among)
            if row is not None:
                among[row] = True
                found[elsewhere] -= 1
        elif place.node_id is not None:
            row = self._table.row_of.get(place.node_id)
            among[:] = False
            if row is not None:
                among[row] = True
        for reason, number in refused(self._gates, among):
            found[reason] += number
        counted = _counted_row(place, self._table)
        alone = among if self._asks_each else self._count_full(among, counted, found)
        for row in np.flatnonzero(alone).tolist():
            refusal = self._refuses(row, place, counted)
            if refusal is not None:
                found[refusal] += 1
        return +found

    def standings(self, place: Place) -> list[tuple[float, int]]:
        """Every row that would take *place*, with its whole score as people see it."""
        pinned = self._pinned(place)
        rows = np.flatnonzero(self._may_run).tolist() if pinned is None else pinned
        able = [row for row in rows if self._may_run[row] and self._refuses(row, place, None) is None]
        return [(self._score.shown(self._total(row, place)), row) for row in able]

    def parts(self, row: int) -> dict[str, float]:
        """What the score of a row is the sum of."""
        used = self._room.usage(self._table.nodes[row].id)
        return self._score.parts(row, used, self._held.get(row, 0))

    def node_of(self, row: int) -> Node:
        """The node of a row."""
        return self._table.nodes[row]

    def _count_full(self, among: Mask, leaving: int | None, found: Counter[str]) -> Mask:
        """Counts the rows that lack cpu or memory, as `fits` would; which are left to be asked alone."""
        nodes, demand = self._table.columns.matrix, self._demand
        alone = np.zeros(len(among), dtype=np.bool_)
        asked = [self._table.row_of[node_id] for node_id in self._room.changed]
        asked += [] if leaving is None else [leaving]
        alone[asked] = among[asked]
        among[asked] = False
        no_cpu = among & (nodes[FREE_CPU] < demand.cpu_millicores)
        no_memory = among & ~no_cpu & (nodes[FREE_MEMORY] < demand.memory_bytes)
        found[insufficient("cpu")] += int(np.count_nonzero(no_cpu))
        found[insufficient("memory")] += int(np.count_nonzero(no_memory))
        return alone

    def _may_lack_ports(self, job: Job) -> bool:
        """Whether some node may have too few dynamic ports left, whatever a plan of *job* puts there."""
        most_of_plan = 3 * sum(
            group.count * len(group.ports) for group in job.groups
        )  # New ones, canaries, moves.
        return self._demand.dynamic_ports > 0 and (
            self._table.columns.most_ports + most_of_plan + self._demand.dynamic_ports > len(DYNAMIC_PORTS)
        )

    # Which rows.

    def _pinned(self, place: Place) -> Sequence[int] | None:
        """The rows of a placement that may go to one node only; None if it may go anywhere."""
        home = self._home(place)
        node_id = home or place.node_id
        if node_id is None:
            return None
        row = self._table.row_of.get(node_id)
        return [] if row is None or (home is not None and not self._may_run[row]) else [row]

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

    def _special_rows(self, place: Place) -> Collection[int]:
        """Rows where *place* is scored unlike any other placement: what it replaces is there, or failed there."""
        ids = set(place.avoid_nodes)
        if place.stop is not None:
            ids.add(place.stop.allocation.node_id)
        return sorted(row for one in ids if (row := self._table.row_of.get(one)) is not None)

    def _rows_of_others(self) -> Iterable[int]:
        for held in self._room.cluster.allocations_of_job(self._version.job.name):
            if held.group == self._group.name and held.is_wanted and not held.is_terminal:
                row = self._table.row_of.get(held.node_id)
                if row is not None:
                    yield row

    # The best of them.

    def _best_plain(self, place: Place, special: Collection[int] = ()) -> Entry | None:
        """The best row but *special* ones. What has no room is not looked at again until something goes there."""
        if self._ranking is None and self._landscape is None:
            self._begin()
        if self._touched:
            self._score_touched()
        while True:
            entry = self._ranking.best(special) if self._ranking is not None else self._top(special)
            if entry is None or not self._asks_each or self._refuses(entry[1], place, None) is None:
                return entry
            self._full.add(entry[1])
            self._touched.add(entry[1])
            self._score_touched()

    def _begin(self) -> None:
        """Scores every row but for spreads; minus infinity where the group cannot go."""
        points = self._score.of_all(self._held)
        if self._room.changed or self._distinct or self._full or self._score.spreading is not None:
            points = points.copy()
        for node_id in self._room.changed:
            row = self._table.row_of[node_id]
            points[row] = self._points(row)
        for one in self._distinct:
            points[~one.open()] = NEVER
        if self._full:
            points[list(self._full)] = NEVER
        if self._score.spreading is None:
            self._ranking = Ranking(points)
        else:
            self._landscape = points

    def _top(self, special: Collection[int]) -> Entry | None:
        """The best of the landscape, with spreads."""
        if self._landscape is None or not len(self._landscape):
            return None
        points = self._landscape + self._score.of_spreads()
        points[list(special)] = NEVER
        row = int(points.argmax())
        return None if points[row] == NEVER else (float(points[row]), row)

    def _score_touched(self) -> None:
        for row in self._touched:
            points = self._points(row)
            if self._ranking is not None:
                self._ranking.put(row, points)
            if self._landscape is not None:
                self._landscape[row] = points
        self._evict_again |= self._touched
        self._touched.clear()

    def _points(self, row: int) -> float:
        if not self._may_run[row] or row in self._full:
            return NEVER
        used = self._room.usage(self._table.nodes[row].id)
        return self._score.with_room(row, used, self._held.get(row, 0))

    def _best_of(self, rows: Iterable[int], place: Place) -> Entry | None:
        counted = _counted_row(place, self._table)
        able = [row for row in rows if self._refuses(row, place, counted) is None]
        return max(((self._total(row, place), row) for row in able), default=None, key=_order)

    def _total(self, row: int, place: Place) -> float:
        """A row's whole score for one placement."""
        node = self._table.nodes[row]
        used = self._room.without(node.id, _leaving(place))
        twins = self._held.get(row, 0) - (_counted_row(place, self._table) == row)
        total = self._score.of_one(row, used, twins, failed=node.id in place.avoid_nodes)
        return total + self._score.of_spreads_on(row)

    # Who would have to give way.

    def _has_less_important(self) -> bool:
        cluster, most = self._room.cluster, self._priority - PRIORITY_DELTA
        wanted = (cluster.wanted_job(name) for name in cluster.jobs)
        return any(job is not None and job.priority <= most for job in wanted)

    def _eviction(self, row: int, place: Place | None) -> Eviction | None:
        """What giving way on a row would cost; None if nobody may, or has to."""
        leaving = None if place is None else _leaving(place)
        counted = None if place is None else _counted_row(place, self._table)
        if any(one.refuses(row, counted) for one in self._distinct):
            return None
        job, node = self._version.job, self._table.nodes[row]
        used = self._room.without(node.id, leaving)
        found = victims(node, used, self._demand, self._room.holders(node.id, job.name), self._priority)
        return (cost(found), row, found) if found else None

    def _evicting(self, options: Sequence[Eviction], place: Place) -> Found | None:
        if not options:
            return None
        _, row, evicts = min(options, key=lambda one: one[:2])
        shown = self._score.shown(self._total(row, place))
        return Found(node=self._table.nodes[row], row=row, score=shown, evicts=evicts)

    def _refuses(self, row: int, place: Place, counted: int | None) -> Reason | None:
        for one in self._distinct:
            reason = one.refuses(row, counted)
            if reason is not None:
                return reason
        node, leaving = self._table.nodes[row], _leaving(place)
        used = self._room.usage(node.id) if leaving is None else self._room.without(node.id, leaving)
        return fits(node, used, self._demand)

    def _found(self, entry: Entry | None) -> Found | None:
        if entry is None:
            return None
        points, row = entry
        return Found(node=self._table.nodes[row], row=row, score=self._score.shown(points))

    def _count(self, row: int, by: int) -> None:
        """Counts an allocation of the group in or out."""
        self._held[row] = self._held.get(row, 0) + by
        if self._score.spreading is not None:
            self._score.spreading.count(row, by)
        for one in self._distinct:
            if one.count(row, by):
                self._begin_anew()

    def _begin_anew(self) -> None:
        self._ranking, self._landscape = None, None


def _order(entry: Entry) -> tuple[float, int]:
    """Sorts the best last: more points, then the first row."""
    return entry[0], -entry[1]


def _leaving(place: Place) -> Allocation | None:
    """What makes room on its own node for *place*."""
    return place.stop.allocation if place.stop is not None and place.coupled else None


def _counted_row(place: Place, table: NodeTable) -> int | None:
    """The row on which what *place* replaces still counts as one of the group; None where it has ended."""
    leaving = None if place.stop is None else place.stop.allocation
    return None if leaving is None or leaving.is_terminal else table.row_of.get(leaving.node_id)
