"""What one transaction changes: the newest value under each key, and what it appends.

A put that changes nothing is left out, so a transaction without news is empty and writes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from metastore.allocations import ALLOCATIONS
from metastore.deployments import DEPLOYMENTS
from metastore.documents import NODE_POLICIES, TEMPLATES
from metastore.jobs import JOBS, VERSIONS
from metastore.kinds import Kind
from metastore.nodes import NODES
from trueup.models.allocation import Allocation
from trueup.models.commit import Committed, OutboxEntry
from trueup.models.evaluation import Evaluation, Event
from trueup.models.ids import NodeId, RevisionId
from trueup.models.node import Node
from trueup.models.revision import Revision, SourceStatus
from trueup.models.state import ClusterState

K = TypeVar("K")
V = TypeVar("V")

# Versions before allocations: whether a name is unique per node is a question to the job's version.
KINDS: Final[tuple[Kind[Any, Any], ...]] = (
    JOBS,
    VERSIONS,
    TEMPLATES,
    NODE_POLICIES,
    NODES,
    ALLOCATIONS,
    DEPLOYMENTS,
)


@dataclass(slots=True)
class Changes:
    """Staged values by kind and key (None: dropped), names of changed single values, and what is appended.

    *source* is set when only the time of the source's last success is new, which by itself is no change.
    """

    entities: dict[Kind[Any, Any], dict[Any, Any]] = field(default_factory=dict)
    meta: set[str] = field(default_factory=set)
    source: SourceStatus | None = None
    secrets: dict[NodeId, str | None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    revisions: dict[RevisionId, Revision] = field(default_factory=dict)
    pushes: list[OutboxEntry] = field(default_factory=list)

    def stage(self, kind: Kind[K, V], key: K, value: V | None) -> None:
        """Notes the newest value under *key*."""
        staged = self.entities.get(kind)
        if staged is None:
            staged = self.entities[kind] = {}
        staged[key] = value

    def staged(self, kind: Kind[K, V]) -> dict[K, V | None]:
        """What is staged of that kind."""
        return self.entities.get(kind, {})

    def settle(self, committed: ClusterState, working: ClusterState) -> None:
        """Leaves out what ended up as it was."""
        for kind, staged in self.entities.items():
            held = kind.held(committed)
            for key in [key for key, value in staged.items() if held.get(key) == value]:
                del staged[key]
        self.meta = {name for name in self.meta if getattr(committed, name) != getattr(working, name)}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (
            any(self.entities.values())
            or self.meta
            or self.secrets
            or self.events
            or self.evaluations
            or self.revisions
            or self.pushes
        )

    def apply(self, state: ClusterState) -> None:
        """Puts the staged entities into *state*."""
        for kind, key, value in self._ordered():
            if value is not None:
                kind.put(state, value)
            elif key in kind.held(state):
                kind.drop(state, key)

    def undo(self, working: ClusterState, committed: ClusterState) -> ClusterState:
        """*working* as it was before, from *committed*: the same object, unless an order must be mended."""
        if any(value is None for _, _, value in self._ordered()):
            # What was dropped would come back at the end of the order; errors after a drop are rare.
            return committed.copy()
        for kind, key, _ in self._ordered():
            earlier = kind.held(committed).get(key)
            if earlier is not None:
                kind.put(working, earlier)
            else:
                kind.drop(working, key)
        for name in self.meta:
            setattr(working, name, getattr(committed, name))
        return working

    def summary(self, committed: ClusterState, index: int) -> Committed:
        """The names of what changed, told from what *committed* was before."""
        return Committed(
            index=index,
            jobs=frozenset(self._jobs(committed)),
            nodes=frozenset(self.staged(NODES)),
            outbox=frozenset(entry.node_id for entry in self.pushes),
            room_freed=self._frees_room(committed),
            allocations=frozenset(self.staged(ALLOCATIONS)),
        )

    def _ordered(self) -> Iterator[tuple[Kind[Any, Any], Any, Any]]:
        for kind in KINDS:
            for key, value in self.staged(kind).items():
                yield kind, key, value

    def _jobs(self, committed: ClusterState) -> Iterator[str]:
        yield from self.staged(JOBS)
        yield from (job for job, _ in self.staged(VERSIONS))
        for allocation_id, allocation in self.staged(ALLOCATIONS).items():
            yield (allocation or committed.allocations[allocation_id]).job
        for deployment_id, deployment in self.staged(DEPLOYMENTS).items():
            yield (deployment or committed.deployments[deployment_id]).job

    def _frees_room(self, committed: ClusterState) -> bool:
        allocations = self.staged(ALLOCATIONS).items()
        if any(_gives_back(committed.allocations.get(key), value) for key, value in allocations):
            return True
        return any(_offers(node) for node in self.staged(NODES).values())


def _gives_back(earlier: Allocation | None, now: Allocation | None) -> bool:
    if earlier is None or not earlier.holds_resources:
        return False
    if now is None or not now.holds_resources or now.node_id != earlier.node_id:
        return True
    smaller = (
        now.resources.cpu_millicores < earlier.resources.cpu_millicores
        or now.resources.memory_bytes < earlier.resources.memory_bytes
    )
    return smaller or not set(earlier.ports.values()) <= set(now.ports.values())


def _offers(node: Node | None) -> bool:
    return node is not None and node.status == "ready" and node.eligible
