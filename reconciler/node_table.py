"""All nodes as columns, in the order of their names: which may run a group, and how much of each is left.

Kept beside a state and brought up to date by what changed there: the nodes themselves make a new table, an allocation
only touches its node's totals. What is asked of all nodes is then a few operations on whole columns.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec
import numpy as np

from reconciler.columns import Codes, Column, Columns, Mask
from reconciler.feasibility import (
    accepts,
    constraints_of,
    has_driver,
    meets,
    offers_volume,
    secrets_of,
)
from reconciler.kept import Kept
from reconciler.packing import NEVER, Packing
from reconciler.permission import forbids_secret
from trueup.models import secret_rules
from trueup.models.codec import to_json
from trueup.models.fit import Demand
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

ABSENT: Final = -1
"""The code of a node that has no value."""
_KEPT_BYTES: Final = 64 << 20
_MOST_KEPT: Final = 2048
"""Of gates, of those who pass some together, and of demands: so many of each, and so much memory for each."""


class Gate(msgspec.Struct, frozen=True, gc=False):
    """One filter over all nodes: who passes, and whom it refuses for which reason."""

    passes: Mask
    refusals: tuple[tuple[Reason, Mask], ...]


class Passing(NamedTuple):
    """Which rows pass *gates*; *bar* says the same to be added to points: 0, or minus infinity."""

    gates: tuple[Gate, ...]
    mask: Mask
    bar: Column


class NodeTable:
    """One set of nodes as columns. Rows are numbered by name."""

    def __init__(self, state: ClusterState) -> None:
        self.version = state.nodes.version
        self.nodes: Sequence[Node] = sorted(state.nodes.values(), key=lambda node: node.name)
        self.row_of: Mapping[NodeId, int] = {node.id: row for row, node in enumerate(self.nodes)}
        self.columns = Columns(self.nodes)
        self._attributes: Sequence[Mapping[str, str]] | None = None
        # By the identity of arrays and gates: what is kept under it holds them, so that no other can have it.
        self._gates: Kept[Gate] = Kept(self._most_of(bytes_a_row=2))
        self._passing: Kept[Passing] = Kept(self._most_of(bytes_a_row=9))
        self._packings: Kept[Packing] = Kept(self._most_of(bytes_a_row=32))
        self._drivers: dict[str, tuple[Codes, Sequence[Node]]] = {}
        self._values: dict[str, tuple[Codes, Sequence[str]]] = {}
        for node in self.nodes:
            if state.usage(node.id).allocations:
                self.refresh(state, node.id)

    def refresh(self, state: ClusterState, node_id: NodeId) -> None:
        """Takes in a node's totals."""
        row = self.row_of.get(node_id)
        if row is not None:
            self.columns.put(row, state.usage(node_id))

    def packing(self, demand: Demand, bar: Column, placement: str) -> Packing:
        """The points of *demand* where *bar* lets it go."""
        key = (demand.cpu_millicores, demand.memory_bytes, id(bar), placement)
        return self._packings.of(
            key, lambda: Packing(self.columns, demand, bar, wants_empty=placement == "spread")
        )

    def passing(self, gates: Sequence[Gate]) -> Passing:
        """Who passes all *gates*. Not to be changed by the caller."""
        return self._passing.of(tuple(map(id, gates)), lambda: _passing(tuple(gates)))

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
        for name in secrets_of(group):
            found.append(self._gate(missing_secret(name), partial(_knows, name)))
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

    def _accepting(self, settings: ClusterSettings) -> Gate:
        return self._gates.of(
            ("accepts", settings.nodes), lambda: _gate_of([accepts(node, settings) for node in self.nodes])
        )

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
        return self._gates.of(
            ("driver", task.driver, reasons), lambda: _gate_of([reasons[code] for code in codes_of])
        )

    def _allowed(self, job: str, secret: str) -> Iterator[Gate]:
        """Whose policy lets *job* name *secret*; asked only where some node has a rule for that."""
        codes, values = self.values(f"node.attributes.{secret_rules.ATTRIBUTE}{secret}")
        if values:
            reasons = [forbids_secret(value, job, secret) for value in values] + [None]  # ABSENT is the last.
            yield self._gates.of(("secret", secret, job), lambda: _gate_of([reasons[code] for code in codes]))

    def _meeting(self, condition: Constraint | Affinity) -> Gate:
        asked = (condition.attribute, condition.operator, condition.value)
        return self._gates.of(
            asked,
            lambda: self._asked_of_each(
                constraint_failed(*asked), lambda _node, held: meets(condition, held)
            ),
        )

    def _gate(self, reason: Reason, holds: Callable[[Node, Mapping[str, str]], bool]) -> Gate:
        """The gate that refuses with *reason* whoever does not hold; a reason says all that is asked."""
        return self._gates.of(reason, lambda: self._asked_of_each(reason, holds))

    def _asked_of_each(self, reason: Reason, holds: Callable[[Node, Mapping[str, str]], bool]) -> Gate:
        rows = zip(self.nodes, self.attributes, strict=True)
        passes = np.array([holds(node, held) for node, held in rows], dtype=np.bool_)
        return Gate(passes, ((reason, ~passes),))

    def _most_of(self, *, bytes_a_row: int) -> int:
        return min(_MOST_KEPT, 1 + _KEPT_BYTES // (bytes_a_row * max(len(self.nodes), 1)))


def _passing(gates: tuple[Gate, ...]) -> Passing:
    mask = np.logical_and.reduce([one.passes for one in gates])
    return Passing(gates, mask, np.where(mask, 0.0, NEVER))


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
