"""All that decisions read, in memory and in one place: the store's projection, a STATE.json, or a simulation's world.

Values are frozen; the containers here change only through the `put_…` and `drop_…` methods, which keep the
per-job and per-node indexes and the nodes' running totals right, so that no reader recounts them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from trueup.models.allocation import Allocation
from trueup.models.deployment import Deployment
from trueup.models.errors import SpecError
from trueup.models.fit import NodeUsage
from trueup.models.ids import AllocationId, DeploymentId, NodeId, RevisionId
from trueup.models.job import Job
from trueup.models.node import Node
from trueup.models.notice import Told
from trueup.models.record import JobRecord, JobVersion
from trueup.models.revision import Held, SourceStatus
from trueup.models.template import ClusterSettings, NodePolicy, Template

Key = TypeVar("Key")
Member = TypeVar("Member")


class NodeMap(dict[NodeId, Node]):
    """The nodes by id; *version* grows with every change, so that what is derived from them knows when it is old.

    Changed item by item only: no other way of a dict to change is counted.
    """

    def __init__(self, nodes: Mapping[NodeId, Node] | None = None) -> None:
        super().__init__(nodes or {})
        self.version = 0

    def __setitem__(self, key: NodeId, node: Node) -> None:
        super().__setitem__(key, node)
        self.version += 1

    def __delitem__(self, key: NodeId) -> None:
        super().__delitem__(key)
        self.version += 1


@dataclass(slots=True, kw_only=True)
class ClusterState:
    """The whole cluster at one `index`.

    *derived* is what a reader made of the state and keeps beside it, for as long as the state lives; *touched* are the
    nodes whose totals changed since it last looked. Neither is part of the state.

    *inherited*: the store was new when it met agents of an earlier epoch, so whether a batch job ran is unknown.
    """

    index: int = 0
    epoch: int = 0
    cluster_id: str = ""
    inherited: bool = False
    revision: RevisionId | None = None
    held: Held | None = None
    errors: tuple[SpecError, ...] = ()
    settings: ClusterSettings = field(default_factory=ClusterSettings)
    source: SourceStatus = field(default_factory=SourceStatus)
    told: tuple[Told, ...] = ()
    jobs: dict[str, JobRecord] = field(default_factory=dict)
    versions: dict[tuple[str, int], JobVersion] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)
    node_policies: dict[str, NodePolicy] = field(default_factory=dict)
    nodes: NodeMap = field(default_factory=NodeMap)
    allocations: dict[AllocationId, Allocation] = field(default_factory=dict)
    deployments: dict[DeploymentId, Deployment] = field(default_factory=dict)
    _ids_by_job: dict[str, dict[AllocationId, None]] = field(default_factory=dict)
    _ids_by_node: dict[NodeId, dict[AllocationId, None]] = field(default_factory=dict)
    _deployments_by_job: dict[str, dict[DeploymentId, None]] = field(default_factory=dict)
    _dependants: dict[str, dict[str, None]] = field(default_factory=dict, compare=False)
    _usage: dict[NodeId, NodeUsage] = field(default_factory=dict)
    derived: object | None = field(default=None, compare=False, repr=False)
    touched: set[NodeId] = field(default_factory=set, compare=False, repr=False)
    _identity: object = field(default_factory=object, compare=False, repr=False)
    _allocation_changes: int = field(default=0, compare=False, repr=False)

    def current_version(self, job: str) -> JobVersion | None:
        """The version that *job*'s record points to, also of a removed job; None if the job is unknown."""
        record = self.jobs.get(job)
        return None if record is None else self.versions.get((job, record.version))

    def wanted_job(self, name: str) -> Job | None:
        """The job as git wants it now; None when it is unknown or removed."""
        record = self.jobs.get(name)
        if record is None or record.removed:
            return None
        version = self.versions.get((name, record.version))
        return None if version is None else version.job

    def allocations_of_job(self, job: str) -> list[Allocation]:
        """Every allocation of *job* still known, in order of arrival."""
        return self._known(list(self._ids_by_job.get(job, ())))

    def allocations_on_node(self, node_id: NodeId) -> list[Allocation]:
        """Every allocation placed on the node still known, in order of arrival."""
        return self._known(list(self._ids_by_node.get(node_id, ())))

    def deployments_of_job(self, job: str) -> list[Deployment]:
        """Deployments of *job*, oldest first."""
        ids = list(self._deployments_by_job.get(job, ()))
        return [found for held in ids if (found := self.deployments.get(held)) is not None]

    def dependants_of(self, name: str) -> Sequence[str]:
        """Jobs whose current version depends on the job *name*, sorted."""
        known = ((other, self.current_version(other)) for other in list(self._dependants.get(name, ())))
        return sorted(
            other for other, version in known if version is not None and name in version.job.depends_on
        )

    def usage(self, node_id: NodeId) -> NodeUsage:
        """The node's running totals. Not to be changed by the caller: `copy` it for what-if."""
        used = self._usage.get(node_id)
        return NodeUsage() if used is None else used

    def room_version(self) -> object:
        """Equal for two looks at this very state if no allocation, node or setting changed between them."""
        return (self._identity, self._allocation_changes, self.nodes.version, self.settings)

    def node_named(self, name: str) -> Node | None:
        """The node of that name (names are unique), or None."""
        return next((node for node in list(self.nodes.values()) if node.name == name), None)

    def job_names(self) -> Iterator[str]:
        """All known jobs by name."""
        return iter(sorted(self.jobs))

    def put_allocation(self, allocation: Allocation) -> None:
        """Adds or replaces an allocation; one that moved to another node keeps its place in the order."""
        self._allocation_changes += 1
        earlier = self.allocations.get(allocation.id)
        if earlier is not None:
            self._count_out(earlier)
            if earlier.node_id != allocation.node_id:
                _remove(self._ids_by_node, earlier.node_id, earlier.id)
        self.allocations[allocation.id] = allocation
        _add(self._ids_by_job, allocation.job, allocation.id)
        _add(self._ids_by_node, allocation.node_id, allocation.id)
        if allocation.holds_resources:
            self.touched.add(allocation.node_id)
            used = self._usage.get(allocation.node_id)
            if used is None:
                used = self._usage[allocation.node_id] = NodeUsage()
            used.add(allocation)

    def drop_allocation(self, allocation_id: AllocationId) -> None:
        """Forgets an allocation; nothing happens if it is unknown."""
        allocation = self.allocations.pop(allocation_id, None)
        if allocation is None:
            return
        self._allocation_changes += 1
        _remove(self._ids_by_job, allocation.job, allocation_id)
        _remove(self._ids_by_node, allocation.node_id, allocation_id)
        self._count_out(allocation)

    def put_deployment(self, deployment: Deployment) -> None:
        """Adds or replaces a deployment."""
        self.deployments[deployment.id] = deployment
        self._deployments_by_job.setdefault(deployment.job, {})[deployment.id] = None

    def drop_deployment(self, deployment_id: DeploymentId) -> None:
        """Forgets a deployment; nothing happens if it is unknown."""
        deployment = self.deployments.pop(deployment_id, None)
        if deployment is not None:
            _remove(self._deployments_by_job, deployment.job, deployment_id)

    def put_version(self, version: JobVersion) -> None:
        """Adds or replaces a job version."""
        self.versions[version.job.name, version.version] = version
        for name in version.job.depends_on:
            _add(self._dependants, name, version.job.name)

    def copy(self) -> "ClusterState":
        """An independent copy, for what-if: containers are copied, the frozen values in them shared."""
        return ClusterState(
            index=self.index,
            epoch=self.epoch,
            cluster_id=self.cluster_id,
            inherited=self.inherited,
            revision=self.revision,
            held=self.held,
            errors=self.errors,
            settings=self.settings,
            source=self.source,
            told=self.told,
            jobs=dict(self.jobs),
            versions=dict(self.versions),
            templates=dict(self.templates),
            node_policies=dict(self.node_policies),
            nodes=NodeMap(self.nodes),
            allocations=dict(self.allocations),
            deployments=dict(self.deployments),
            _ids_by_job={job: dict(ids) for job, ids in self._ids_by_job.items()},
            _ids_by_node={node: dict(ids) for node, ids in self._ids_by_node.items()},
            _deployments_by_job={job: dict(ids) for job, ids in self._deployments_by_job.items()},
            _dependants={job: dict(names) for job, names in self._dependants.items()},
            _usage={node: used.copy() for node, used in self._usage.items()},
        )

    def _known(self, ids: list[AllocationId]) -> list[Allocation]:
        # Readers on other threads may come between two puts of a commit: an id that is gone by now is left out.
        return [found for held in ids if (found := self.allocations.get(held)) is not None]

    def _count_out(self, allocation: Allocation) -> None:
        if not allocation.holds_resources:
            return
        self.touched.add(allocation.node_id)
        used = self._usage[allocation.node_id]
        used.remove(allocation)
        if not used.allocations:
            del self._usage[allocation.node_id]


def _add(index: dict[Key, dict[Member, None]], key: Key, held: Member) -> None:
    members = index.get(key)
    if members is None:
        index[key] = {held: None}
    else:
        members[held] = None


def _remove(index: dict[Key, dict[Member, None]], key: Key, held: Member) -> None:
    members = index[key]
    members.pop(held, None)
    if not members:
        del index[key]
