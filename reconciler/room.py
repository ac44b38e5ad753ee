"""The cluster's room as a plan goes on. Pure."""

from dataclasses import dataclass, field

from reconciler.preemption import Holder
from trueup.models.allocation import Allocation
from trueup.models.fit import NodeUsage
from trueup.models.ids import AllocationId, NodeId
from trueup.models.state import ClusterState


@dataclass(slots=True)
class Room:
    """Running totals of the state, with what the plan itself takes and gives back: *changed* are those nodes' own."""

    cluster: ClusterState
    changed: dict[NodeId, NodeUsage] = field(default_factory=dict)
    _leaving: set[AllocationId] = field(default_factory=set)

    def usage(self, node_id: NodeId) -> NodeUsage:
        """What is taken on the node. Not to be changed by the caller."""
        return self.changed.get(node_id) or self.cluster.usage(node_id)

    def without(self, node_id: NodeId, *leaving: Allocation | None) -> NodeUsage:
        """What is taken on the node once those of *leaving* that are there have gone."""
        gone = [
            held for held in leaving if held is not None and held.node_id == node_id and held.holds_resources
        ]
        used = self.usage(node_id)
        if not gone:
            return used
        used = used.copy()
        for held in gone:
            used.remove(held)
        return used

    def take(self, allocation: Allocation, *leaving: Allocation) -> None:
        """Counts a placement in, and what goes for it out."""
        self._own(allocation.node_id).add(allocation)
        for held in leaving:
            self._leaving.add(held.id)
            if held.holds_resources:
                self._own(held.node_id).remove(held)

    def holders(self, node_id: NodeId, job: str) -> list[Holder]:
        """What of other jobs runs on the node and could be told to go."""
        found = []
        for held in self.cluster.allocations_on_node(node_id):
            if held.job == job or held.id in self._leaving or not held.is_wanted or held.is_terminal:
                continue
            wanted = self.cluster.wanted_job(held.job)
            if wanted is not None:
                found.append(Holder(allocation=held, priority=wanted.priority))
        return found

    def _own(self, node_id: NodeId) -> NodeUsage:
        """The node's totals, to be changed."""
        used = self.changed.get(node_id)
        if used is None:
            used = self.changed[node_id] = self.cluster.usage(node_id).copy()
        return used
