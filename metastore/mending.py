"""What a node should hold beside what it says it holds: a lost, repeated or reordered dispatch shows here. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from trueup.models.allocation import Allocation
from trueup.models.assignment import assignment_of
from trueup.models.ids import AllocationId, NodeId
from trueup.models.state import ClusterState
from trueup.models.wire import Assignment, HoldingKey, StopOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Mend:
    """What puts the node right. *orphans* are ids the store does not know on this node."""

    start: tuple[Assignment, ...] = ()
    stop: tuple[StopOrder, ...] = ()
    orphans: tuple[AllocationId, ...] = ()


def expected_keys(state: ClusterState, node_id: NodeId) -> list[HoldingKey]:
    """What the node holds if all dispatches and reports arrived: all that has not ended."""
    return [_key(held) for held in state.allocations_on_node(node_id) if not held.is_terminal]


def mend(state: ClusterState, node_id: NodeId, holdings: Iterable[HoldingKey]) -> Mend:
    """What to start and stop on a node that says it holds *holdings*."""
    by_id = {key.id: key for key in holdings}
    start: list[Assignment] = []
    stop: list[StopOrder] = []
    for held in state.allocations_on_node(node_id):
        key = by_id.pop(held.id, None)
        if held.is_terminal or not held.is_wanted:
            # Also where the node holds nothing of it: a start that is still on its way must find it stopped.
            if (key is None and not held.is_terminal) or (key is not None and key.desired_status == "run"):
                stop.append(StopOrder(id=held.id, reason=held.reason or "not needed"))
        elif key is None or key.version < held.job_version:
            assignment = assignment_of(state, held)
            if assignment is not None:
                start.append(assignment)
    return Mend(start=tuple(start), stop=tuple(stop), orphans=tuple(sorted(by_id)))


def orphan_stops(ids: Collection[AllocationId]) -> tuple[StopOrder, ...]:
    """Orders for what nobody wants."""
    return tuple(StopOrder(id=one, reason="not needed") for one in sorted(ids))


def _key(held: Allocation) -> HoldingKey:
    return HoldingKey(
        id=held.id, version=held.job_version, desired_status="run" if held.is_wanted else "stop"
    )
