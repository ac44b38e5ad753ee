"""What was taken over from agents before its job was known: given its room once it is, or ended if nobody wants it.

The reconciler evaluates jobs that git has or had; an adopted allocation of any other job is nobody's. It runs on for a
grace after a revision was applied, in which a mistaken revision can be put right, and is stopped then. While documents
have errors it runs on, for its job may be in one of them: an error is never an absence.
"""

from datetime import datetime
from typing import Final

import msgspec

from metastore.reports import ENDED, sized
from metastore.store import SqlStore
from metastore.transaction import StoreTransaction
from trueup.models.allocation import AllocatedResources, Allocation
from trueup.models.clock import Clock
from trueup.models.evaluation import Event
from trueup.models.ids import AllocationId, NodeId

UNWANTED_GRACE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 1.0


class Adopted:
    """Stepped by one thread; `note` may be called from any."""

    def __init__(self, store: SqlStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._waiting: dict[AllocationId, None] = {}
        self._unwanted_since: dict[AllocationId, float] = {}
        for node_id in list(store.state.nodes):
            self.note(node_id)

    def note(self, node_id: NodeId) -> None:
        """Something on the node may just have been adopted."""
        for held in self._store.state.allocations_on_node(node_id):
            if _is_unsized(held):
                self._waiting[held.id] = None

    def step(self, now: float) -> float | None:
        """Does what is due at *now* (monotonic), and says when to look again (None: nothing waits)."""
        if self._store.state.revision is not None and self._waiting:
            self._settle(now)
        return now + _LOOK_SECONDS if self._waiting else None

    def _settle(self, now: float) -> None:
        wall = self._clock.now()
        settled: list[AllocationId] = []
        with self._store.transaction() as tx:
            for allocation_id in list(self._waiting):
                held = tx.state.allocations.get(allocation_id)
                if held is None or not _is_unsized(held):
                    settled.append(allocation_id)
                elif held.job in tx.state.jobs:
                    tx.put_allocation(sized(held, tx.state))
                    settled.append(allocation_id)
                elif tx.state.errors:
                    self._unwanted_since.pop(held.id, None)
                elif now - self._unwanted_since.setdefault(held.id, now) >= UNWANTED_GRACE_SECONDS:
                    _end(tx, held, wall)
                    settled.append(allocation_id)
        for allocation_id in settled:
            self._waiting.pop(allocation_id, None)
            self._unwanted_since.pop(allocation_id, None)


def _is_unsized(held: Allocation) -> bool:
    return held.resources == AllocatedResources() and held.is_wanted and held.client_status not in ENDED


def _end(tx: StoreTransaction, held: Allocation, wall: datetime) -> None:
    tx.put_allocation(
        msgspec.structs.replace(held, desired_status="stop", reason="job removed", modified_at=wall)
    )
    tx.push(held.node_id, held.id, "stop")
    tx.put_event(
        Event(
            at=wall,
            type="AllocationStopped",
            message=f"{held.name} on {held.node}: no such job is wanted",
            job=held.job,
            allocation=held.id,
            node=held.node,
            revision=held.revision,
        )
    )
