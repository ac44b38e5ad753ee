"""One write in the making: puts go into the working state at once, and are noted for the commit."""

from typing import Any, Literal, TypeVar

import msgspec

from metastore.allocations import ALLOCATIONS
from metastore.changes import Changes
from metastore.deployments import DEPLOYMENTS
from metastore.documents import NODE_POLICIES, TEMPLATES
from metastore.jobs import JOBS, VERSIONS
from metastore.kinds import Kind
from metastore.nodes import NODES
from metastore.outbox import Outbox
from trueup.models.allocation import Allocation
from trueup.models.deployment import Deployment
from trueup.models.errors import SpecError
from trueup.models.evaluation import Evaluation, Event
from trueup.models.ids import AllocationId, DeploymentId, NodeId, RevisionId
from trueup.models.node import Node
from trueup.models.notice import Told
from trueup.models.record import JobRecord, JobVersion
from trueup.models.revision import Held, Revision, SourceStatus
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings, NodePolicy, Template

K = TypeVar("K")
V = TypeVar("V")


class StoreTransaction:
    """As the reconciler's and the membership's `Transaction`. Used by one thread, inside its `with` block."""

    def __init__(self, state: ClusterState, outbox: Outbox) -> None:
        self.changes = Changes()
        self._state = state
        self._outbox = outbox
        self._next_index = state.index + 1

    @property
    def state(self) -> ClusterState:
        """The newest state with this transaction's own puts."""
        return self._state

    @property
    def next_index(self) -> int:
        """The index this transaction commits as."""
        return self._next_index

    def skip_index(self, past: int) -> None:
        """Commits as an index greater than *past*: a new store takes up where agents remember one that is lost."""
        self._next_index = max(self._next_index, past + 1)

    def put_job(self, record: JobRecord) -> None:
        self._put(JOBS, record)

    def drop_job(self, name: str) -> None:
        self._drop(JOBS, name)

    def put_version(self, version: JobVersion) -> None:
        self._put(VERSIONS, version)

    def drop_version(self, job: str, version: int) -> None:
        self._drop(VERSIONS, (job, version))

    def put_template(self, template: Template) -> None:
        self._put(TEMPLATES, template)

    def drop_template(self, name: str) -> None:
        self._drop(TEMPLATES, name)

    def put_node_policy(self, policy: NodePolicy) -> None:
        self._put(NODE_POLICIES, policy)

    def drop_node_policy(self, name: str) -> None:
        self._drop(NODE_POLICIES, name)

    def put_settings(self, settings: ClusterSettings) -> None:
        self._set("settings", settings)

    def put_node(self, node: Node) -> None:
        self._put(NODES, node)

    def drop_node(self, node_id: NodeId) -> None:
        """Forgets a node and its secret."""
        if node_id in self._state.nodes:
            self._drop(NODES, node_id)
            self.changes.secrets[node_id] = None

    def put_node_secret(self, node_id: NodeId, secret: str) -> None:
        """The secret by which the node is known from then on."""
        self.changes.secrets[node_id] = secret

    def put_allocation(self, allocation: Allocation) -> None:
        self._put(ALLOCATIONS, allocation)

    def drop_allocation(self, allocation_id: AllocationId) -> None:
        self._drop(ALLOCATIONS, allocation_id)

    def put_deployment(self, deployment: Deployment) -> None:
        self._put(DEPLOYMENTS, deployment)

    def drop_deployment(self, deployment_id: DeploymentId) -> None:
        self._drop(DEPLOYMENTS, deployment_id)

    def put_evaluation(self, evaluation: Evaluation) -> None:
        self.changes.evaluations.append(evaluation)

    def put_event(self, event: Event) -> None:
        self.changes.events.append(event)

    def put_revision(self, revision: Revision) -> None:
        self.changes.revisions[revision.id] = revision

    def set_revision(self, revision: RevisionId, held: Held | None) -> None:
        """The applied revision, and what is held instead of it (None: nothing)."""
        self._set("revision", revision)
        self._set("held", held)

    def set_held(self, held: Held | None) -> None:
        self._set("held", held)

    def set_source(self, source: SourceStatus) -> None:
        """How the source does. The time of the last success alone writes nothing: it is kept with the next change."""
        earlier = self._state.source
        if msgspec.structs.replace(earlier, last_success_at=source.last_success_at) == source:
            self.changes.source = source
        else:
            self._set("source", source)

    def set_errors(self, errors: tuple[SpecError, ...]) -> None:
        """What is wrong with documents of the newest revision seen."""
        self._set("errors", errors)

    def set_told(self, told: tuple[Told, ...]) -> None:
        """What webhooks were told of, and not yet of its end."""
        self._set("told", told)

    def set_inherited(self) -> None:
        """The store was new when it met agents of an earlier epoch."""
        self._set("inherited", value=True)

    def set_epoch(self, epoch: int) -> None:
        """Begins a greater epoch."""
        self._set("epoch", epoch)

    def push(self, node_id: NodeId, allocation_id: AllocationId, kind: Literal["start", "stop"]) -> None:
        """Adds a push to the outbox."""
        self.changes.pushes.append(self._outbox.new_entry(node_id, allocation_id, kind))

    def _put(self, kind: Kind[K, V], value: V) -> None:
        self.changes.stage(kind, kind.key_of(value), value)
        kind.put(self._state, value)

    def _drop(self, kind: Kind[K, V], key: K) -> None:
        if key in kind.held(self._state):
            self.changes.stage(kind, key, None)
            kind.drop(self._state, key)

    def _set(self, name: str, value: Any) -> None:  # noqa: ANN401 - a field of the state; `meta.FIELDS` has its type
        setattr(self._state, name, value)
        self.changes.meta.add(name)
