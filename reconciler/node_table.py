"""All nodes as columns, in the order of their names: which may run a group, and how much of each is left.

Kept beside a state and brought up to date by what changed there: the nodes themselves make a new table, an allocation
only touches its node's totals. What is asked of all nodes is then a few operations on whole columns.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeAlias

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
from trueup.models.fit import Demand, NodeUsage
from trueup.models.ids import NodeId
from trueup.models.job import Affinity, Constraint, Job, Task, TaskGroup
from trueup.models.node import Node, attributes_of
from trueup.models.reasons import (
    Reason,
    constraint_failed,
    missing_secret,
    missing_volume,
    wrong_region,
)
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings

Mask: TypeAlias = npt.NDArray[np.bool_]
Column: TypeAlias = npt.NDArray[np.float64]
Codes: TypeAlias = npt.NDArray[np.int64]

ABSENT: Final = -1
"""The code of a node that has no value."""
_LEFT: Final = 0.005
_IDLE: Final = 0.05


class Left(NamedTuple):
    """What is left of a node, as shares of it.

    *lean* is how much more is left of cpu than of memory, *skew* how far apart the two are, *both* their sum. *spare*
    is small and makes of like nodes the fuller one better, and one where something runs better than an idle one.
    """

    lean: float
    skew: float
    both: float
    spare: float


def left_of(node: Node, used: NodeUsage) -> Left:
    """What is left of *node* beside *used*."""
    resources = node.resources
    cpu = (resources.cpu_millicores - used.cpu_millicores) / max(resources.cpu_millicores, 1)
    memory = (resources.memory_bytes - used.memory_bytes) / max(resources.memory_bytes, 1)
    lean, both = cpu - memory, cpu + memory
    skew = abs(lean)
    return Left(lean, skew, both, (both + skew) * _LEFT + (0.0 if used.allocations else _IDLE))


@dataclass(frozen=True, slots=True)
class Columns:
    """What is free of each node, in amounts and as in `Left`."""

    free_cpu: Column
    free_memory: Column
    lean: Column
    skew: Column
    both: Column
    spare: Column

    def copy(self) -> "Columns":
        """An independent copy, for what-if."""
        return Columns(
            self.free_cpu.copy(),
            self.free_memory.copy(),
            self.lean.copy(),
            self.skew.copy(),
            self.both.copy(),
            self.spare.copy(),
        )

    def put(self, row: int, node: Node, used: NodeUsage) -> None:
        """Takes in a row's totals."""
        self.free_cpu[row] = node.resources.cpu_millicores - used.cpu_millicores
        self.free_memory[row] = node.resources.memory_bytes - used.memory_bytes
        left = left_of(node, used)
        self.lean[row], self.skew[row], self.both[row], self.spare[row] = left


@dataclass(frozen=True, slots=True)
class Gate:
    """One filter over all nodes: who passes, and whom it refuses for which reason."""

    passes: Mask
    refusals: tuple[tuple[Reason, Mask], ...]


class NodeTable:
    """The columns of one set of nodes. Rows are numbered by name.

    *per_…* are one over what a node has, *root_…* its square root. *scratch* is room to calculate in: fresh arrays
    would cost more than what is done with them.
    """

    def __init__(self, state: ClusterState) -> None:
        self.version = state.nodes.version
        self.nodes: Sequence[Node] = sorted(state.nodes.values(), key=lambda node: node.name)
        self.row_of: Mapping[NodeId, int] = {node.id: row for row, node in enumerate(self.nodes)}
        cpu = np.array([max(float(node.resources.cpu_millicores), 1.0) for node in self.nodes])
        memory = np.array([max(float(node.resources.memory_bytes), 1.0) for node in self.nodes])
        self.per_cpu: Column = 1 / cpu
        self.per_memory: Column = 1 / memory
        self.root_cpu: Column = np.sqrt(cpu)
        self.root_memory: Column = np.sqrt(memory)
        self.scratch: Sequence[Column] = [np.empty(len(self.nodes)) for _ in range(3)]
        self.columns = Columns(*(np.zeros(len(self.nodes)) for _ in range(6)))
        self._attributes: Sequence[Mapping[str, str]] | None = None
        self._gates: dict[Hashable, Gate] = {}
        self._masks: dict[tuple[int, ...], Mask] = {}
        self._drivers: dict[str, tuple[Codes, Sequence[Node]]] = {}
        self._values: dict[str, tuple[Codes, Sequence[str]]] = {}
        for node in self.nodes:
            self.refresh(state, node.id)

    def refresh(self, state: ClusterState, node_id: NodeId) -> None:
        """Takes in a node's totals."""
        row = self.row_of.get(node_id)
        if row is not None:
            self.columns.put(row, self.nodes[row], state.usage(node_id))

    def no_room(self, columns: Columns, demand: Demand, among: Mask) -> Mask:
        """The rows that are not *among* those asked for, or where cpu or memory do not suffice. A new array."""
        found = columns.free_cpu < demand.cpu_millicores
        found |= columns.free_memory < demand.memory_bytes
        found |= ~among
        return found

    def may_run(self, gates: Sequence[Gate]) -> Mask:
        """Which nodes pass all *gates*. Not to be changed by the caller."""
        key = tuple(map(id, gates))
        found = self._masks.get(key)
        if found is None:
            found = np.logical_and.reduce([one.passes for one in gates])
            self._masks[key] = found
        return found

    def gates(self, job: Job, group: TaskGroup, settings: ClusterSettings) -> list[Gate]:
        """The filters of `feasibility.check` in their order, each over all nodes."""
        found = [self._accepting(settings)]
        if job.regions:
            reason = wrong_region(job.regions)
            found.append(self._gate(reason, lambda node, _held: node.region in job.regions))
        found += [self._driver(task) for task in group.tasks]
        for volume in group.volumes:
            offers = partial(_offers, volume.source)
            found.append(self._gate(missing_volume(volume.source), offers))
        found += [self._gate(missing_secret(name), partial(_knows, name)) for name in secrets_of(group)]
        for constraint in constraints_of(job, group):
            if not constraint.operator.startswith("distinct"):
                found.append(self._meeting(constraint))
        return found

    def meets(self, condition: Constraint | Affinity) -> Mask:
        """Which nodes' attributes satisfy a constraint or affinity."""
        return self._meeting(condition).passes

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

    def _accepting(self, settings: ClusterSettings) -> Gate:
        key = ("accepts", settings.nodes)
        if key not in self._gates:
            reasons = [accepts(node, settings) for node in self.nodes]
            self._gates[key] = _gate_of(reasons)
        return self._gates[key]

    def _driver(self, task: Task) -> Gate:
        """Whose driver can run *task*: asked once for each state the driver has anywhere."""
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
        reasons = tuple(has_driver(node, task) for node in samples_of)
        gate_key = ("driver", task.driver, reasons)
        found = self._gates.get(gate_key)
        if found is None:
            found = _gate_of([reasons[code] for code in codes_of])
            self._gates[gate_key] = found
        return found

    def _meeting(self, condition: Constraint | Affinity) -> Gate:
        attribute, operator, value = condition.attribute, condition.operator, condition.value
        return self._gate(
            constraint_failed(attribute, operator, value), lambda _node, held: meets(condition, held)
        )

    def _gate(self, reason: Reason, holds: Callable[[Node, Mapping[str, str]], bool]) -> Gate:
        """The gate that refuses with *reason* whoever does not hold; a reason says all that is asked."""
        found = self._gates.get(reason)
        if found is None:
            rows = zip(self.nodes, self.attributes, strict=True)
            passes = np.array([holds(node, held) for node, held in rows], dtype=np.bool_)
            found = Gate(passes, ((reason, ~passes),))
            self._gates[reason] = found
        return found


def _offers(source: str, node: Node, _attributes: Mapping[str, str]) -> bool:
    return offers_volume(node, source)


def _knows(secret: str, node: Node, _attributes: Mapping[str, str]) -> bool:
    return secret in node.secrets


def _gate_of(reasons: Sequence[Reason | None]) -> Gate:
    """A gate from each row's reason, None where it passes."""
    kinds = sorted({reason for reason in reasons if reason is not None})
    passes = np.array([reason is None for reason in reasons], dtype=np.bool_)
    return Gate(
        passes,
        tuple((kind, np.array([reason == kind for reason in reasons], dtype=np.bool_)) for kind in kinds),
    )


def refused(gates: Sequence[Gate], among: Mask) -> Iterator[tuple[Reason, int]]:
    """Of the rows *among*, how many each gate is the first to refuse, by reason; *among* is left as who passes all."""
    for gate in gates:
        for reason, mask in gate.refusals:
            number = int(np.count_nonzero(mask & among))
            if number:
                yield reason, number
        among &= gate.passes


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
