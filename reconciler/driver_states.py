"""What one driver is like on all nodes: nodes are many, states of a driver are few. Pure."""

from collections.abc import Iterable
from typing import Final

import numpy as np

from reconciler.columns import Codes
from reconciler.feasibility import has_driver
from reconciler.gates import Gate, gate_of
from reconciler.kept import Kept
from trueup.models.codec import to_json
from trueup.models.job import Task
from trueup.models.node import Node

_MOST_KEPT: Final = 256


class DriverStates:
    """The states of one driver, a node that has it for each, and which node is in which."""

    def __init__(self, driver: str, nodes: Iterable[Node]) -> None:
        self._driver = driver
        self._code_of: dict[bytes, int] = {}
        self._samples: list[Node] = []
        self._codes: Codes = np.array([self._code(node) for node in nodes], dtype=np.int64)
        self._gates: Kept[Gate] = Kept(_MOST_KEPT)

    def gate(self, task: Task) -> Gate:
        """Whose driver can run *task*: asked once for each state the driver has anywhere."""
        reasons = tuple(has_driver(node, task) for node in self._samples)
        return self._gates.of(reasons, lambda: gate_of(reasons, self._codes))

    @property
    def are_many(self) -> bool:
        """Whether so many states came by that most of them may be of no node any more."""
        return len(self._samples) > 2 * len(self._codes) + _MOST_KEPT

    def put(self, row: int, node: Node) -> None:
        """Takes in that the node of a row changed."""
        code = self._code(node)
        if code != self._codes[row]:
            self._codes[row] = code
            self._gates = Kept(_MOST_KEPT)

    def _code(self, node: Node) -> int:
        state = node.drivers.get(self._driver)
        key = b"" if state is None else to_json(state)
        code = self._code_of.setdefault(key, len(self._samples))
        if code == len(self._samples):
            self._samples.append(node)
        return code
