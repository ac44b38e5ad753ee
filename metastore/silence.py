"""The node health monitor: a node silent for too long is down, and what it held is lost, or unknown for a while.

It looks only at what is due: nodes by a heap of deadlines, unknown allocations by a heap of their own.
"""

import heapq
from datetime import datetime

import msgspec

from metastore.claims import Claims
from metastore.liveness import Liveness
from metastore.reports import event_of, given_up, missed, patience_with
from metastore.store import SqlStore
from metastore.transaction import StoreTransaction
from trueup.models.allocation import Allocation
from trueup.models.clock import Clock
from trueup.models.evaluation import Event
from trueup.models.ids import AllocationId, NodeId
from trueup.models.node import NodeStatus


class Silences:
    """Stepped by one thread."""

    def __init__(
        self, store: SqlStore, clock: Clock, liveness: Liveness, claims: Claims, grace_seconds: float
    ) -> None:
        self._store, self._clock, self._liveness, self._claims = store, clock, liveness, claims
        self._grace_seconds = grace_seconds
        self._spared: list[tuple[float, NodeId]] = []
        self._promised: float | None = None
        self._unknown: list[tuple[float, AllocationId]] = []
        now, wall = clock.monotonic(), clock.now()
        for held in list(store.state.allocations.values()):
            if held.client_status == "unknown" and held.unknown_since is not None:
                waited = max((wall - held.unknown_since).total_seconds(), 0.0)
                left = patience_with(held, store.state) - waited
                heapq.heappush(self._unknown, (now + left, held.id))

    def step(self, now: float, look_at: float, deadline_seconds: float) -> float:
        """Does what is due at *now* (monotonic), and says when to look again: at *look_at* or before."""
        if self._promised is not None and now > self._promised + self._grace_seconds:
            # We slept (stopped, suspended, starved): whoever was silent meanwhile may just not have been heard.
            self._liveness.extend(now + deadline_seconds)
        for node_id in self._liveness.expired(now):
            claimed_until = self._claims.take(node_id, now)
            if claimed_until is None:
                self._judge(node_id, now)
            else:
                # Nobody waits for it to beat any more, so that its heir is let in.
                self._liveness.forget(node_id)
                heapq.heappush(self._spared, (claimed_until, node_id))
        while self._spared and self._spared[0][0] <= now:
            self._judge(heapq.heappop(self._spared)[1], now)
        self._give_up(now)
        dues = [
            self._liveness.next_deadline(),
            *(heap[0][0] for heap in (self._unknown, self._spared) if heap),
        ]
        self._promised = min([look_at, *(due for due in dues if due is not None)])
        return self._promised

    def _judge(self, node_id: NodeId, now: float) -> None:
        wall = self._clock.now()
        with self._store.transaction() as tx:
            node = tx.state.nodes.get(node_id)
            if self._liveness.is_living(node_id, now):
                return
            if node is not None and node.status not in {"down", "disconnected"}:
                status = self._silence(tx, node_id, now, wall)
                tx.put_node(msgspec.structs.replace(node, status=status, status_changed_at=wall))
                tx.put_event(
                    Event(
                        at=wall,
                        type="NodeDisconnected" if status == "disconnected" else "NodeDown",
                        message=f"node {node.name} is silent",
                        node=node.name,
                    )
                )
        self._liveness.forget(node_id)

    def _silence(self, tx: StoreTransaction, node_id: NodeId, now: float, wall: datetime) -> NodeStatus:
        status: NodeStatus = "down"
        for held in tx.state.allocations_on_node(node_id):
            if held.is_terminal:
                continue
            seconds = patience_with(held, tx.state) if held.is_wanted else 0.0
            if seconds > 0:
                heapq.heappush(self._unknown, (now + seconds, held.id))
                status = "disconnected"
            _put(tx, held, missed(held, wall) if seconds > 0 else given_up(held, wall), wall)
        return status

    def _give_up(self, now: float) -> None:
        """What was unknown for as long as its group allows is lost; a node without any left is down."""
        while self._unknown and self._unknown[0][0] <= now:
            wall = self._clock.now()
            due = [one for at, one in self._unknown if at <= now]
            with self._store.transaction() as tx:
                for allocation_id in due:
                    held = tx.state.allocations.get(allocation_id)
                    if held is not None and held.client_status == "unknown":
                        _put(tx, held, given_up(held, wall), wall)
                        _settle_node(tx, held.node_id, wall)
            while self._unknown and self._unknown[0][0] <= now:
                heapq.heappop(self._unknown)


def _put(tx: StoreTransaction, before: Allocation, after: Allocation, wall: datetime) -> None:
    tx.put_allocation(after)
    event = event_of(before, after, wall)
    if event is not None:
        tx.put_event(event)


def _settle_node(tx: StoreTransaction, node_id: NodeId, wall: datetime) -> None:
    node = tx.state.nodes.get(node_id)
    if node is None or node.status != "disconnected":
        return
    if not any(held.client_status == "unknown" for held in tx.state.allocations_on_node(node_id)):
        tx.put_node(msgspec.structs.replace(node, status="down", status_changed_at=wall))
        tx.put_event(Event(at=wall, type="NodeDown", message=f"node {node.name} is silent", node=node.name))
