"""How well the room of each node suits a demand: the part of the score that `Cluster.placement` asks for. Pure.

*spread* wants the emptiest node. *binpack* wants cpu and memory of a node to run out together, so that none of either
is stranded: what a placement does to the distance between the two is counted against the square root of its size, so
that it matters for small ones too. Of like nodes the fuller one is better, and one where something runs is better than
an idle one. Source: measured on requests of real users (`tests/bench/test_packing.py`), beside best fit with Nomad's
score, which looks at the sum of the two.

Jobs are many and demands are few: the points of all rows are kept for each demand and catch up with the rows that
changed. The same operations in the same order make the points of one row and of all, so that both are equal to the last
bit, whatever was kept.
"""

from math import sqrt
from typing import Final

import numpy as np

from reconciler.columns import Codes, Column, Columns
from trueup.models.fit import Demand, NodeUsage

NEVER: Final = -np.inf
_LEFT: Final = 0.005
_IDLE: Final = 0.05


class Packing:
    """The points of one demand: from -1 to 1, by the shares of the node that it takes."""

    def __init__(self, columns: Columns, demand: Demand, *, wants_empty: bool) -> None:
        self._columns = columns
        self._cpu, self._memory = demand.cpu_millicores, demand.memory_bytes
        self._by_cpu, self._by_memory = 1 / sqrt(max(self._cpu, 1)), 1 / sqrt(max(self._memory, 1))
        self._wants_empty = wants_empty
        self._points: Column = np.empty(0)
        self._mark: int | None = None

    def of_all(self) -> Column:
        """Every row's points, minus infinity where cpu or memory do not suffice. Not to be changed by the caller."""
        rows = None if self._mark is None else self._columns.changed_since(self._mark)
        if rows is None:
            self._points = self._of(slice(None))
        elif len(rows):
            self._points[rows] = self._of(rows)
        self._mark = self._columns.mark
        return self._points

    def has_room(self, row: int, used: NodeUsage) -> bool:
        """Whether cpu and memory of a row suffice beside *used*, as `fits` would say."""
        cpu, memory, *_ = self._columns.facts[row]
        return used.cpu_millicores + self._cpu <= cpu and used.memory_bytes + self._memory <= memory

    def of_one(self, row: int, used: NodeUsage) -> float:
        """One row's points beside *used*, whether there is room or not."""
        total_cpu, total_memory, per_cpu, per_memory, root_cpu, root_memory = self._columns.facts[row]
        cpu = (total_cpu - used.cpu_millicores) * per_cpu
        memory = (total_memory - used.memory_bytes) * per_memory
        if self._wants_empty:
            return cpu + memory - (per_cpu * self._cpu + per_memory * self._memory) - 1.0
        lean = cpu - memory
        skew = abs(lean)
        gain = skew - abs(lean - (per_cpu * self._cpu - per_memory * self._memory))
        weight = min(root_cpu * self._by_cpu, root_memory * self._by_memory)
        idle = 0.0 if used.allocations else _IDLE
        return gain * weight - ((cpu + memory + skew) * _LEFT + idle)

    def _of(self, rows: Codes | slice) -> Column:
        """The same for many rows."""
        columns = self._columns
        free_cpu, free_memory = columns.free_cpu[rows], columns.free_memory[rows]
        per_cpu, per_memory = columns.per_cpu[rows], columns.per_memory[rows]
        cpu, memory = free_cpu * per_cpu, free_memory * per_memory
        if self._wants_empty:
            points = cpu + memory
            points -= per_cpu * self._cpu + per_memory * self._memory
            points -= 1.0
        else:
            lean = cpu - memory
            skew = np.abs(lean)
            lean -= per_cpu * self._cpu - per_memory * self._memory
            points = skew - np.abs(lean)
            points *= np.minimum(
                columns.root_cpu[rows] * self._by_cpu, columns.root_memory[rows] * self._by_memory
            )
            cpu += memory
            cpu += skew
            cpu *= _LEFT
            cpu += columns.is_idle[rows] * _IDLE
            points -= cpu
        points[(free_cpu < self._cpu) | (free_memory < self._memory)] = NEVER
        return points
