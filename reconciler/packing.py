"""How well the room of each node suits a demand: the part of the score that `Cluster.placement` asks for. Pure.

*spread* wants the emptiest node. *binpack* wants cpu and memory of a node to run out together, so that none of either
is stranded: what a placement does to the distance between the two is counted against the square root of its size, so
that it matters for small ones too. Of like nodes the fuller one is better, one where something runs is better than an
idle one, and of idle ones the larger. Source: measured on requests of real users (`tests/bench/test_packing.py`),
beside best fit with Nomad's score, which looks at the sum of the two.

Jobs are many and demands are few: the points of all rows are kept for each demand and catch up with the rows that
changed. The same operations in the same order make the points of one row and of all, so that both are equal to the last
bit, whatever was kept.
"""

from math import sqrt
from typing import Final

import numpy as np

from reconciler.columns import (
    BOTH,
    FREE_CPU,
    FREE_MEMORY,
    LEAN,
    LEFT,
    PER_CPU,
    PER_MEMORY,
    ROOT_CPU,
    ROOT_MEMORY,
    SKEW,
    SPARE,
    Column,
    Columns,
    Matrix,
)
from trueup.models.fit import Demand, NodeUsage

NEVER: Final = -np.inf


class Packing:
    """The points of one demand: from -1 to 1, by the shares of the node that it takes.

    *bar* is 0 on the rows where it may go, else minus infinity; it is held, for points are kept by its identity.
    """

    def __init__(self, columns: Columns, demand: Demand, bar: Column, *, wants_empty: bool) -> None:
        self._columns, self.bar = columns, bar
        self._cpu, self._memory = float(demand.cpu_millicores), float(demand.memory_bytes)
        self._by_cpu, self._by_memory = 1 / sqrt(max(self._cpu, 1)), 1 / sqrt(max(self._memory, 1))
        self._wants_empty = wants_empty
        lines = columns.matrix
        cpu, memory = lines[PER_CPU] * self._cpu, lines[PER_MEMORY] * self._memory
        takes = cpu + memory if wants_empty else cpu - memory
        weight = np.minimum(lines[ROOT_CPU] * self._by_cpu, lines[ROOT_MEMORY] * self._by_memory)
        self._own: Matrix = np.array([takes, weight, bar]).T.copy()
        """What the demand makes of each node, whatever is free there."""
        self._points: Column = self._of(columns.matrix, self._own.T)
        self._mark = columns.mark

    def of_all(self) -> Column:
        """Every row's points, minus infinity where it may not go or has no room. Not to be changed by the caller."""
        rows = self._columns.changed_since(self._mark)
        if rows is None:
            self._points = self._of(self._columns.matrix, self._own.T)
        elif len(rows):
            self._points[rows] = self._of(self._columns.of(rows), self._own.take(rows, axis=0).T)
        self._mark = self._columns.mark
        return self._points

    def with_room(self, row: int, used: NodeUsage) -> float:
        """One row's points as in `of_all`, for *used* taken of it, if it may go there at all."""
        facts = self._columns.facts[row]
        if used.cpu_millicores + self._cpu > facts[0] or used.memory_bytes + self._memory > facts[1]:
            return NEVER
        return self.of_one(row, used)

    def of_one(self, row: int, used: NodeUsage) -> float:
        """One row's points beside *used*, whether there is room or not."""
        total_cpu, total_memory, per_cpu, per_memory, root_cpu, root_memory, idle = self._columns.facts[row]
        cpu = (total_cpu - used.cpu_millicores) * per_cpu
        memory = (total_memory - used.memory_bytes) * per_memory
        both = cpu + memory
        if self._wants_empty:
            return both - (per_cpu * self._cpu + per_memory * self._memory) - 1.0
        lean = cpu - memory
        skew = abs(lean)
        gain = skew - abs(lean - (per_cpu * self._cpu - per_memory * self._memory))
        weight = min(root_cpu * self._by_cpu, root_memory * self._by_memory)
        return gain * weight - ((both + skew) * LEFT + (0.0 if used.allocations else idle))

    def _of(self, nodes: Matrix, own: Matrix) -> Column:
        """The same for many nodes, minus infinity where it may not go or has no room."""
        takes, weight, bar = own
        points: Column = nodes[BOTH if self._wants_empty else LEAN] - takes
        if self._wants_empty:
            points -= 1.0
        else:
            np.abs(points, out=points)
            np.subtract(nodes[SKEW], points, out=points)
            points *= weight
            points -= nodes[SPARE]
        points += bar
        closed = nodes[FREE_CPU] < self._cpu
        closed |= nodes[FREE_MEMORY] < self._memory
        points[closed] = NEVER
        return points
