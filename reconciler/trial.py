"""A state that takes what an evaluation puts for a while, and is as it was afterwards. Pure.

For many what-ifs in a row: each costs what it changes, where a copy would cost the whole state.
"""

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from trueup.models.allocation import Allocation
from trueup.models.deployment import Deployment
from trueup.models.node import Node
from trueup.models.record import JobRecord, JobVersion
from trueup.models.state import ClusterState


class Trial:
    """Puts into *state* until the block is left. Nobody else may change it meanwhile."""

    def __init__(self, state: ClusterState) -> None:
        self.state = state
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._undo:
            self._undo.pop()()

    def put_node(self, node: Node) -> None:
        """Changes a node of the state."""
        self._undo.append(partial(self.state.nodes.__setitem__, node.id, self.state.nodes[node.id]))
        self.state.nodes[node.id] = node

    def put_job(self, record: JobRecord) -> None:
        """Changes the record of a job of the state."""
        self._undo.append(partial(self.state.jobs.__setitem__, record.name, self.state.jobs[record.name]))
        self.state.jobs[record.name] = record

    def put_version(self, version: JobVersion) -> None:
        """Changes a version of the state."""
        earlier = self.state.versions[version.job.name, version.version]
        self._undo.append(partial(self.state.put_version, earlier))
        self.state.put_version(version)

    def put_allocation(self, allocation: Allocation) -> None:
        """Adds or changes an allocation."""
        earlier = self.state.allocations.get(allocation.id)
        self._undo.append(
            partial(self.state.drop_allocation, allocation.id)
            if earlier is None
            else partial(self.state.put_allocation, earlier)
        )
        self.state.put_allocation(allocation)

    def put_deployment(self, deployment: Deployment) -> None:
        """Adds or changes a deployment."""
        earlier = self.state.deployments.get(deployment.id)
        self._undo.append(
            partial(self.state.drop_deployment, deployment.id)
            if earlier is None
            else partial(self.state.put_deployment, earlier)
        )
        self.state.put_deployment(deployment)
