"""All nodes as columns, in the order of their names: which may run a group, and how much of each is left.

Kept beside a state and brought up to date by what changed there: an allocation touches its node's totals, a node's
status or attributes only what is asked of that node; a node that comes, goes or has other resources makes a new table.
What is asked of all nodes is then a few operations on whole columns.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from reconciler.columns import Codes, Column, Columns, Mask
from reconciler.driver_states import DriverStates
from reconciler.feasibility import accepts, constraints_of, meets, offers_volume, secrets_of
from reconciler.gates import Ask, Gate, Gates, NodeRow, Passing, passing
from reconciler.kept import Kept
from reconciler.packing import Packing
from reconciler.permission import forbids_secret
from trueup.models import secret_rules
from trueup.models.fit import Demand
from trueup.models.ids import NodeId
from trueup.models.job import Affinity, Constraint, Job, Task, TaskGroup
from trueup.models.node import Node, attributes_of
from trueup.models.reasons import Reason, constraint_failed, missing_secret, missing_volume, wrong_region
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings

ABSENT: Final = -1
"""The code of a node that has no value."""
_KEPT_BYTES: Final = 64 << 20
_MOST_KEPT: Final = 2048
"""Of gates, of those who pass some together, and of demands: so many of each, and so much memory for each."""


class NodeTable:
    """One set of nodes as columns. Rows are numbered by name."""

    def __init__(self, state: ClusterState) -> None:
        self.version = state.nodes.version
        self.nodes = sorted(state.nodes.values(), key=lambda node: node.name)
        self.row_of: Mapping[NodeId, int] = {node.id: row for row, node in enumerate(self.nodes)}
        self.columns = Columns(self.nodes)
        self._attributes: list[Mapping[str, str]] | None = None
        self._gates = Gates(self._most_of(bytes_a_row=2))
        # By the identity of arrays and gates: what is kept under it holds them, so that no other can have it.
        self._passing: Kept[Passing] = Kept(self._most_of(bytes_a_row=9))
        self._packings: Kept[Packing] = Kept(self._most_of(bytes_a_row=32))
        self._drivers: dict[str, DriverStates] = {}
        self._values: dict[str, tuple[Codes, Sequence[str]]] = {}
        for node in self.nodes:
            if state.usage(node.id).allocations:
                self.refresh(state, node.id)

    def refresh(self, state: ClusterState, node_id: NodeId) -> None:
        """Takes in a node's totals."""
        row = self.row_of.get(node_id)
        if row is not None:
            self.columns.put(row, state.usage(node_id))

    def follow(self, state: ClusterState) -> bool:
        """Takes in the nodes as they are now; False if they need a new table."""
        if len(state.nodes) != len(self.nodes):
            return False
        changed = [
            (row, earlier, now)
            for row, earlier in enumerate(self.nodes)
            if (now := state.nodes.get(earlier.id)) is not earlier
        ]
        rows: list[NodeRow] = []
        for row, earlier, now in changed:
            if now is None or (now.name, now.resources) != (earlier.name, earlier.resources):
                return False
            rows.append((row, now, attributes_of(now)))
        for row, now, held in rows:
            self._take_in(row, now, held)
        self._gates.ask_again(rows)
        self.version = state.nodes.version
        return True

    def packing(self, demand: Demand, bar: Column, placement: str) -> Packing:
        """The points of *demand* where *bar* lets it go."""
        key = (demand.cpu_millicores, demand.memory_bytes, id(bar), placement)
        return self._packings.of(
            key, lambda: Packing(self.columns, demand, bar, wants_empty=placement == "spread")
        )

    def passing(self, gates: Sequence[Gate]) -> Passing:
        """Who passes all *gates*. Not to be changed by the caller."""
        return self._passing.of(tuple(map(id, gates)), lambda: passing(tuple(gates)))

    def gates(self, job: Job, group: TaskGroup, settings: ClusterSettings) -> list[Gate]:
        """The filters of `feasibility.check` in their order, each over all nodes."""
        found = [self._gate(("accepts", settings.nodes), lambda: partial(_accepts_not, settings))]
        if job.regions:
            found.append(self._gate(("region", job.regions), lambda: partial(_elsewhere, job.regions)))
        found += [self._driver(task) for task in group.tasks]
        for volume in group.volumes:
            found.append(self._gate(("volume", volume.source), partial(partial, _offers_not, volume.source)))
        for name in secrets_of(group):
            found.append(self._gate(("secret", name), partial(partial, _knows_not, name)))
            found += self._allowed(job.name, name)
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

    def _take_in(self, row: int, node: Node, attributes: Mapping[str, str]) -> None:
        self.nodes[row] = node
        for states in self._drivers.values():
            states.put(row, node)
        if self._attributes is not None:
            earlier, self._attributes[row] = self._attributes[row], attributes
            for name in [known for known in self._values if earlier.get(known) != attributes.get(known)]:
                del self._values[name]

    def _driver(self, task: Task) -> Gate:
        states = self._drivers.get(task.driver)
        if states is None or states.are_many:
            states = self._drivers[task.driver] = DriverStates(task.driver, self.nodes)
        return states.gate(task)

    def _allowed(self, job: str, secret: str) -> Iterator[Gate]:
        """Whose policy lets *job* name *secret*; asked only where some node has a rule for that."""
        attribute = f"node.attributes.{secret_rules.ATTRIBUTE}{secret}"
        if self.values(attribute)[1]:
            yield self._gate(("rule", secret, job), lambda: partial(_forbids, attribute, job, secret))

    def _meeting(self, condition: Constraint | Affinity) -> Gate:
        asked = (condition.attribute, condition.operator, condition.value)
        return self._gate(asked, lambda: partial(_fails, constraint_failed(*asked), condition))

    def _gate(self, key: Hashable, ask: Callable[[], Ask]) -> Gate:
        return self._gates.of(key, self._rows, ask)

    def _rows(self) -> Iterator[NodeRow]:
        for row, (node, held) in enumerate(zip(self.nodes, self.attributes, strict=True)):
            yield row, node, held

    def _most_of(self, *, bytes_a_row: int) -> int:
        return min(_MOST_KEPT, 1 + _KEPT_BYTES // (bytes_a_row * max(len(self.nodes), 1)))


def _accepts_not(settings: ClusterSettings, node: Node, _held: Mapping[str, str]) -> Reason | None:
    return accepts(node, settings)


def _elsewhere(regions: tuple[str, ...], node: Node, _held: Mapping[str, str]) -> Reason | None:
    return None if node.region in regions else wrong_region(regions)


def _offers_not(source: str, node: Node, _held: Mapping[str, str]) -> Reason | None:
    return None if offers_volume(node, source) else missing_volume(source)


def _knows_not(secret: str, node: Node, _held: Mapping[str, str]) -> Reason | None:
    return None if secret in node.secrets else missing_secret(secret)


def _forbids(attribute: str, job: str, secret: str, _node: Node, held: Mapping[str, str]) -> Reason | None:
    rule = held.get(attribute)
    return None if rule is None else forbids_secret(rule, job, secret)


def _fails(
    reason: Reason, condition: Constraint | Affinity, _node: Node, held: Mapping[str, str]
) -> Reason | None:
    return None if meets(condition, held) else reason


def table_of(state: ClusterState) -> NodeTable:
    """The table of *state* as it is now: the one kept beside it, if it can follow."""
    table = state.derived
    if not isinstance(table, NodeTable) or (table.version != state.nodes.version and not table.follow(state)):
        table = NodeTable(state)
        state.derived = table
        state.touched.clear()
        return table
    if state.touched:
        for node_id in state.touched:
            table.refresh(state, node_id)
        state.touched.clear()
    return table
