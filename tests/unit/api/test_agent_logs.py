"""Output of tasks, fetched from an agent over a real socket."""

import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
import requests

from api.agent_logs import AgentLogs
from api.log_relay import LogRelay
from api.reach import Reach
from tests.builders import a_job, a_node, an_allocation
from tests.unit.api.world import NoonClock, World, detail, until
from trueup.models.log_order import LogOrder
from trueup.models.node import Node
from trueup.models.wire import HeartbeatRequest, HeartbeatResponse
from trueup.serving import HttpServer

_BROKEN = b"BROKEN"


class Agent:
    """An agent's endpoint for logs: answers with *chunks*, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status = "200 OK"
        self.chunks: queue.Queue[bytes | None] = queue.Queue()
        self.left = threading.Event()
        self.stopping = threading.Event()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.asked.append(
            {
                "path": environ["PATH_INFO"],
                "query": {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()},
                "authorization": environ.get("HTTP_AUTHORIZATION"),
            }
        )
        gone = environ["trueup.peer_gone"]
        start_response(self.status, [("Content-Type", "text/plain")])
        return self._output(gone)

    def _output(self, gone: Callable[[], bool]) -> Iterator[bytes]:
        while not self.stopping.is_set():
            try:
                chunk = self.chunks.get(timeout=0.02)
            except queue.Empty:
                if gone():
                    self.left.set()
                    return
                continue
            if chunk is None:
                return
            if chunk == _BROKEN:
                raise OSError("killed")
            yield chunk

    def breaks_off(self) -> None:
        """Ends the connection without ending the answer."""
        self.chunks.put(_BROKEN)

    def says(self, *chunks: bytes) -> None:
        """Answers with these, and ends."""
        for chunk in chunks:
            self.chunks.put(chunk)
        self.chunks.put(None)


@pytest.fixture
def agent() -> Iterator[Agent]:
    """An agent to be asked."""
    agent = Agent()
    yield agent
    agent.stopping.set()


@contextmanager
def cluster(make_world: Callable[..., World], agent: Agent) -> Iterator[World]:
    """A world of one allocation on the node of *agent*."""
    server = HttpServer(agent, ("127.0.0.1", 0), stopping=agent.stopping, watch_cap=4)
    server.start()
    try:
        world = make_world(logs=AgentLogs(lambda _node_id: "node-secret"))
        put(world, a_node(endpoint=server.url))
        yield world
    finally:
        server.stop()


def put(world: World, node: Node) -> None:
    web = a_job("web")
    world.put(web, node, an_allocation(web, node, id="a1"))


def test_output(make_world: Callable[..., World], agent: Agent) -> None:
    """Output is handed on as raw text, asked for with the node's own secret."""
    agent.says(b"one\n", b"\x1b[31mtwo\xff\n")
    with cluster(make_world, agent) as world:
        answer = world.client.get(
            "/allocations/a1/logs?task=server&stream=stderr&tail=10&since=5m&previous=true"
        )
        assert (answer.status_code, answer.data) == (200, b"one\n\x1b[31mtwo\xff\n")
    assert answer.content_type == "text/plain; charset=utf-8"
    assert agent.asked == [
        {
            "path": "/allocations/a1/logs",
            "query": {"task": "server", "stream": "stderr", "tail": "10", "since": "5m", "previous": "true"},
            "authorization": "Bearer node-secret",
        }
    ]


def test_follow(make_world: Callable[..., World], agent: Agent) -> None:
    """Followed output arrives as it is written, until the task ends."""
    with (
        cluster(make_world, agent) as world,
        world.serving() as server,
        requests.get(f"{server.url}/allocations/a1/logs?follow=true", stream=True, timeout=5) as answer,
    ):
        chunks = answer.iter_content(None)
        for word in (b"one\n", b"two\n"):
            agent.chunks.put(word)
            assert next(chunks) == word
        agent.says()
        assert list(chunks) == []


def test_follower_leaves(make_world: Callable[..., World], agent: Agent) -> None:
    """A follower that leaves a silent log gives its place back, here and at the agent."""
    with cluster(make_world, agent) as world, world.serving() as server:
        with requests.get(f"{server.url}/allocations/a1/logs?follow=true", stream=True, timeout=5) as answer:
            agent.chunks.put(b"one\n")
            assert next(answer.iter_content(None)) == b"one\n"
        assert agent.left.wait(5)
        assert until(lambda: "trueup_watchers 0.0" in world.client.get("/metrics").text)


def test_server_stops(make_world: Callable[..., World], agent: Agent) -> None:
    """A server that stops breaks off what it follows: a clean end would say that the task has ended."""
    with cluster(make_world, agent) as world, world.serving() as server:
        with requests.get(f"{server.url}/allocations/a1/logs?follow=true", stream=True, timeout=5) as answer:
            agent.chunks.put(b"one\n")
            chunks = answer.iter_content(None)
            assert next(chunks) == b"one\n"
            server.stop()
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                list(chunks)
        assert agent.left.wait(5)


def test_agent_breaks_off(make_world: Callable[..., World], agent: Agent) -> None:
    """An agent that breaks off in the middle is no end of the output either."""
    with (
        cluster(make_world, agent) as world,
        world.serving() as server,
        requests.get(f"{server.url}/allocations/a1/logs?follow=true", stream=True, timeout=5) as answer,
    ):
        chunks = answer.iter_content(None)
        agent.chunks.put(b"one\n")
        assert next(chunks) == b"one\n"
        agent.breaks_off()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(chunks)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("404 Not Found", 404),
        ("400 Bad Request", 400),
        ("401 Unauthorized", 502),
        ("500 Oh", 502),
        ("302 Found", 502),
    ],
)
def test_agent_says_no(make_world: Callable[..., World], agent: Agent, status: str, told: int) -> None:
    """What the agent refuses is told in its words; what only we could have done wrong is a bad gateway."""
    agent.status = status
    agent.says(json.dumps({"type": "x", "title": "x", "status": 1, "detail": "no such task"}).encode())
    with cluster(make_world, agent) as world:
        answer = world.client.get("/allocations/a1/logs")
    assert (answer.status_code, detail(answer)) == (told, "node node-1: no such task")


def test_agent_is_away(make_world: Callable[..., World]) -> None:
    """A node that cannot be reached is a bad gateway, and its tasks go on."""
    world = make_world(logs=AgentLogs(lambda _node_id: "node-secret"))
    put(world, a_node(endpoint="http://127.0.0.1:1"))
    answer = world.client.get("/allocations/a1/logs")
    assert answer.status_code == 502
    assert "Connection refused" in detail(answer)


@pytest.mark.parametrize(
    "query", ["stream=both", "tail=x", "since=soon", "follow=true&previous=true", "follow=maybe"]
)
def test_what_cannot_be_asked(make_world: Callable[..., World], query: str) -> None:
    """A wrong parameter is told even while the node is away."""
    world = make_world(logs=AgentLogs(lambda _node_id: "node-secret"))
    put(world, a_node(endpoint="http://127.0.0.1:1"))
    assert world.client.get(f"/allocations/a1/logs?{query}").status_code == 400


def test_task_that_is_none(world: World) -> None:
    """A task the allocation has not is told with those it has."""
    put(world, a_node())
    answer = world.client.get("/allocations/a1/logs?task=sidecar")
    assert (answer.status_code, "server" in detail(answer)) == (404, True)


@pytest.mark.parametrize("status", ["401 Unauthorized", "500 Oh", "302 Found"])
def test_who_is_not_the_agent_is_asked_once(
    make_world: Callable[..., World], agent: Agent, status: str
) -> None:
    """Another program at its address is remembered as such: the agent itself brings the output."""
    clock = NoonClock()
    reach = Reach(clock)
    relay = LogRelay(lambda _node_id: "node-secret", reach, clock)
    agent.status = status
    agent.says(b"who are you?")
    server = HttpServer(agent, ("127.0.0.1", 0), stopping=agent.stopping, watch_cap=4)
    server.start()
    world = make_world(logs=AgentLogs(lambda _node_id: "node-secret", reach=reach, relay=relay))
    node = a_node(endpoint=server.url)
    put(world, node)
    beat = HeartbeatRequest(node_id=node.id, incarnation=1, sequence=1, holdings_digest="", brings_logs=True)
    answer = HeartbeatResponse(epoch=1, index=1, heartbeat_seconds=3, deadline_seconds=10)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            reading = pool.submit(world.app.test_client().get, "/allocations/a1/logs")
            orders: list[LogOrder] = []
            while not orders:
                orders.extend(relay.answer(beat, answer, node).logs)
            relay.take(orders[0].id, "node-secret", b"brought\n", at=0, is_last=True)
            assert reading.result(10).data == b"brought\n"
    assert len(agent.asked) == 1
    server.stop()
