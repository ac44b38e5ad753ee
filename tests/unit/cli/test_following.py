"""Commands that stay: `events -f`, `--watch`, `logs -f`. Each is tried as a process, and ended by its pid."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO

import pytest
from flask import Response

from cli.commands.events import messages
from tests.unit.cli.canned import COMMIT, NOON, a_cluster, a_node
from tests.unit.cli.conftest import FakeControlPlane, problem

TRUEUP = (sys.executable, "-c", "from cli.main import main; main()")


class Process:
    """A command under way, its output read line by line."""

    def __init__(self, url: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*TRUEUP, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TRUEUP_ADDRESS": url, "PYTHONUNBUFFERED": "1"},
        )
        self._held: dict[int, bytes] = {}

    def line(self, stream: str = "stdout", seconds: float = 10) -> str:
        """The next line. AssertionError if there is none in time."""
        pipe: IO[bytes] | None = getattr(self.process, stream)
        assert pipe is not None
        descriptor, deadline = pipe.fileno(), time.monotonic() + seconds
        held = self._held.pop(descriptor, b"")
        while b"\n" not in held:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no line in time, only {held!r}"
            part = os.read(descriptor, 65_536)
            assert part, f"ended after {held!r}"
            held += part
        first, _, rest = held.partition(b"\n")
        self._held[descriptor] = rest
        return first.decode()

    def interrupt(self) -> int:
        """Sends Ctrl-C; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(control_plane: FakeControlPlane) -> Iterator[type[Process]]:
    """Starts commands against the control plane."""
    made: list[Process] = []

    def call(*arguments: str) -> Process:
        made.append(Process(control_plane.url, *arguments))
        return made[-1]

    yield call  # type: ignore[misc] # called like the class
    for process in made:
        process.close()


def an_event(index: int, message: str) -> dict[str, object]:
    return {
        "index": index,
        "at": NOON,
        "type": "Placed",
        "message": message,
        "job": "web",
        "node": "",
        "revision": "",
    }


def stream(*chunks: bytes) -> Response:
    """A stream of server-sent events that ends."""
    return Response(iter(chunks), content_type="text/event-stream")


def sse(index: int, *events: dict[str, object]) -> bytes:
    return f"id: {index}\ndata: {json.dumps({'index': index, 'items': events})}\n\n".encode()


def test_events_follow_from_the_past_into_the_present(
    start: type[Process], control_plane: FakeControlPlane
) -> None:
    """Past ones first, then those of the stream; a stream that breaks off is taken up at the last index."""
    asked: list[str | None] = []
    streams = [
        stream(b": hi\n\n", sse(2, an_event(2, "second"))),
        problem(503, "full"),
        stream(sse(3, an_event(3, "third"))),
    ]

    def answer(request: object) -> object:
        headers = request.headers  # type: ignore[attr-defined]
        if headers.get("Accept") != "text/event-stream":
            return [an_event(1, "first")]
        asked.append(headers.get("Last-Event-ID"))
        return streams.pop(0) if streams else problem(503, "full")

    control_plane.answers = {"/status": {}, "/events": answer}
    process = start("events", "-f")
    assert process.line() == "2026-06-01 12:00:00 UTC  Placed  web  first"
    assert process.line() == "2026-06-01 12:00:00 UTC  Placed  web  second"
    assert "trying again" in process.line("stderr")
    assert process.line() == "2026-06-01 12:00:00 UTC  Placed  web  third"
    assert asked[:3] == ["1", "2", "2"]
    assert process.interrupt() == 130


def test_a_history_that_was_cut_is_said_and_begun_anew(
    start: type[Process], control_plane: FakeControlPlane
) -> None:
    """410: some events are missed, and the stream goes on from what is now."""
    streams = [problem(410, "history begins at 9"), stream(sse(9, an_event(9, "later")))]
    control_plane.answers = {
        "/status": {},
        "/events": lambda _: streams.pop(0) if streams else problem(503, "full"),
    }
    process = start("events", "-f", "-n", "0", "-o", "json")
    assert process.line("stderr") == "Warning: history begins at 9; some events are missed"
    assert json.loads(process.line())["message"] == "later"
    assert process.interrupt() == 130


def test_messages_of_a_stream_wherever_it_is_cut() -> None:
    """Comments and unknown fields are left out; ids without data move the place on."""
    whole = b': c\nretry: 5\n\nid: 4\r\ndata: {"a":\r\ndata: 1}\r\n\r\nid: 5\n\n'
    for size in (1, 2, 7, len(whole)):
        chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert list(messages(chunks)) == [(4, '{"a":1}'), (5, "")]


def test_a_watch_shows_each_change_once(start: type[Process], control_plane: FakeControlPlane) -> None:
    """Into a pipe, one picture after the other; Ctrl-C ends it with 130."""
    control_plane.answers = a_cluster()
    process = start("nodes", "--watch", "-o", "json")
    assert json.loads(process.line())[0]["status"] == "ready"
    control_plane.set({"/revisions": []})
    control_plane.set({"/nodes": [a_node(status="down")]})
    assert json.loads(process.line())[0]["status"] == "down"
    assert process.interrupt() == 130


def test_a_watch_outlives_a_control_plane_that_is_away(
    start: type[Process], control_plane: FakeControlPlane
) -> None:
    """Said once on stderr, and waited for."""
    control_plane.answers = a_cluster()
    process = start("nodes", "--watch", "-o", "json")
    process.line()
    control_plane.set({"/nodes": problem(500, "restarting")})
    assert "restarting; trying again" in process.line("stderr")
    control_plane.set({"/nodes": [a_node(status="down")]})
    assert json.loads(process.line())[0]["status"] == "down"
    assert process.interrupt() == 130


def test_wait_is_woken_by_the_change_it_waits_for(
    start: type[Process], control_plane: FakeControlPlane
) -> None:
    """It blocks at the control plane, and ends when the job is healthy."""
    cluster = a_cluster()
    sick = {**cluster["/jobs/web"], "health": "Progressing"}
    control_plane.answers = {**cluster, "/jobs/web": sick, "/jobs": [sick]}
    process = start("wait", "--revision", COMMIT, "--timeout", "20s")
    deadline = time.monotonic() + 10
    while not any("index" in dict(seen) for seen in list(control_plane.requests)):
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    control_plane.set({"/jobs/web": cluster["/jobs/web"], "/jobs": cluster["/jobs"]})
    assert process.line() == "applied, Synced and Healthy"
    assert process.process.wait(60) == 0


def test_logs_are_followed_until_they_end(start: type[Process], control_plane: FakeControlPlane) -> None:
    """As the task wrote them."""
    cluster = a_cluster()
    identifier = cluster["/allocations"][0]["id"]
    more = threading.Event()

    def lines() -> Iterator[bytes]:
        yield b"one\n"
        more.wait(60)
        yield b"two\n"

    control_plane.answers = {
        **cluster,
        f"/allocations/{identifier}/logs": lambda _: Response(lines(), content_type="text/plain"),
    }
    process = start("logs", "-f", identifier)
    assert process.line() == "one"
    more.set()
    assert process.line() == "two"
    assert process.process.wait(60) == 0
