"""An agent that brings output by itself, over real sockets, to the control plane's own doors."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from agent.client import HttpControlPlane
from agent.doors import Refused, Unreachable
from agent.log_courier import LogCourier
from agent.logs import LogReader
from agent.task_output import TaskOutput
from api.doors import LogsUnavailable
from api.log_relay import WINDOW_BYTES, LogRelay
from api.reach import Reach
from tests.builders import NOON, a_node
from tests.unit.agent.test_endpoints import LogsBelow
from tests.unit.agent.world import World, an_assignment
from tests.unit.api.world import World as ApiWorld
from tests.unit.api.world import until
from trueup.models.ids import AllocationId
from trueup.models.log_order import ListenRequest, ListenResponse, LogTaken
from trueup.models.wire import HeartbeatResponse
from trueup.serving import HttpServer

A1 = AllocationId("a1")
NODE = a_node(endpoint="http://127.0.0.1:1")
ANSWER = HeartbeatResponse(epoch=1, index=1, heartbeat_seconds=3, deadline_seconds=10, listen=True)


class RealClock:
    def now(self) -> datetime:
        return NOON

    def monotonic(self) -> float:
        return time.monotonic()


class FlakyDoor:
    """The control plane over HTTP; what it is told to is lost, before it arrives or after."""

    def __init__(self, door: HttpControlPlane) -> None:
        self._door = door
        self.lose_answers = 0
        self.lose_pieces = 0
        self.listened = 0
        self.refused = threading.Event()

    def listen(self, request: ListenRequest) -> ListenResponse:
        self.listened += 1
        return self._door.listen(request)

    def bring(self, order_id: str, piece: bytes, *, at: int, is_last: bool) -> LogTaken:
        if piece and self.lose_pieces:
            self.lose_pieces -= 1
            raise Unreachable("lost on its way")
        try:
            taken = self._door.bring(order_id, piece, at=at, is_last=is_last)
        except Refused:
            self.refused.set()
            raise
        if piece and self.lose_answers:
            self.lose_answers -= 1
            raise Unreachable("the answer was lost")
        return taken

    def bring_refusal(self, order_id: str, status: int, detail: str) -> None:
        self._door.bring_refusal(order_id, status, detail)


class Brought:
    """An agent with one task's output, and a control plane that cannot reach it."""

    def __init__(self, data: Path) -> None:
        self.world = World(data / "agent")
        self.world.assign(an_assignment())
        self.world.run(1)
        self.logs = data / "logs"
        self.logs.mkdir()
        clock = RealClock()
        reach = Reach(clock)
        reach.note(NODE, reached=False)
        self.relay = LogRelay(lambda _node_id: "secret", reach, clock)
        self.api = ApiWorld(data / "store", brought_logs=self.relay)
        self.api.put(NODE)
        self.server = HttpServer(
            self.api.app, ("127.0.0.1", 0), stopping=self.api.stopping, on_stop=self.relay.close, watch_cap=8
        )
        self.server.start()
        self.client = HttpControlPlane([self.server.url], secret=lambda: "secret", cluster_token=lambda: None)
        self.door = FlakyDoor(self.client)
        self.nudged = threading.Event()
        self.courier = LogCourier(
            door=self.door,
            output=lambda stopping: TaskOutput(
                self.world.agent.runner,
                LogReader(LogsBelow(self.logs), clock),
                stopping=stopping.is_set,
                wait=stopping.wait,
            ),
            node_id=NODE.id,
            nudge=self.nudged.set,
            clock=clock,
        )
        self.courier.hear(ANSWER)
        assert until(lambda: self.relay.listening == 1)

    def writes(self, text: bytes) -> None:
        with (self.logs / "server.stdout").open("ab") as opened:
            opened.write(text)

    def read(self, **params: str) -> bytes:
        with self.relay.output(NODE, A1, params) as pieces:
            return b"".join(pieces)

    def close(self) -> None:
        self.courier.close()
        self.server.stop()
        self.client.close()
        self.api.close()


@pytest.fixture
def brought(tmp_path: Path) -> Iterator[Brought]:
    brought = Brought(tmp_path)
    yield brought
    brought.close()


def until_text(pieces: Iterator[bytes], wanted: bytes) -> bytes:
    """What comes, until it is *wanted*."""
    seen = b""
    while seen != wanted:
        assert wanted.startswith(seen)
        seen += next(pieces)
    return seen


def test_output_is_brought_at_once_while_the_agent_listens(brought: Brought) -> None:
    brought.writes(b"one\ntwo\nthree\n")
    assert brought.read() == b"one\ntwo\nthree\n"
    assert brought.read(tail="1") == b"three\n"
    assert brought.read(stream="stderr") == b""


def test_it_listens_as_long_as_it_is_told_to(brought: Brought) -> None:
    brought.relay.nudge(NODE)
    assert brought.nudged.wait(10)
    assert until(lambda: brought.door.listened == 2 and brought.relay.listening == 1)


@pytest.mark.parametrize(
    ("params", "status", "words"),
    [({"task": "none"}, 404, "no task 'none'"), ({"tail": "x"}, 400, "tail")],
)
def test_what_cannot_be_is_refused_in_words(
    brought: Brought, params: dict[str, str], status: int, words: str
) -> None:
    with pytest.raises(LogsUnavailable, match=words) as refused:
        brought.read(**params)
    assert refused.value.status == status


@pytest.mark.parametrize("lost", ["lose_answers", "lose_pieces"])
def test_what_is_lost_on_the_way_comes_once_all_the_same(brought: Brought, lost: str) -> None:
    everything = b"".join(b"line %07d\n" % number for number in range(40_000))
    assert len(everything) > WINDOW_BYTES // 2
    brought.writes(everything)
    setattr(brought.door, lost, 2)
    assert brought.read() == everything


def test_more_than_a_window_waits_for_its_reader(brought: Brought) -> None:
    everything = b"".join(b"line %07d\n" % number for number in range(100_000))
    assert len(everything) > 2 * WINDOW_BYTES
    brought.writes(everything)
    with brought.relay.output(NODE, A1, {}) as pieces:
        seen = next(pieces)
        # Others are not held up by one that reads slowly.
        assert brought.read(tail="1") == b"line 0099999\n"
        assert seen + b"".join(pieces) == everything


def test_a_followed_log_comes_as_it_is_written_until_its_reader_leaves(brought: Brought) -> None:
    brought.writes(b"one\n")
    with brought.relay.output(NODE, A1, {"follow": "true"}) as pieces:
        until_text(pieces, b"one\n")
        brought.writes(b"two\n")
        until_text(pieces, b"two\n")
    assert brought.door.refused.wait(20)
    assert until(lambda: not [one for one in threading.enumerate() if one.name == "agent-log"])


def test_an_agent_that_stops_says_so(brought: Brought) -> None:
    brought.writes(b"one\n")
    with ThreadPoolExecutor(1) as pool, brought.relay.output(NODE, A1, {"follow": "true"}) as pieces:
        until_text(pieces, b"one\n")
        closing = pool.submit(brought.courier.close)
        with pytest.raises(LogsUnavailable, match="the agent stops"):
            list(pieces)
        closing.result(10)


def test_one_that_stops_while_its_reader_does_not_read_waits_for_nobody(brought: Brought) -> None:
    brought.writes(b"x" * 4 * WINDOW_BYTES)
    with brought.relay.output(NODE, A1, {}) as pieces:
        next(pieces)
        brought.courier.close()
        with pytest.raises(LogsUnavailable, match="the agent stops"):
            list(pieces)
