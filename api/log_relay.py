"""Output of tasks whose agent cannot be reached: ordered in answers to the agent, which brings it by itself.

An order waits here until its agent has heard of it: with its next heartbeat, or at once where the agent listens
(`/listen`). The agent brings the output in pieces, each a request of its own that is answered at once and says how
much more there is room for: a slow reader stops its agent, and costs one window of memory and one thread, its own. A
reader that has left is told with the answer to the next piece. There are as many orders as readers, whose number the
app caps; those that listen have a cap, and threads, of their own.
"""

import hmac
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import msgspec

from api.doors import LogsUnavailable, NoSuchOrder
from api.reach import Reach
from trueup.models.clock import Clock
from trueup.models.ids import AllocationId, NodeId
from trueup.models.log_order import ListenResponse, LogOrder, LogTaken
from trueup.models.node import Node
from trueup.models.wire import HeartbeatRequest, HeartbeatResponse

WINDOW_BYTES: Final = 512 * 1024
"""How much of one order's output waits for its reader at most."""
LISTEN_CAP: Final = 32
"""How many agents listen at once: each costs a thread. Half of the places are for those that are asked for output."""
LISTEN_SECONDS: Final = 20.0
"""How long a request of a listening agent is held: less than networks forget a silent connection."""
SILENT_SECONDS: Final = 15.0
"""After which silence an agent that was bringing output is given up; it says something every few seconds."""
_WANTED_SECONDS: Final = 300.0
_ORDER_AGAIN_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 1.0
_UNKNOWN_BEAT_SECONDS: Final = 5.0
_BEATS: Final = 2
_MOST_SECONDS: Final = 25.0
_ID_BYTES: Final = 24


@dataclass(slots=True, eq=False)
class _Order:
    told: LogOrder
    node: Node
    changed: threading.Condition
    asked_at: float
    told_at: float | None = None
    heard_at: float | None = None
    pieces: deque[bytes] = field(default_factory=deque)
    buffered: int = 0
    received: int = 0
    ended: bool = False
    refusal: LogsUnavailable | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Listener:
    woken: threading.Condition


@dataclass(frozen=True, slots=True)
class _Heard:
    brings_logs: bool
    beat_seconds: float


class LogRelay:
    """Orders by id, and the agents that listen. Thread-safe."""

    def __init__(self, secret_of: Callable[[NodeId], str | None], reach: Reach, clock: Clock) -> None:
        """*secret_of* gives a node's secret."""
        self._secret_of, self._reach, self._clock = secret_of, reach, clock
        self._lock = threading.Lock()
        self._orders: dict[str, _Order] = {}
        self._listeners: dict[NodeId, _Listener] = {}
        self._heard: dict[NodeId, _Heard] = {}
        self._wanted_at: dict[NodeId, float] = {}
        self._nudged: set[NodeId] = set()
        self._closed = False

    @property
    def listening(self) -> int:
        """How many agents listen now."""
        return len(self._listeners)

    @contextmanager
    def output(
        self, node: Node, allocation_id: AllocationId, params: Mapping[str, str]
    ) -> Iterator[Iterator[bytes]]:
        """Orders the output and waits until the agent begins to bring it; b"" when there is nothing for a while.

        LogsUnavailable says why not, in the agent's own words where it answered.
        """
        order = self._ask(node, allocation_id, params)
        try:
            self._await_begin(order)
            yield self._pieces(order)
        finally:
            with self._lock:
                self._orders.pop(order.told.id, None)

    def why_not(self, node: Node) -> str | None:
        """Why the node's agent cannot bring output by itself; None if it can, or has not been heard yet."""
        heard = self._heard.get(node.id)
        if node.status in {"down", "disconnected"}:
            return f"node {node.name} is {node.status}: its agent is not heard either"
        if heard is not None and not heard.brings_logs:
            return f"the agent of node {node.name} is of a release that brings no output by itself; update it"
        return None

    def answer(
        self, request: HeartbeatRequest, answer: HeartbeatResponse, node: Node | None
    ) -> HeartbeatResponse:
        """*answer* to a node's beat, with what it is to bring; the same object if that is nothing."""
        # Asked of every beat: without orders and without trouble of reaching the node, nothing is locked or made.
        self._heard[request.node_id] = _Heard(request.brings_logs, answer.heartbeat_seconds)
        if node is None or not request.brings_logs:
            return answer
        away = self._reach.has_failed(node)
        if not away and not self._orders and not self._nudged:
            return answer
        with self._lock:
            self._nudged.discard(request.node_id)
            logs = self._due(request.node_id)
            listen = away and self._has_place(request.node_id)
        return msgspec.structs.replace(answer, logs=logs, listen=listen) if logs or listen else answer

    def listen(self, node: Node, secret: str, *, peer_gone: Callable[[], bool]) -> ListenResponse:
        """Holds an agent until there is something to say to it. NoSuchOrder if *secret* is not the node's."""
        self._check(node.id, secret)
        deadline = self._clock.monotonic() + LISTEN_SECONDS
        with self._lock:
            if not self._has_place(node.id) or not self._reach.has_failed(node):
                return ListenResponse()
            mine = _Listener(threading.Condition(self._lock))
            before = self._listeners.get(node.id)
            self._listeners[node.id] = mine
            if before is not None:
                before.woken.notify()
            try:
                return self._hold(node.id, mine, deadline, peer_gone)
            finally:
                if self._listeners.get(node.id) is mine:
                    del self._listeners[node.id]

    def nudge(self, node: Node) -> None:
        """Has the node beat at once, as soon as it listens: there is news in the answer."""
        with self._lock:
            self._nudged.add(node.id)
            listener = self._listeners.get(node.id)
            if listener is not None:
                listener.woken.notify()

    def take(self, order_id: str, secret: str, piece: bytes, *, at: int, is_last: bool) -> LogTaken:
        """Takes in what of *piece*, which begins at byte *at* of the output, is new and has room.

        A repeat does no harm. NoSuchOrder tells the agent to stop; ValueError for a piece with a gap before it.
        """
        order = self._order_of(order_id, secret)
        with self._lock:
            order.heard_at = self._clock.monotonic()
            if at > order.received:
                raise ValueError(f"the piece begins at {at}, and what came before ended at {order.received}")
            fresh = piece[order.received - at :]
            taken = fresh[: WINDOW_BYTES - order.buffered]
            if taken:
                order.pieces.append(taken)
                order.buffered += len(taken)
                order.received += len(taken)
            order.ended |= is_last and len(taken) == len(fresh)
            order.changed.notify_all()
            return LogTaken(received=order.received, room=WINDOW_BYTES - order.buffered)

    def refuse(self, order_id: str, secret: str, refusal: LogsUnavailable) -> None:
        """Takes in that there is no (more) output, and why. NoSuchOrder; a repeat does no harm."""
        order = self._order_of(order_id, secret)
        with self._lock:
            order.heard_at = self._clock.monotonic()
            order.refusal = refusal
            order.changed.notify_all()

    def close(self) -> None:
        """Wakes whoever waits here, for the server stops."""
        with self._lock:
            self._closed = True
            for listener in self._listeners.values():
                listener.woken.notify_all()
            for order in self._orders.values():
                order.changed.notify_all()

    def _ask(self, node: Node, allocation_id: AllocationId, params: Mapping[str, str]) -> _Order:
        told = LogOrder(
            id=secrets.token_urlsafe(_ID_BYTES), allocation_id=allocation_id, parameters=dict(params)
        )
        now = self._clock.monotonic()
        with self._lock:
            order = _Order(told, node, threading.Condition(self._lock), now)
            self._orders[told.id] = order
            self._wanted_at = {
                node_id: at for node_id, at in self._wanted_at.items() if now - at < _WANTED_SECONDS
            }
            self._wanted_at[node.id] = now
            listener = self._listeners.get(node.id)
            if listener is not None:
                listener.woken.notify()
            return order

    def _await_begin(self, order: _Order) -> None:
        heard = self._heard.get(order.node.id)
        beat_seconds = _UNKNOWN_BEAT_SECONDS if heard is None else heard.beat_seconds
        patience = min(_BEATS * beat_seconds + _UNKNOWN_BEAT_SECONDS, _MOST_SECONDS)
        deadline = order.asked_at + patience
        with self._lock:
            while order.heard_at is None:
                left = deadline - self._clock.monotonic()
                if self._closed or left <= 0:
                    raise LogsUnavailable(HTTPStatus.GATEWAY_TIMEOUT, _not_begun(order, patience))
                order.changed.wait(min(left, _LOOK_SECONDS))
            if order.refusal is not None:
                raise order.refusal

    def _pieces(self, order: _Order) -> Iterator[bytes]:
        while True:
            with self._lock:
                if not order.pieces and not order.ended and order.refusal is None and not self._closed:
                    order.changed.wait(_LOOK_SECONDS)
                if order.pieces:
                    piece = order.pieces.popleft()
                    order.buffered -= len(piece)
                elif order.refusal is not None:
                    raise order.refusal
                elif order.ended:
                    return
                elif self._clock.monotonic() - (order.heard_at or 0.0) > SILENT_SECONDS:
                    name = order.node.name
                    raise LogsUnavailable(
                        HTTPStatus.GATEWAY_TIMEOUT, f"the agent of node {name} brings no more"
                    )
                else:
                    piece = b""
            yield piece

    def _order_of(self, order_id: str, secret: str) -> _Order:
        with self._lock:
            order = self._orders.get(order_id)
        if order is None:
            raise NoSuchOrder
        self._check(order.node.id, secret)
        return order

    def _check(self, node_id: NodeId, secret: str) -> None:
        own = self._secret_of(node_id)
        if own is None or not hmac.compare_digest(own.encode(), secret.encode()):
            raise NoSuchOrder

    def _hold(
        self, node_id: NodeId, mine: _Listener, deadline: float, peer_gone: Callable[[], bool]
    ) -> ListenResponse:
        while True:
            logs, beat = self._due(node_id), node_id in self._nudged
            if logs or beat:
                self._nudged.discard(node_id)
                return ListenResponse(logs=logs, beat=beat, again=True)
            left = deadline - self._clock.monotonic()
            # A newer request of the same agent takes its place: this one's connection is most likely dead.
            if self._closed or left <= 0 or self._listeners.get(node_id) is not mine or peer_gone():
                return ListenResponse(again=not self._closed)
            mine.woken.wait(min(left, _LOOK_SECONDS))

    def _due(self, node_id: NodeId) -> tuple[LogOrder, ...]:
        """Orders the node has not begun with, told not just now: an answer may be lost."""
        now = self._clock.monotonic()
        due = [
            order
            for order in self._orders.values()
            if order.node.id == node_id
            and order.heard_at is None
            and (order.told_at is None or now - order.told_at >= _ORDER_AGAIN_SECONDS)
        ]
        for order in due:
            order.told_at = now
        return tuple(order.told for order in due)

    def _has_place(self, node_id: NodeId) -> bool:
        others = len(self._listeners) - (node_id in self._listeners)
        wanted_at = self._wanted_at.get(node_id)
        is_wanted = wanted_at is not None and self._clock.monotonic() - wanted_at < _WANTED_SECONDS
        return others < (LISTEN_CAP if is_wanted else LISTEN_CAP // 2)


def _not_begun(order: _Order, patience: float) -> str:
    return (
        f"node {order.node.name} cannot be reached from here, and its agent has not begun to bring the output "
        f"within {patience:.0f} s; its tasks go on all the same"
    )
