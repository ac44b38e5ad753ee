"""How well nodes suit a group: a sum of parts, the higher the better, of all nodes at once or of one.

`room` is what `placement` asks for. *spread* wants the emptiest node. *binpack* wants cpu and memory of a node to run
out together, so that none of either is stranded: what a placement does to the distance between the two is counted
against the square root of its size, so that it matters for small ones too; then comes what `Left.spare` says. Source:
measured on requests of real users (`tests/bench/test_packing.py`), beside best fit with Nomad's score, which looks at
the sum of the two.

The other parts are a soft distance from others of the group (the share of the group that would be lost with the node),
affinities, spreads, and nodes where an earlier attempt failed. The same operations in the same order make the score of
one node and of all, so that both are equal to the last bit.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from typing import Final

import numpy as np

from reconciler.node_table import Column, Columns, Left, NodeTable
from reconciler.spreading import Spreading
from trueup.models.fit import Demand
from trueup.models.job import Affinity, Job, TaskGroup
from trueup.models.template import ClusterSettings

NEVER: Final = -np.inf
_TWINS: Final = 1.0
_PART: Final = 2.0
"""What an affinity, a spread or an earlier failure weighs at most: as much as the whole range of `room`."""


class Score:
    """The score of one group. *spreading* is None where it has no spreads."""

    def __init__(
        self, table: NodeTable, job: Job, group: TaskGroup, demand: Demand, settings: ClusterSettings
    ) -> None:
        self._table = table
        self._cpu, self._memory = float(demand.cpu_millicores), float(demand.memory_bytes)
        self._by_cpu, self._by_memory = 1 / sqrt(max(self._cpu, 1)), 1 / sqrt(max(self._memory, 1))
        self._wants_empty = settings.placement == "spread"
        self._count = max(group.count, 1)
        affinities = (*job.affinities, *group.affinities)
        self._affinity = _affinity(table, affinities) if affinities else None
        spreads = (*job.spreads, *group.spreads)
        self.spreading = Spreading(table, spreads, self._count) if spreads else None
        self._parts = 1 + bool(affinities) + bool(spreads)
        self._taken: dict[int, tuple[float, float, float, float]] = {}

    def of_all(self, columns: Columns, twins: Mapping[int, int]) -> Column:
        """Every row's score but for what it gains by spreads, in the table's scratch; *twins* by row."""
        total = self._room_of_all(columns)
        for row, held in twins.items():
            if held > 0:
                total[row] -= self._crowding(held)
        if self._affinity is not None:
            total += self._affinity
        return total

    def of_one(self, row: int, left: Left, *, twins: int, failed: bool = False) -> float:
        """One row's score but for what it gains by spreads, for that much left of it before the placement."""
        cpu, memory, weight, affinity = self._taken.get(row) or self._take(row)
        total = self._room_of_one(left, cpu, memory, weight)
        if twins > 0:
            total -= self._crowding(twins)
        total += affinity
        return total - _PART if failed else total

    def of_spreads(self) -> Column | float:
        """What every row gains by spreads."""
        return 0.0 if self.spreading is None else self.spreading.of_all() * _PART

    def of_spreads_on(self, row: int) -> float:
        """What one row gains by spreads."""
        return 0.0 if self.spreading is None else self.spreading.of_one(row) * _PART

    def shown(self, total: float) -> float:
        """A whole score (with spreads) as people see it: the mean of its parts, 1 at best."""
        return round((total + 1) / 2 / self._parts, 6)

    def _take(self, row: int) -> tuple[float, float, float, float]:
        """What a placement takes of a row's cpu and memory, one over the root of the larger, and the affinity to it."""
        table = self._table
        found = (
            float(table.per_cpu[row]) * self._cpu,
            float(table.per_memory[row]) * self._memory,
            min(float(table.root_cpu[row]) * self._by_cpu, float(table.root_memory[row]) * self._by_memory),
            0.0 if self._affinity is None else float(self._affinity[row]),
        )
        self._taken[row] = found
        return found

    def _room_of_one(self, left: Left, cpu: float, memory: float, weight: float) -> float:
        """From -1 to 1, by the shares of the node that the placement takes."""
        if self._wants_empty:
            return left.both - cpu - memory - 1.0
        return (left.skew - abs(left.lean - (cpu - memory))) * weight - left.spare

    def _room_of_all(self, columns: Columns) -> Column:
        """The same, step by step, for all rows."""
        table = self._table
        cpu, memory, weight = table.scratch
        np.multiply(table.per_cpu, self._cpu, out=cpu)
        np.multiply(table.per_memory, self._memory, out=memory)
        if self._wants_empty:
            np.subtract(columns.both, cpu, out=cpu)
            np.subtract(cpu, memory, out=cpu)
            return np.subtract(cpu, 1.0, out=cpu)
        np.subtract(cpu, memory, out=cpu)
        np.subtract(columns.lean, cpu, out=cpu)
        np.abs(cpu, out=cpu)
        np.subtract(columns.skew, cpu, out=cpu)
        np.multiply(table.root_cpu, self._by_cpu, out=weight)
        np.multiply(table.root_memory, self._by_memory, out=memory)
        np.minimum(weight, memory, out=weight)
        np.multiply(cpu, weight, out=cpu)
        return np.subtract(cpu, columns.spare, out=cpu)

    def _crowding(self, twins: int) -> float:
        return _TWINS * min(twins / self._count, 1.0) if self._count > 1 else 0.0


def _affinity(table: NodeTable, affinities: Sequence[Affinity]) -> Column:
    weights = sum(abs(one.weight) for one in affinities) or 1
    total = np.zeros(len(table.nodes))
    for one in affinities:
        total += np.where(table.meets(one), _PART * one.weight / weights, 0.0)
    return total


def rows_held(rows: Iterable[int]) -> dict[int, int]:
    """How often each row occurs."""
    found: dict[int, int] = {}
    for row in rows:
        found[row] = found.get(row, 0) + 1
    return found
