"""What the loss of a node would leave without room, asked of the functions that would answer it. Pure."""

from datetime import datetime

import msgspec

from reconciler.dirty import evaluation_order
from reconciler.evaluate import evaluate, record, unplaced_of
from reconciler.report import LostGroup, NodeLoss
from reconciler.trial import Trial
from trueup.models.ids import IdSource, NodeId
from trueup.models.state import ClusterState


def loss_of(node_id: NodeId, state: ClusterState, now: datetime, ids: IdSource) -> NodeLoss:
    """Takes the node away from *state*, plans each job that had something there, and puts all back.

    What is lost counts as lost long since: what a group waits for before it is replaced is no part of the question.
    Nor is what found no room before the loss. KeyError if there is no such node.
    """
    node = state.nodes[node_id]
    held = [one for one in state.allocations_on_node(node_id) if one.is_wanted and not one.is_terminal]
    short = {
        name: {one.group: one.count for one in state.jobs[name].unplaced}
        for name in {one.job for one in held}
    }
    unplaced: list[LostGroup] = []
    moved = 0
    with Trial(state) as trial:
        trial.put_node(msgspec.structs.replace(node, status="down"))
        for one in held:
            trial.put_allocation(msgspec.structs.replace(one, client_status="lost", unknown_since=None))
        for name in evaluation_order(state, short):
            outcome = evaluate(name, state, now, ids)
            record(outcome, state, trial, now)
            replaced = [one.place.stop.allocation for one in outcome.placements if one.place.stop is not None]
            moved += sum(1 for one in replaced if one.node_id == node_id)
            unplaced += [
                LostGroup(job=name, group=one.group, count=more, reasons=one.reasons)
                for one in unplaced_of(outcome)
                if (more := one.count - short[name].get(one.group, 0)) > 0
            ]
    return NodeLoss(node=node.name, moved=moved, unplaced=tuple(unplaced))
