"""The agent's HTTP API over real sockets, with the clients that are used for it: pushes and logs."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from agent.doors import TaskFolders
from agent.endpoints import FOLLOWERS, READERS, AgentApp, EndpointDeps
from agent.logs import LogReader
from agent.runner import Runner
from api.agent_logs import AgentLogs
from api.doors import LogsUnavailable
from tests.builders import a_node
from tests.unit.agent.world import World, an_assignment
from trueup.agent_client import AgentClient
from trueup.models.agent_error import AgentUnreachable
from trueup.models.codec import to_json
from trueup.models.ids import AllocationId
from trueup.models.node import Node
from trueup.models.wire import StopOrder
from trueup.serving import HttpServer

SECRET = {"Authorization": "Bearer secret"}


class LogsBelow:
    """Logs of every allocation in one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def paths(self, allocation_id: AllocationId, task: str) -> TaskFolders:
        return TaskFolders(task=self._root, shared=self._root, logs=self._root)


class TakenAtOnce:
    """A runner nobody steps while a push waits: the test does so after it."""

    def __init__(self, runner: Runner) -> None:
        self.assign, self.stop, self.forget = runner.assign, runner.stop, runner.forget

    def when_written(self, listener: Callable[[], None]) -> None:
        listener()


class Served:
    """A world whose agent answers on a socket."""

    def __init__(self, data: Path) -> None:
        self.world = World(data / "agent")
        self.world.settle()
        self.logs = data / "logs"
        self.logs.mkdir()
        stopping = threading.Event()
        agent = self.world.agent
        app = AgentApp(
            EndpointDeps(
                secret=lambda: agent.secret,
                standing=agent.standing,
                orders=TakenAtOnce(agent.runner),
                allocations=agent.runner,
                logs=LogReader(LogsBelow(self.logs), self.world.clock),
                trouble=lambda: agent.heartbeat.trouble,
                nudge=agent.heartbeat.nudge,
                stopping=stopping,
            )
        )
        self.server = HttpServer(app, ("127.0.0.1", 0), stopping=stopping, watch_cap=FOLLOWERS + READERS)
        self.server.start()

    @property
    def node(self) -> Node:
        return a_node(endpoint=self.server.url)

    def client(self, secret: str = "secret", epoch: int = 1) -> AgentClient:
        return AgentClient(lambda _node_id: secret, epoch=lambda: epoch)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.server.url + path, headers=SECRET, timeout=5)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.server.stop()


def test_pushes_start_and_stop(served: Served) -> None:
    client = served.client()
    client.start(served.node, [an_assignment("a1"), an_assignment("a2")])
    client.start(served.node, [an_assignment("a1")])
    served.world.run(1)
    assert served.world.running() == [("a1", "server"), ("a2", "server")]

    client.stop(served.node, [StopOrder(id=AllocationId("a1"), reason="job removed")])
    served.world.run(1)
    assert served.world.running() == [("a2", "server")]
    assert served.get("/allocations/a1").json()["reason"] == "job removed"
    assert [item["id"] for item in served.get("/allocations").json()["items"]] == ["a1", "a2"]
    client.close()


def test_many_stops_are_one_request_each_reason(served: Served) -> None:
    ids = [AllocationId(f"a{number}") for number in range(450)]
    client = served.client()
    client.start(served.node, [an_assignment(one) for one in ids[:3]])
    served.world.run(1)
    client.stop(served.node, [StopOrder(id=one, reason="suspended") for one in ids])
    client.stop(served.node, [])
    served.world.run(1)
    assert served.world.running() == []
    assert set(served.world.agent.runner._tombstones) == set(ids[3:])
    assert served.get("/allocations/a0").json()["reason"] == "suspended"
    client.close()


def test_a_nudge_has_the_next_beat_sent_at_once(served: Served) -> None:
    served.world.run(1)
    before = len(served.world.control_plane.beats)
    client = served.client()
    client.nudge(served.node)
    served.world.run(0.1)
    assert len(served.world.control_plane.beats) == before + 1
    client.close()


def test_a_single_stop_names_its_allocation_in_the_path(served: Served) -> None:
    served.client().start(served.node, [an_assignment("a1")])
    served.world.run(1)
    answer = requests.delete(f"{served.server.url}/allocations/a1?reason=x", headers=SECRET, timeout=5)
    assert answer.json() == {"accepted": 1}
    served.world.run(1)
    assert served.world.running() == []
    assert requests.delete(f"{served.server.url}/allocations", headers=SECRET, timeout=5).status_code == 400


def test_one_assignment_alone_is_taken_too(served: Served) -> None:
    answer = requests.post(
        f"{served.server.url}/allocations", data=to_json(an_assignment("a1")), headers=SECRET, timeout=5
    )
    assert answer.status_code == 202
    served.world.run(1)
    assert served.world.running() == [("a1", "server")]


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Bearer ", "Basic secret", "Bearer sécret"])
def test_all_but_health_needs_the_nodes_secret(served: Served, token: str) -> None:
    for method, path in [
        ("GET", "/allocations"),
        ("POST", "/allocations"),
        ("DELETE", "/allocations/a1"),
        ("GET", "/allocations/a1/logs"),
        ("POST", "/nudge"),
    ]:
        answer = requests.request(
            method, served.server.url + path, headers={"Authorization": token.encode()}, timeout=5
        )
        assert answer.status_code == 401, (method, path)
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert requests.get(f"{served.server.url}/healthz", timeout=5).json() == {
        "status": "ok",
        "control_plane": "heard",
    }


def test_an_agent_that_has_not_joined_answers_nobody(tmp_path: Path) -> None:
    world = World(tmp_path)
    app = AgentApp(
        EndpointDeps(
            secret=lambda: "",
            standing=world.agent.standing,
            orders=world.agent.runner,
            allocations=world.agent.runner,
            logs=LogReader(world.folders, world.clock),
            trouble=lambda: "",
            nudge=world.agent.heartbeat.nudge,
            stopping=threading.Event(),
        )
    )
    server = HttpServer(app, ("127.0.0.1", 0), stopping=threading.Event())
    server.start()
    try:
        answer = requests.get(f"{server.url}/allocations", headers={"Authorization": "Bearer "}, timeout=5)
        assert answer.status_code == 401
    finally:
        server.stop()


def test_an_older_copy_of_the_store_starts_and_stops_nothing(served: Served) -> None:
    old = served.client(epoch=0)
    with pytest.raises(AgentUnreachable, match="409"):
        old.start(served.node, [an_assignment("a1")])
    with pytest.raises(AgentUnreachable, match="409"):
        old.stop(served.node, [StopOrder(id=AllocationId("a1"))])
    old.close()


def test_no_push_stops_anything_while_the_control_plane_adopts(served: Served) -> None:
    served.client().start(served.node, [an_assignment("a1")])
    served.world.control_plane.adopting = True
    served.world.run(4)
    with pytest.raises(AgentUnreachable, match="409"):
        served.client().stop(served.node, [StopOrder(id=AllocationId("a1"))])
    assert served.world.running() == [("a1", "server")]


def test_what_cannot_be_is_refused_in_words(served: Served) -> None:
    bad = requests.post(f"{served.server.url}/allocations", data=b"{", headers=SECRET, timeout=5)
    assert bad.status_code == 400
    assert "no assignment" in bad.json()["detail"]
    assert served.get("/allocations/none").status_code == 404
    assert served.get("/nowhere").status_code == 404
    assert requests.put(f"{served.server.url}/allocations", headers=SECRET, timeout=5).status_code == 405


def test_a_push_that_does_not_arrive_says_so(served: Served) -> None:
    served.server.stop()
    with pytest.raises(AgentUnreachable):
        served.client().start(served.node, [an_assignment("a1")])
    with pytest.raises(AgentUnreachable, match="no endpoint"):
        served.client().start(a_node(endpoint=""), [an_assignment("a1")])


def test_the_api_reads_logs_through_it(served: Served) -> None:
    served.client().start(served.node, [an_assignment("a1")])
    served.world.run(1)
    (served.logs / "server.stdout").write_bytes(b"one\ntwo\nthree\n")
    source = AgentLogs(lambda _node_id: "secret")
    with source.logs(served.node, AllocationId("a1"), {"tail": "2"}) as chunks:
        assert b"".join(chunks) == b"two\nthree\n"
    with (
        pytest.raises(LogsUnavailable) as caught,
        source.logs(served.node, AllocationId("a1"), {"task": "none"}) as _,
    ):
        pass
    assert caught.value.status == 404
    assert "has server" in caught.value.detail


def test_a_followed_log_ends_with_its_task(served: Served) -> None:
    served.client().start(served.node, [an_assignment("a1")])
    served.world.run(1)
    output = served.logs / "server.stdout"
    output.write_bytes(b"one\n")
    source = AgentLogs(lambda _node_id: "secret")
    with source.logs(served.node, AllocationId("a1"), {"follow": "true"}) as chunks:
        assert next(chunk for chunk in chunks if chunk) == b"one\n"
        with output.open("ab") as more:
            more.write(b"two\n")
        assert next(chunk for chunk in chunks if chunk) == b"two\n"
        served.world.stop("a1")
        served.world.run(1)
        assert b"".join(chunks) == b""


def test_followers_are_capped_and_give_their_place_back(served: Served) -> None:
    served.client().start(served.node, [an_assignment("a1")])
    served.world.run(1)
    (served.logs / "server.stdout").write_bytes(b"one\n")
    url = f"{served.server.url}/allocations/a1/logs?follow=true"
    for _ in range(3):
        with requests.get(url, headers=SECRET, timeout=5, stream=True) as answer:
            assert next(answer.iter_content(4)) == b"one\n"


@pytest.mark.parametrize(("query", "places"), [("", READERS), ("?follow=true", FOLLOWERS)])
def test_readers_that_do_not_read_leave_room_for_pushes(served: Served, query: str, places: int) -> None:
    """One more than there are places for is asked to come again, and whatever else is asked is answered."""
    served.client().start(served.node, [an_assignment("a1")])
    served.world.run(1)
    (served.logs / "server.stdout").write_bytes(b"x" * 2**24)
    url = f"{served.server.url}/allocations/a1/logs{query}"
    with contextlib.ExitStack() as held:
        for _ in range(places):
            answer = held.enter_context(requests.get(url, headers=SECRET, timeout=30, stream=True))
            assert answer.status_code == 200
        refused = requests.get(url, headers=SECRET, timeout=30)
        assert refused.status_code == 503
        assert "try again later" in refused.json()["detail"]
        served.client().start(served.node, [an_assignment("a2")])
    with requests.get(url, headers=SECRET, timeout=30, stream=True) as answer:
        assert answer.status_code == 200


def test_an_agent_that_stops_is_no_end_of_what_is_followed(served: Served) -> None:
    served.client().start(served.node, [an_assignment("a1")])
    served.world.run(1)
    (served.logs / "server.stdout").write_bytes(b"one\n")
    source = AgentLogs(lambda _node_id: "secret")
    with source.logs(served.node, AllocationId("a1"), {"follow": "true"}) as chunks:
        assert next(chunk for chunk in chunks if chunk) == b"one\n"
        served.server.stop()
        with pytest.raises(LogsUnavailable, match="gives no output now"):
            list(chunks)
