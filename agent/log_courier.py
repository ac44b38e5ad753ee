"""Brings tasks' output to a control plane that cannot reach this agent, when that orders it.

Orders come with the answers of heartbeats, or at once while the agent listens. Each has a thread, so that no reader,
however slow, holds up another or a heartbeat; the output goes in small pieces, of which each answer says how many
bytes more there is room for, so that nothing piles up anywhere. A reader that has left is told with such an answer.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final, Protocol

import structlog

from agent.doors import Refused, Unknown, Unreachable
from agent.log_request import BadLogRequest
from agent.task_output import Interrupted, TaskOutput
from trueup.models.clock import Clock
from trueup.models.ids import NodeId
from trueup.models.log_order import ListenRequest, ListenResponse, LogOrder, LogTaken
from trueup.models.wire import HeartbeatResponse

ORDERS_AT_ONCE: Final = 64
"""How many orders are done side by side: each costs a thread."""
PIECE_BYTES: Final = 128 * 1024
"""How much goes into one piece at most."""
GIVE_UP_SECONDS: Final = 15.0
"""For how long a piece is offered to a control plane that does not answer."""
SAY_SECONDS: Final = 2.0
"""How often a silent output says that it is still there, and hears whether anybody is."""
_FULL_SECONDS: Final = (0.02, 0.25)
_RETRY_SECONDS: Final = (0.2, 1.0)
_REMEMBERED: Final = 512
_CLOSE_SECONDS: Final = 2.0

_log = structlog.stdlib.get_logger("trueup.agent")


class LogDoor(Protocol):
    """The control plane, as it is told of output. Each call raises Unreachable, Unknown or Refused."""

    def listen(self, request: ListenRequest) -> ListenResponse:
        """Waits for what there is to do before the next heartbeat."""
        ...

    def bring(self, order_id: str, piece: bytes, *, at: int, is_last: bool) -> LogTaken:
        """Brings a piece of output, which begins at byte *at*. Refused where nobody waits for it."""
        ...

    def bring_refusal(self, order_id: str, status: int, detail: str) -> None:
        """Says why there is no output. Refused where nobody waits for it."""
        ...


class LogCourier:
    """The orders under way. `hear` may be called from any thread and never waits."""

    def __init__(
        self,
        *,
        door: LogDoor,
        output: Callable[[threading.Event], TaskOutput],
        node_id: NodeId,
        nudge: Callable[[], None],
        clock: Clock,
    ) -> None:
        """*output* reads until an event is set; *nudge* has a heartbeat sent at once."""
        self._door = door
        self._stopping = threading.Event()
        self._output = output(self._stopping)
        self._node_id = node_id
        self._nudge = nudge
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: dict[str, threading.Thread] = {}
        # Orders come again until their first piece has arrived.
        self._known: deque[str] = deque(maxlen=_REMEMBERED)
        self._is_to_listen = threading.Event()
        threading.Thread(target=self._listen, name="agent-listen", daemon=True).start()

    def hear(self, answer: HeartbeatResponse) -> None:
        """Takes up the orders of a heartbeat's answer, and listens if it says so."""
        self._take(answer.logs)
        if answer.listen:
            self._is_to_listen.set()

    def close(self) -> None:
        """Ends all; readers are told. Waits for a moment at most."""
        self._stopping.set()
        self._is_to_listen.set()
        with self._lock:
            threads = list(self._under_way.values())
        deadline = self._clock.monotonic() + _CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))

    def _listen(self) -> None:
        while True:
            self._is_to_listen.wait()
            if self._stopping.is_set():
                return
            try:
                answer = self._door.listen(ListenRequest(node_id=self._node_id))
            except (Unreachable, Unknown, Refused) as error:
                _log.debug("listening failed; heartbeats go on", why=str(error))
                answer = ListenResponse()
            if not answer.again:
                self._is_to_listen.clear()
            self._take(answer.logs)
            if answer.beat:
                self._nudge()

    def _take(self, orders: Iterable[LogOrder]) -> None:
        for order in orders:
            with self._lock:
                if order.id in self._known or self._stopping.is_set():
                    continue
                self._known.append(order.id)
                is_full = len(self._under_way) >= ORDERS_AT_ONCE
                run = self._refuse_one_more if is_full else self._run
                thread = threading.Thread(target=run, args=(order,), name="agent-log", daemon=True)
                if not is_full:
                    self._under_way[order.id] = thread
            thread.start()

    def _refuse_one_more(self, order: LogOrder) -> None:
        detail = f"{ORDERS_AT_ONCE} logs are read here already; try again later"
        _Delivery(self._door, order.id, self._clock, self._stopping).refuse(
            HTTPStatus.SERVICE_UNAVAILABLE, detail
        )

    def _run(self, order: LogOrder) -> None:
        delivery = _Delivery(self._door, order.id, self._clock, self._stopping)
        try:
            self._bring(order, delivery)
        except _NobodyWaits:
            pass
        except BadLogRequest as error:
            delivery.refuse(error.status, str(error))
        except Interrupted:
            delivery.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the agent stops; its tasks go on")
        except Exception:  # noqa: BLE001 - whatever it is, it is logged and the reader is told
            _log.exception("bringing output failed", allocation=order.allocation_id)
            delivery.refuse(
                HTTPStatus.INTERNAL_SERVER_ERROR, "this is a fault of trueup; see the agent's log"
            )
        finally:
            with self._lock:
                self._under_way.pop(order.id, None)

    def _bring(self, order: LogOrder, delivery: "_Delivery") -> None:
        asked = self._output.asked(order.allocation_id, order.parameters)
        pieces = self._output.open(order.allocation_id, asked, pausing=delivery.pause)
        with contextlib.closing(pieces):
            for piece in pieces:
                delivery.put(piece)
        delivery.end()


class _NobodyWaits(Exception):
    """The reader has left, or the control plane that ordered is not there any more."""


class _Delivery:
    """One order's output on its way: what has arrived, and how much more there is room for."""

    def __init__(self, door: LogDoor, order_id: str, clock: Clock, stopping: threading.Event) -> None:
        self._door, self._order_id, self._clock, self._stopping = door, order_id, clock, stopping
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._arrived = 0
        self._room = PIECE_BYTES
        self._said_at: float | None = None

    def put(self, piece: bytes) -> None:
        """Brings *piece*, soon. _NobodyWaits, Interrupted."""
        self._gathered.append(piece)
        self._gathered_bytes += len(piece)
        if self._gathered_bytes >= PIECE_BYTES:
            self._send()

    def pause(self) -> None:
        """Brings what there is now; says now and then that it goes on where there is nothing. As `put`."""
        is_silent = self._said_at is not None and self._clock.monotonic() - self._said_at < SAY_SECONDS
        if self._gathered or not is_silent:
            self._send()

    def end(self) -> None:
        """Brings what is left; that was all. As `put`."""
        self._send(is_last=True)

    def refuse(self, status: int, detail: str) -> None:
        """Says why there is no (more) output, if that can be said."""
        with contextlib.suppress(Unreachable, Unknown, Refused):
            self._door.bring_refusal(self._order_id, status, detail)

    def _send(self, *, is_last: bool = False) -> None:
        """Waits for room as long as somebody reads."""
        left = memoryview(b"".join(self._gathered))
        self._gathered, self._gathered_bytes = [], 0
        pause, longest = _FULL_SECONDS
        while True:
            part = left[: self._room]
            before = self._arrived
            is_end = is_last and len(part) == len(left)
            self._bring(bytes(part), is_last=is_end)
            count = self._arrived - before
            left = left[count:]
            if not left and (is_end or not is_last):
                return
            pause = _FULL_SECONDS[0] if count else min(2 * pause, longest)
            if not self._room and self._stopping.wait(pause):
                raise Interrupted

    def _bring(self, piece: bytes, *, is_last: bool) -> None:
        deadline = self._clock.monotonic() + GIVE_UP_SECONDS
        pause, longest = _RETRY_SECONDS
        while True:
            try:
                taken = self._door.bring(self._order_id, piece, at=self._arrived, is_last=is_last)
            except (Unknown, Refused) as error:
                raise _NobodyWaits from error
            except Unreachable as error:
                # It may have arrived: a repeat says where it begins.
                if self._clock.monotonic() >= deadline:
                    raise _NobodyWaits from error
                if self._stopping.wait(pause):
                    raise Interrupted from error
                pause = min(2 * pause, longest)
            else:
                self._arrived, self._room = taken.received, taken.room
                self._said_at = self._clock.monotonic()
                return
