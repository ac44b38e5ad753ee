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

from reconciler.columns import IDLE, LEFT, Codes, Column, Columns
from trueup.models.fit import Demand, NodeUsage

NEVER: Final = -np.inf


class Packing:
    """The points of one demand: from -1 to 1, by the shares of the node that it takes."""

    def __init__(self, columns: Columns, demand: Demand, *, wants_empty: bool) -> None:
        self._columns = columns
        self._cpu, self._memory = demand.cpu_millicores, demand.memory_bytes
        self._by_cpu, self._by_memory = 1 / sqrt(max(self._cpu, 1)), 1 / sqrt(max(self._memory, 1))
        self._wants_empty = wants_empty
        cpu, memory = columns.per_cpu * self._cpu, columns.per_memory * self._memory
        self._takes: Column = cpu + memory if wants_empty else cpu - memory
        self._weight: Column = np.minimum(
            columns.root_cpu * self._by_cpu, columns.root_memory * self._by_memory
        )
        self._points: Column = self._of(slice(None))
        self._mark = columns.mark

    def of_all(self) -> Column:
        """Every row's points, minus infinity where cpu or memory do not suffice. Not to be changed by the caller."""
        rows = self._columns.changed_since(self._mark)
        if rows is None:
            self._points = self._of(slice(None))
        elif len(rows):
            self._points[rows] = self._of(rows)
        self._mark = self._columns.mark
        return self._points

    def has_room(self, row: int, used: NodeUsage) -> bool:
        """Whether cpu and memory of a row suffice beside *used*, as `fits` would say."""
        facts = self._columns.facts[row]
        return used.cpu_millicores + self._cpu <= facts[0] and used.memory_bytes + self._memory <= facts[1]

    def of_one(self, row: int, used: NodeUsage) -> float:
        """One row's points beside *used*, whether there is room or not."""
        total_cpu, total_memory, per_cpu, per_memory, root_cpu, root_memory = self._columns.facts[row]
        cpu = (total_cpu - used.cpu_millicores) * per_cpu
        memory = (total_memory - used.memory_bytes) * per_memory
        both = cpu + memory
        if self._wants_empty:
            return both - (per_cpu * self._cpu + per_memory * self._memory) - 1.0
        lean = cpu - memory
        skew = abs(lean)
        gain = skew - abs(lean - (per_cpu * self._cpu - per_memory * self._memory))
        weight = min(root_cpu * self._by_cpu, root_memory * self._by_memory)
        return gain * weight - ((both + skew) * LEFT + (0.0 if used.allocations else IDLE))

    def _of(self, rows: Codes | slice) -> Column:
        """The same for many rows, minus infinity where there is no room."""
        columns = self._columns
        if self._wants_empty:
            points = columns.both[rows] - self._takes[rows]
            points -= 1.0
        else:
            points = columns.lean[rows] - self._takes[rows]
            np.abs(points, out=points)
            np.subtract(columns.skew[rows], points, out=points)
            points *= self._weight[rows]
            points -= columns.spare[rows]
        closed = columns.free_cpu[rows] < self._cpu
        closed |= columns.free_memory[rows] < self._memory
        points[closed] = NEVER
        return points
