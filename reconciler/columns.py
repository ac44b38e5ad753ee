"""What each node has and what is free of it, as columns over all nodes in the order of their names. Pure.

Which rows changed is kept in order, so that what was worked out from the columns catches up instead of starting anew.
"""

from array import array
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from trueup.models.fit import NodeUsage
from trueup.models.node import Node

Mask: TypeAlias = npt.NDArray[np.bool_]
Column: TypeAlias = npt.NDArray[np.float64]
Matrix: TypeAlias = npt.NDArray[np.float64]
Codes: TypeAlias = npt.NDArray[np.int64]
Facts: TypeAlias = tuple[int, int, float, float, float, float, float]
"""A node's cpu and memory, one over each, the square root of each, and what it counts against it while it is idle."""

LEFT: Final = 0.005
IDLE: Final = 0.05
"""What SPARE is made of: of what is left, and against an idle node, up to twice as much the smaller it is: fewer nodes
are in use where the large ones come first. Source: measured, as `packing` says."""
_REMEMBERED: Final = 1024


FREE_CPU, FREE_MEMORY, LEAN, SKEW, BOTH, SPARE, PER_CPU, PER_MEMORY, ROOT_CPU, ROOT_MEMORY = range(10)
"""Which line of the matrix says what: what is free in amounts; as shares of the node, how much more is left of cpu than
of memory, how far apart the two are, their sum. SPARE is small and makes of like nodes the fuller one better, and one
where something runs better than an idle one. What does not change: one over what the node has, and its square root."""


class Columns:
    """The columns of all nodes. *matrix* has a line for each of those above and a column for each node.

    *facts* are a node's own figures as they are read one by one. What changes is kept node by node too: of a few nodes
    all is read together much faster so.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        free_cpu = np.array([float(node.resources.cpu_millicores) for node in nodes])
        free_memory = np.array([float(node.resources.memory_bytes) for node in nodes])
        cpu, memory = np.maximum(free_cpu, 1.0), np.maximum(free_memory, 1.0)
        per_cpu, per_memory = 1 / cpu, 1 / memory
        left_cpu, left_memory = free_cpu * per_cpu, free_memory * per_memory
        lean, both = left_cpu - left_memory, left_cpu + left_memory
        skew = np.abs(lean)
        idle = (2.0 - _shares_of_largest(cpu, memory)) * IDLE
        spare = (both + skew) * LEFT + idle
        roots = np.sqrt(cpu), np.sqrt(memory)
        lines = np.array([free_cpu, free_memory, lean, skew, both, spare, per_cpu, per_memory, *roots])
        self._cells, self.matrix = _cells_and_matrix(lines)
        self._cells_by_node, self._by_node = _cells_and_matrix(lines[:PER_CPU].T)
        self.facts: Sequence[Facts] = list(
            zip(
                (node.resources.cpu_millicores for node in nodes),
                (node.resources.memory_bytes for node in nodes),
                per_cpu.tolist(),
                per_memory.tolist(),
                roots[0].tolist(),
                roots[1].tolist(),
                idle.tolist(),
                strict=True,
            )
        )
        self.most_ports = 0
        """No node ever had more ports taken."""
        self._changed: Codes = np.empty(max(2 * len(nodes), _REMEMBERED), dtype=np.int64)
        self._held = 0
        self._dropped = 0

    def put(self, row: int, used: NodeUsage) -> None:
        """Takes in what is taken of a node."""
        cpu, memory, per_cpu, per_memory, _, _, idle = self.facts[row]
        free_cpu, free_memory = cpu - used.cpu_millicores, memory - used.memory_bytes
        left_cpu, left_memory = free_cpu * per_cpu, free_memory * per_memory
        lean, both = left_cpu - left_memory, left_cpu + left_memory
        skew = abs(lean)
        spare = (both + skew) * LEFT + (0.0 if used.allocations else idle)
        cells, at, width = self._cells, row, len(self.facts)
        by_node, at_node = self._cells_by_node, row * PER_CPU
        for value in (free_cpu, free_memory, lean, skew, both, spare):
            cells[at] = by_node[at_node] = value
            at += width
            at_node += 1
        self.most_ports = max(self.most_ports, len(used.ports))
        if self._held == len(self._changed):
            self._dropped += self._held
            self._held = 0
        self._changed[self._held] = row
        self._held += 1

    def of(self, rows: Codes) -> Matrix:
        """The lines that change of some nodes, as a copy."""
        found: Matrix = self._by_node.take(rows, axis=0).T
        return found

    @property
    def mark(self) -> int:
        """The present, for `changed_since`."""
        return self._dropped + self._held

    def changed_since(self, mark: int) -> Codes | None:
        """The rows that changed since then, some perhaps several times; None: too many to tell them apart."""
        if mark < self._dropped or self.mark - mark > len(self.facts) // 4:
            return None
        return self._changed[mark - self._dropped : self._held]


def _shares_of_largest(cpu: Column, memory: Column) -> Column:
    """How large each node is beside the largest, from 0 to 1: by cpu or by memory, whichever says less."""
    shares: Column = np.minimum(cpu / cpu.max(initial=1.0), memory / memory.max(initial=1.0))
    return shares


def _cells_and_matrix(values: Matrix) -> tuple["array[float]", Matrix]:
    """*values* as a matrix over cells that are written one by one, much faster so than through the matrix."""
    cells = array("d", values.tobytes())
    return cells, np.frombuffer(cells).reshape(values.shape)
