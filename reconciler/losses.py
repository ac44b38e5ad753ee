"""What the loss of a node would leave without room, asked of the functions that would answer it. Pure."""

from datetime import datetime

import msgspec

from reconciler.dirty import evaluation_order
from reconciler.evaluate import evaluate, record, unplaced_of
from reconciler.report import LostGroup, NodeLoss
from reconciler.state_copy import StateCopy
from trueup.models.ids import IdSource, NodeId
from trueup.models.state import ClusterState


def loss_of(node_id: NodeId, state: ClusterState, now: datetime, ids: IdSource) -> NodeLoss:
    """Takes the node away from a copy of *state*, and plans each job that had something there.

    What is lost counts as lost long since: what a group waits for before it is replaced is no part of the question.
    Nor is what found no room before the loss. KeyError if there is no such node.
    """
    world = StateCopy(state.copy())
    node = world.state.nodes[node_id]
    world.put_node(msgspec.structs.replace(node, status="down"))
    held = [one for one in world.state.allocations_on_node(node_id) if one.is_wanted and not one.is_terminal]
    for one in held:
        world.put_allocation(msgspec.structs.replace(one, client_status="lost", unknown_since=None))
    unplaced: list[LostGroup] = []
    moved = 0
    for name in evaluation_order(world.state, {one.job for one in held}):
        before = {one.group: one.count for one in state.jobs[name].unplaced}
        outcome = evaluate(name, world.state, now, ids)
        record(outcome, world.state, world, now)
        replaced = [one.place.stop.allocation for one in outcome.placements if one.place.stop is not None]
        moved += sum(1 for one in replaced if one.node_id == node_id)
        unplaced += [
            LostGroup(job=name, group=one.group, count=more, reasons=one.reasons)
            for one in unplaced_of(outcome)
            if (more := one.count - before.get(one.group, 0)) > 0
        ]
    return NodeLoss(node=node.name, moved=moved, unplaced=tuple(unplaced))
