"""Tasks of a real agent that run what they fetch from a real server."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import a_group, a_task
from tests.unit.agent.archives import a_file, a_tar
from tests.unit.agent.artifact_host import ANY_HOST, ArtifactHost, an_artifact_host, sha256
from tests.unit.agent.node import PROCESSES, Node, a_running_node, until
from trueup.models.ids import AllocationId
from trueup.models.job import Artifact, Restart, TaskConfig, TaskGroup
from trueup.models.wire import StopOrder

PROGRAM = b"#!/bin/sh\necho fetched; exec sleep 3600\n"
A1 = AllocationId("a1")


@pytest.fixture
def host() -> Iterator[ArtifactHost]:
    with an_artifact_host() as made:
        made.files["/app.tar.gz"] = a_tar([a_file("app/run", PROGRAM, 0o755)])
        yield made


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with a_running_node(tmp_path / "agent", PROCESSES, ANY_HOST) as node:
        yield node


def a_fetched_group(host: ArtifactHost, path: str = "/app.tar.gz") -> TaskGroup:
    artifact = Artifact(source=f"{host.url}{path}", checksum=sha256(host.files[path]))
    task = a_task(config=TaskConfig(command=("local/app/run",)), artifacts=(artifact,))
    return a_group(tasks=(task,), restart=Restart(attempts=0))


def events(node: Node) -> list[str]:
    return [event.type for event in node.held().tasks["server"].events]


def stop(node: Node) -> None:
    assert node.agent is not None
    node.agent.runner.stop([StopOrder(id=A1, reason="not needed")])


def test_a_task_runs_what_it_fetched(node: Node, host: ArtifactHost) -> None:
    node.push(a_fetched_group(host))
    until(node.pid)
    log = node.data / "allocations/a1/logs/server.stdout"
    until(lambda: log.exists() and log.read_bytes() == b"fetched\n")
    assert events(node) == ["Downloading artifacts", "Started"]


def test_the_next_agent_fetches_nothing(node: Node, host: ArtifactHost) -> None:
    node.push(a_fetched_group(host))
    until(node.pid)
    node.end(tasks=True)
    host.files.clear()
    node.start()
    until(node.pid)
    assert host.requests == ["/app.tar.gz"]


def test_an_agent_that_ended_amid_a_download_begins_it_anew(node: Node, host: ArtifactHost) -> None:
    host.held = threading.Event()
    node.push(a_fetched_group(host))
    until(lambda: host.requests)
    node.end()
    host.held.set()
    node.start()
    until(node.pid)
    assert host.requests == ["/app.tar.gz"] * 2


@pytest.mark.parametrize("how", ["stop", "down"])
def test_a_download_ends_with_its_allocation(node: Node, host: ArtifactHost, how: str) -> None:
    """Although the server says nothing more for minutes; and nothing of it was a failure."""
    host.held = threading.Event()
    node.push(a_fetched_group(host))
    until(lambda: host.requests)
    if how == "stop":
        stop(node)
        until(lambda: node.held().client_status == "complete")
        assert "Started" not in events(node)
    else:
        assert node.end(tasks=True) == []
        host.held.set()
        node.start()
        until(node.pid)
    assert node.held().tasks["server"].restarts == 0


def test_a_slow_download_holds_up_no_other_task(node: Node, host: ArtifactHost) -> None:
    host.held = threading.Event()
    for number in range(20):
        node.push(a_fetched_group(host), allocation_id=f"slow{number}")
    until(lambda: host.requests)
    node.push(a_group())
    until(node.pid)
    assert host.requests == ["/app.tar.gz"]


def test_what_the_policy_forbids_fails_with_the_reason(tmp_path: Path, host: ArtifactHost) -> None:
    with a_running_node(tmp_path / "agent", PROCESSES) as node:
        node.push(a_fetched_group(host))
        until(lambda: node.plane.updates and node.plane.updates[A1].client_status == "failed")
        (event, *_) = node.held().tasks["server"].events
        assert event.type == "Artifact failure"
        assert (
            "artifacts over http are not allowed on this node: list it under artifacts.hosts" in event.message
        )
        (told,) = {
            held.attributes["artifact_paths"] for held in node.plane.registrations[-1].drivers.values()
        }
        assert told == ""
    assert host.requests == []
