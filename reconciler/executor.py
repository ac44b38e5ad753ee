"""Takes plans from their queue and commits each with its pushes, if it still holds.

A plan is made from a state and committed to a later one: if anything changed between, node, room and version are asked
again inside the transaction, with the planner's own functions. What no longer fits is left out, and its job stays
dirty.
"""

from collections import deque
from collections.abc import Iterator
from datetime import datetime

import msgspec

from reconciler.doors import Transaction
from reconciler.evaluate import record, unplaced_of
from reconciler.feasibility import check
from reconciler.planner import Placement, Plan
from reconciler.room import Room
from trueup.models.allocation import Allocation
from trueup.models.evaluation import Evaluation, Event
from trueup.models.fit import demand_of, fits
from trueup.models.ids import EvaluationId, IdSource, NodeId
from trueup.models.state import ClusterState


class Executor:
    """The plan queue, and the one who empties it into a transaction."""

    def __init__(self, ids: IdSource) -> None:
        self._ids = ids
        self._queue: deque[Plan] = deque()

    def enqueue(self, outcome: Plan) -> None:
        """Adds a plan behind those that wait."""
        self._queue.append(outcome)

    def clear(self) -> None:
        """Drops what waits: its jobs are planned anew."""
        self._queue.clear()

    def execute(self, tx: Transaction, now: datetime) -> frozenset[str]:
        """Commits all queued plans into *tx*, in order; returns the jobs of which something was left out."""
        partial = set()
        while self._queue:
            outcome = self._queue.popleft()
            if _is_stale(outcome, tx.state):
                partial.add(outcome.changes.job)
                continue
            holding = _holding(outcome, tx.state)
            if holding is not outcome:
                partial.add(outcome.changes.job)
            self._write(holding, tx, now, is_partial=holding is not outcome)
        return frozenset(partial)

    def _write(self, outcome: Plan, tx: Transaction, now: datetime, *, is_partial: bool) -> None:
        numbered = _numbered(outcome, tx.next_index)
        before = tx.state.jobs[outcome.changes.job]
        record(numbered, tx.state, tx, now)
        for placement in numbered.placements:
            self._start(placement.allocation, tx, now)
        for allocation in numbered.all_stopped:
            self._stop(allocation, tx, now)
        for allocation in numbered.in_place:
            tx.push(allocation.node_id, allocation.id, "start")
        unplaced = unplaced_of(numbered)
        # Not a pass that only kept the books of a rollout: history would be full of them.
        moved = bool(numbered.placements or numbered.all_stopped or numbered.in_place)
        if moved or is_partial or unplaced != before.unplaced:
            tx.put_evaluation(
                Evaluation(
                    id=EvaluationId(self._ids.new_id()),
                    job=before.name,
                    job_version=before.version,
                    revision=before.removed_revision if before.removed else before.revision,
                    status="partial" if is_partial else "blocked" if unplaced else "complete",
                    placed=len(numbered.placements),
                    stopped=len(numbered.all_stopped),
                    unplaced=unplaced,
                    created_at=now,
                )
            )

    @staticmethod
    def _start(allocation: Allocation, tx: Transaction, now: datetime) -> None:
        tx.push(allocation.node_id, allocation.id, "start")
        tx.put_event(
            Event(
                at=now,
                type="AllocationPlaced",
                message=f"{allocation.name} placed on {allocation.node}",
                job=allocation.job,
                allocation=allocation.id,
                node=allocation.node,
                revision=allocation.revision,
            )
        )

    @staticmethod
    def _stop(allocation: Allocation, tx: Transaction, now: datetime) -> None:
        if not allocation.is_terminal:
            tx.push(allocation.node_id, allocation.id, "stop")
        tx.put_event(
            Event(
                at=now,
                type="AllocationStopped",
                message=f"{allocation.name} on {allocation.node}: {allocation.reason}",
                job=allocation.job,
                allocation=allocation.id,
                node=allocation.node,
                revision=allocation.revision,
            )
        )


def _is_stale(outcome: Plan, state: ClusterState) -> bool:
    """Whether the job has another version now, or what the plan touches moved on since it was made."""
    changes = outcome.changes
    held = state.jobs.get(changes.job)
    if held is None or (changes.version is None) != held.removed:
        return True
    if changes.version is not None and changes.version.version not in {
        held.version,
        held.frozen_version,
        held.reverted_to,
    }:
        return True
    return any(_moved_on(one, state) for one in _touched(outcome))


def _touched(outcome: Plan) -> Iterator[Allocation]:
    yield from outcome.all_stopped
    yield from outcome.in_place
    yield from outcome.changes.updates


def _moved_on(planned: Allocation, state: ClusterState) -> bool:
    held = state.allocations.get(planned.id)
    return (
        held is None
        or not held.is_wanted
        or held.client_status != planned.client_status
        or held.tasks != planned.tasks
    )


def _holding(outcome: Plan, state: ClusterState) -> Plan:
    """The plan without the placements that no longer hold; the same object if all do."""
    if outcome.room_version == state.room_version():
        return outcome
    room = Room(state)
    able: dict[tuple[NodeId, int], bool] = {}
    kept = tuple(one for one in outcome.placements if _still_holds(one, state, room, able))
    return (
        outcome if len(kept) == len(outcome.placements) else msgspec.structs.replace(outcome, placements=kept)
    )


def _still_holds(
    placement: Placement, state: ClusterState, room: Room, able: dict[tuple[NodeId, int], bool]
) -> bool:
    """*able* remembers which nodes may run which groups of the plan."""
    place, allocation = placement.place, placement.allocation
    node = state.nodes.get(allocation.node_id)
    if node is None:
        return False
    asked = (node.id, id(place.group))
    if asked not in able:
        able[asked] = check(node, place.version.job, place.group, state.settings) is None
    if not able[asked]:
        return False
    leaving = [place.stop.allocation] if place.stop is not None and place.coupled else []
    leaving += [held for one in placement.evicted if (held := state.allocations.get(one.id)) is not None]
    used = room.without(node.id, *leaving)
    if fits(node, used, demand_of(place.group)) is not None:
        return False
    if any(port in used.ports for port in allocation.ports.values()):
        return False
    room.take(allocation, *leaving)
    return True


def _numbered(outcome: Plan, index: int) -> Plan:
    """The plan with the index it commits as put in as its placements' epoch: each replacement's is greater."""
    placements = tuple(
        msgspec.structs.replace(one, allocation=msgspec.structs.replace(one.allocation, epoch=index))
        for one in outcome.placements
    )
    return msgspec.structs.replace(outcome, placements=placements)
