"""All nodes as columns, in the order of their names: which may run a group, and how much of each is taken.

Kept beside a state and brought up to date by what changed there: the nodes themselves make a new table, an allocation
only touches its node's totals. What is asked of all nodes is then a few operations on whole columns.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from reconciler.feasibility import (
    accepts,
    constraints_of,
    has_driver,
    meets,
    offers_volume,
    secrets_of,
)
from trueup.models.codec import to_json
from trueup.models.ids import NodeId
from trueup.models.job import Affinity, Constraint, Job, Task, TaskGroup
from trueup.models.node import Node, attributes_of
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings

Mask: TypeAlias = npt.NDArray[np.bool_]
Column: TypeAlias = npt.NDArray[np.float64]
Codes: TypeAlias = npt.NDArray[np.int64]

ABSENT: Final = -1
"""The code of a node that has no value."""


class NodeTable:
    """The columns of one set of nodes. Rows are numbered by name."""

    def __init__(self, state: ClusterState) -> None:
        self.version = state.nodes.version
        self.nodes: Sequence[Node] = sorted(state.nodes.values(), key=lambda node: node.name)
        self.row_of: Mapping[NodeId, int] = {node.id: row for row, node in enumerate(self.nodes)}
        self.cpu: Column = np.array([float(node.resources.cpu_millicores) for node in self.nodes])
        self.memory: Column = np.array([float(node.resources.memory_bytes) for node in self.nodes])
        self.used_cpu: Column = np.zeros(len(self.nodes))
        self.used_memory: Column = np.zeros(len(self.nodes))
        self._attributes: Sequence[Mapping[str, str]] | None = None
        self._masks: dict[Hashable, Mask] = {}
        self._drivers: dict[str, tuple[Codes, Sequence[Node]]] = {}
        self._values: dict[str, tuple[Codes, Sequence[str]]] = {}
        for node in self.nodes:
            self.refresh(state, node.id)

    def refresh(self, state: ClusterState, node_id: NodeId) -> None:
        """Takes in a node's totals."""
        row = self.row_of.get(node_id)
        if row is not None:
            used = state.usage(node_id)
            self.used_cpu[row] = used.cpu_millicores
            self.used_memory[row] = used.memory_bytes

    def may_run(self, job: Job, group: TaskGroup, settings: ClusterSettings) -> Mask:
        """Which nodes pass every filter of `feasibility.check`."""
        found = self._mask(
            ("accepts", settings.nodes), lambda node, _held: accepts(node, settings) is None
        ).copy()
        if job.regions:
            found &= self._mask(("regions", job.regions), lambda node, _held: node.region in job.regions)
        for task in group.tasks:
            self._keep_drivers(found, task)
        for volume in group.volumes:
            source = volume.source
            found &= self._mask(("volume", source), lambda node, _held, one=source: offers_volume(node, one))  # type: ignore[misc]
        for name in secrets_of(group):
            found &= self._mask(("secret", name), lambda node, _held, one=name: one in node.secrets)  # type: ignore[misc]
        for constraint in constraints_of(job, group):
            if not constraint.operator.startswith("distinct"):
                found &= self.meets(constraint)
        return found

    def meets(self, condition: Constraint | Affinity) -> Mask:
        """Which nodes' attributes satisfy a constraint or affinity."""
        key = ("meets", condition.attribute, condition.operator, condition.value)
        return self._mask(key, lambda _node, held: meets(condition, held))

    def values(self, attribute: str) -> tuple[Codes, Sequence[str]]:
        """Each node's value of *attribute* as a code (ABSENT: none), and the values by their codes, sorted."""
        if attribute not in self._values:
            held = [attributes.get(attribute) for attributes in self.attributes]
            names = sorted({value for value in held if value is not None})
            code_of = {name: code for code, name in enumerate(names)}
            codes = np.array([ABSENT if value is None else code_of[value] for value in held], dtype=np.int64)
            self._values[attribute] = (codes, names)
        return self._values[attribute]

    @property
    def attributes(self) -> Sequence[Mapping[str, str]]:
        """Each node's attributes."""
        if self._attributes is None:
            self._attributes = [attributes_of(node) for node in self.nodes]
        return self._attributes

    def _mask(self, key: Hashable, holds: Callable[[Node, Mapping[str, str]], bool]) -> Mask:
        found = self._masks.get(key)
        if found is None:
            rows = zip(self.nodes, self.attributes, strict=True)
            found = np.array([holds(node, held) for node, held in rows], dtype=np.bool_)
            self._masks[key] = found
        return found

    def _keep_drivers(self, found: Mask, task: Task) -> None:
        """Takes away the nodes whose driver cannot run *task*: asked once for each state the driver has anywhere."""
        if task.driver not in self._drivers:
            kinds: dict[bytes, int] = {}
            samples: list[Node] = []
            codes = []
            for node in self.nodes:
                state = node.drivers.get(task.driver)
                key = b"" if state is None else to_json(state)
                if key not in kinds:
                    kinds[key] = len(samples)
                    samples.append(node)
                codes.append(kinds[key])
            self._drivers[task.driver] = (np.array(codes, dtype=np.int64), samples)
        codes_of, samples_of = self._drivers[task.driver]
        good = [has_driver(node, task) is None for node in samples_of]
        if not all(good):
            found &= np.array(good, dtype=np.bool_)[codes_of]


def table_of(state: ClusterState) -> NodeTable:
    """The table of *state* as it is now: the one kept beside it, if the nodes are the same."""
    table = state.derived
    if not isinstance(table, NodeTable) or table.version != state.nodes.version:
        table = NodeTable(state)
        state.derived = table
        state.touched.clear()
        return table
    if state.touched:
        for node_id in state.touched:
            table.refresh(state, node_id)
        state.touched.clear()
    return table
