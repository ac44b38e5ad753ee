"""The doors of the reconciler: all it knows of store, network and spec source.

The real ones are made by the roof (`cli/wiring.py`), others by the simulator.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Literal, Protocol

from trueup.models.agent_error import AgentUnreachable as AgentUnreachable
from trueup.models.allocation import Allocation
from trueup.models.commit import Committed as Committed
from trueup.models.commit import OutboxEntry as OutboxEntry
from trueup.models.deployment import Deployment
from trueup.models.desired import DesiredState
from trueup.models.errors import SpecError
from trueup.models.evaluation import Evaluation, Event
from trueup.models.ids import AllocationId, NodeId, RevisionId
from trueup.models.node import Node
from trueup.models.record import JobRecord, JobVersion
from trueup.models.revision import Held, Revision, SourceStatus
from trueup.models.source_error import SourceUnavailable as SourceUnavailable
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings, NodePolicy, Template
from trueup.models.wire import Assignment, StopOrder


class Transaction(Protocol):
    """One write, all or nothing. `state` is the newest state, and shows this transaction's own puts.

    Raising inside the `with` block leaves no trace. A commit that changed nothing writes nothing and keeps the
    index. `put_…` replaces by key.
    """

    @property
    def state(self) -> ClusterState: ...
    @property
    def next_index(self) -> int:
        """The index this transaction commits as."""
        ...

    def put_job(self, record: JobRecord) -> None: ...
    def drop_job(self, name: str) -> None: ...
    def put_version(self, version: JobVersion) -> None: ...
    def put_template(self, template: Template) -> None: ...
    def drop_template(self, name: str) -> None: ...
    def put_node_policy(self, policy: NodePolicy) -> None: ...
    def drop_node_policy(self, name: str) -> None: ...
    def put_settings(self, settings: ClusterSettings) -> None: ...
    def put_node(self, node: Node) -> None: ...
    def drop_node(self, node_id: NodeId) -> None: ...
    def put_allocation(self, allocation: Allocation) -> None: ...
    def drop_allocation(self, allocation_id: AllocationId) -> None: ...
    def put_deployment(self, deployment: Deployment) -> None: ...
    def put_evaluation(self, evaluation: Evaluation) -> None: ...
    def put_event(self, event: Event) -> None: ...
    def put_revision(self, revision: Revision) -> None: ...
    def set_revision(self, revision: RevisionId, held: Held | None) -> None:
        """The applied revision, and what is held instead of it (None: nothing)."""
        ...

    def set_held(self, held: Held | None) -> None: ...
    def set_source(self, source: SourceStatus) -> None: ...
    def set_errors(self, errors: tuple[SpecError, ...]) -> None:
        """What is wrong with documents of the newest revision seen (`ClusterState.errors`)."""
        ...

    def push(self, node_id: NodeId, allocation_id: AllocationId, kind: Literal["start", "stop"]) -> None:
        """Adds a push to the outbox."""
        ...


class Store(Protocol):
    """The one place of truth. Reads come from `state`; all writes are transactions of one writer at a time."""

    @property
    def state(self) -> ClusterState:
        """The newest committed state; frozen values, containers that move on with each commit."""
        ...

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begins a write; blocks while another is under way. Durable when the block is left."""
        ...

    def revision(self, revision_id: RevisionId) -> Revision | None: ...
    def newest_revision(self) -> Revision | None: ...
    def outbox(self) -> Sequence[OutboxEntry]:
        """Pushes that are due, oldest first; kept in memory, so asking costs nothing."""
        ...

    def pushed(self, numbers: Sequence[int]) -> None:
        """Takes pushes off the outbox. Durable with the next transaction: a repeat after a crash does no harm."""
        ...

    def subscribe(self, listener: Callable[[Committed], None]) -> None:
        """Calls *listener* after each commit, on the writer's thread: it must only note names and return."""
        ...


class SpecSource(Protocol):
    """Where desired state comes from."""

    def read(self, applied: RevisionId | None) -> DesiredState:
        """The newest complete desired state. Raises SourceUnavailable, and then nothing may change.

        *applied* is the last applied revision: authors of changes since then are looked up from there. A repeat
        with nothing changed costs no parsing and returns a state with an equal `commit.id`.
        """
        ...

    @property
    def status(self) -> SourceStatus:
        """How the source does, with the time of the last success and the error since."""
        ...

    @property
    def next_look(self) -> datetime | None:
        """When to read again even if nothing woke the reader: a file settles, a poll is due (None: no need)."""
        ...


class Agents(Protocol):
    """The network towards agents. Every call has a deadline and may fail with AgentUnreachable."""

    def start(self, node: Node, assignments: Sequence[Assignment]) -> None:
        """Hands assignments to a node. Idempotent by allocation id; an older one than held is ignored."""
        ...

    def stop(self, node: Node, orders: Sequence[StopOrder]) -> None:
        """Tells a node to end allocations gracefully. Idempotent; an unknown id leaves a tombstone."""
        ...


class Loop(Protocol):
    """A level-triggered loop, stepped by a thread in production and by the simulator on a virtual clock."""

    def step(self) -> datetime | None:
        """Does what is due now and returns when to look again (None: only when woken)."""
        ...
