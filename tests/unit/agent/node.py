"""A real agent on a data folder, and a small control plane that it speaks HTTP with."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from agent.drivers.accounts import ProcessPolicy
from agent.drivers.process import ProcessDriver
from agent.node_agent import AgentSettings, DriverFactory, NodeAgent
from cli.system import RandomIds, SystemClock
from cli.threads import LoopThreads
from tests.builders import a_node
from tests.unit.agent.world import FakeControlPlane, an_assignment
from trueup.agent_client import AgentClient
from trueup.models.allocation import Allocation
from trueup.models.artifacts import ArtifactPolicy
from trueup.models.codec import from_json, to_json
from trueup.models.ids import AllocationId
from trueup.models.job import TaskGroup
from trueup.models.wire import HeartbeatRequest, RegisterRequest
from trueup.serving import HttpServer

SECONDS = 90


def until(holds: Callable[[], object]) -> None:
    """Waits for a condition, not for a time."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def a_free_port() -> int:
    """A port nobody listens on now, beneath those that the system hands out: no connection takes it meanwhile."""
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", random.randint(10_000, 19_999))) as one,
        ):
            return int(one.getsockname()[1])


class ServedPlane(FakeControlPlane):
    """The fake control plane behind HTTP."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", [("Content-Type", "application/json")])
        if environ["PATH_INFO"] == "/register":
            return [to_json(self.register(from_json(body, RegisterRequest)))]
        return [to_json(self.heartbeat(from_json(body, HeartbeatRequest)))]


class Node:
    """A data folder, and the agent on it while there is one."""

    def __init__(
        self,
        data: Path,
        plane: ServedPlane,
        url: str,
        drivers: Mapping[str, DriverFactory],
        artifacts: ArtifactPolicy,
    ) -> None:
        self.data, self.plane, self._url, self._drivers = data, plane, url, drivers
        self._artifacts = artifacts
        self.agent: NodeAgent | None = None
        self.start()

    def start(self) -> None:
        settings = AgentSettings(
            data=self.data,
            servers=[self._url],
            name="node-1",
            bind=("127.0.0.1", 0),
            cluster_token=lambda: "cluster",
            artifacts=self._artifacts,
        )
        self.agent = NodeAgent.build(settings, self._drivers, SystemClock(), RandomIds())
        self._threads = LoopThreads(SystemClock())
        self.agent.connect({name: self._threads.add(name, loop) for name, loop in self.agent.loops})
        self._threads.start()
        until(lambda: self.agent and self.agent.heartbeat.is_registered)

    def end(self, *, tasks: bool = False) -> list[str]:
        assert self.agent is not None
        left = self._threads.stop(SECONDS)
        if tasks:
            left += self.agent.stop_all(SECONDS)
        self.agent.close()
        self.agent = None
        return left

    def push(self, group: TaskGroup, **fields: object) -> None:
        assert self.agent is not None
        assert self.agent.endpoint is not None
        client = AgentClient(lambda _node_id: "secret", epoch=lambda: 1)
        client.start(a_node(endpoint=self.agent.endpoint.url), [an_assignment(group=group, **fields)])  # type: ignore[arg-type]
        client.close()

    def held(self) -> Allocation:
        assert self.agent is not None
        found = self.agent.runner.allocation(AllocationId("a1"))
        assert found is not None
        return found

    def pid(self) -> int | None:
        """None also while a push that was answered is not yet taken in."""
        assert self.agent is not None
        found = self.agent.runner.allocation(AllocationId("a1"))
        return None if found is None else found.tasks["server"].pid


PROCESSES: Mapping[str, DriverFactory] = {
    "process": lambda data, _node_id, wake: ProcessDriver(
        data, wake, policy=ProcessPolicy(enabled=True, root=True)
    )
}


@contextmanager
def a_running_node(
    data: Path, drivers: Mapping[str, DriverFactory], artifacts: ArtifactPolicy | None = None
) -> Iterator[Node]:
    """A node that runs, and none of whose tasks outlive the test."""
    plane = ServedPlane()
    server = HttpServer(plane, ("127.0.0.1", 0), stopping=threading.Event())
    server.start()
    node = Node(data, plane, server.url, drivers, artifacts or ArtifactPolicy())
    try:
        yield node
    finally:
        if node.agent is None:
            node.start()
        left = node.end(tasks=True)
        server.stop()
    assert left == []
