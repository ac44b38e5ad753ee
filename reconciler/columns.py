"""What each node has and what is free of it, as columns over all nodes in the order of their names. Pure.

Which rows changed is kept in order, so that what was worked out from the columns catches up instead of starting anew.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from trueup.models.fit import NodeUsage
from trueup.models.node import Node

Mask: TypeAlias = npt.NDArray[np.bool_]
Column: TypeAlias = npt.NDArray[np.float64]
Codes: TypeAlias = npt.NDArray[np.int64]
Facts: TypeAlias = tuple[int, int, float, float, float, float]
"""A node's cpu and memory, one over each, and the square root of each."""

LEFT: Final = 0.005
IDLE: Final = 0.05
"""What `spare` is made of."""
_REMEMBERED: Final = 1024


class Columns:
    """The columns.

    *lean* is how much more is left of cpu than of memory, as shares of the node, *skew* how far apart the two are,
    *both* their sum. *spare* is small and makes of like nodes the fuller one better, and one where something runs
    better than an idle one. *facts* are the unchanging columns, row by row.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.free_cpu: Column = np.array([float(node.resources.cpu_millicores) for node in nodes])
        self.free_memory: Column = np.array([float(node.resources.memory_bytes) for node in nodes])
        cpu, memory = np.maximum(self.free_cpu, 1.0), np.maximum(self.free_memory, 1.0)
        self.per_cpu: Column = 1 / cpu
        self.per_memory: Column = 1 / memory
        self.root_cpu: Column = np.sqrt(cpu)
        self.root_memory: Column = np.sqrt(memory)
        self.facts: Sequence[Facts] = list(
            zip(
                (node.resources.cpu_millicores for node in nodes),
                (node.resources.memory_bytes for node in nodes),
                self.per_cpu.tolist(),
                self.per_memory.tolist(),
                self.root_cpu.tolist(),
                self.root_memory.tolist(),
                strict=True,
            )
        )
        left_cpu, left_memory = self.free_cpu * self.per_cpu, self.free_memory * self.per_memory
        self.lean: Column = left_cpu - left_memory
        self.skew: Column = np.abs(self.lean)
        self.both: Column = left_cpu + left_memory
        self.spare: Column = (self.both + self.skew) * LEFT + IDLE
        self._changed: Codes = np.empty(max(2 * len(nodes), _REMEMBERED), dtype=np.int64)
        self._held = 0
        self._dropped = 0

    def put(self, row: int, used: NodeUsage) -> None:
        """Takes in what is taken of a row."""
        cpu, memory, per_cpu, per_memory, _, _ = self.facts[row]
        self.free_cpu[row] = free_cpu = cpu - used.cpu_millicores
        self.free_memory[row] = free_memory = memory - used.memory_bytes
        left_cpu, left_memory = free_cpu * per_cpu, free_memory * per_memory
        lean, both = left_cpu - left_memory, left_cpu + left_memory
        skew = abs(lean)
        self.lean[row], self.skew[row], self.both[row] = lean, skew, both
        self.spare[row] = (both + skew) * LEFT + (0.0 if used.allocations else IDLE)
        if self._held == len(self._changed):
            self._dropped += self._held
            self._held = 0
        self._changed[self._held] = row
        self._held += 1

    @property
    def mark(self) -> int:
        """The present, for `changed_since`."""
        return self._dropped + self._held

    def changed_since(self, mark: int) -> Codes | None:
        """The rows that changed since then, some perhaps several times; None: too many to tell them apart."""
        if mark < self._dropped or self.mark - mark > len(self.facts) // 4:
            return None
        return self._changed[mark - self._dropped : self._held]
