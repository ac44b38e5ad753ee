"""The real agent put together: real processes, files, sockets and threads, and a small control plane over HTTP."""

import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.drivers.identity import read_machine_id
from agent.fingerprint import default_name
from agent.journal import FolderInUse, holder_of
from agent.node_agent import AgentSettings, NodeAgent
from cli.system import RandomIds, SystemClock
from tests.builders import a_group, a_task
from tests.unit.agent.node import PROCESSES, Node, a_free_port, a_running_node, until
from trueup.models.ids import AllocationId
from trueup.models.job import Check, Port, TaskConfig, TaskFile, TaskGroup
from trueup.models.units import Duration
from trueup.serving import CannotServe


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with a_running_node(tmp_path / "agent", PROCESSES) as node:
        yield node


def a_served_group() -> TaskGroup:
    """A real HTTP server of its own files, with a check."""
    check = Check(type="http", port="http", path="/local/hello", interval=Duration(milliseconds=200))
    serve = "python3 -m http.server --bind ${HOST_IP} ${PORT_http}"
    task = a_task(
        config=TaskConfig(command=("sh", "-c", f"echo up; exec {serve}")),
        checks=(check,),
        files=(TaskFile(path="local/hello", content="hello from ${ALLOC_NAME}\n"),),
    )
    return a_group(tasks=(task,), ports=(Port(name="http"),))


def test_a_web_service_runs_becomes_healthy_and_outlives_its_agent(node: Node) -> None:
    node.push(a_served_group(), ports={"http": a_free_port()}, min_healthy_time=0.2)
    until(lambda: node.plane.updates and node.plane.updates[AllocationId("a1")].healthy)
    before = node.held().tasks["server"]
    assert (node.data / "allocations/a1/logs/server.stdout").read_bytes() == b"up\n"

    node.end()
    assert before.pid is not None
    assert psutil.pid_exists(before.pid)
    node.start()
    after = node.held()
    assert after.healthy is True
    assert (after.tasks["server"].pid, after.tasks["server"].started_at) == (before.pid, before.started_at)
    assert [held.id for held in node.plane.registrations[-1].allocations] == ["a1"]


def test_what_ended_while_no_agent_was_there_is_told(node: Node) -> None:
    node.push(a_group(tasks=(a_task(config=TaskConfig(command=("sleep", "0.2"))),)), job_type="batch")
    until(node.pid)
    node.end()
    until((node.data / "tasks/a1/server/1/exit.json").exists)
    node.start()
    until(lambda: node.held().client_status == "complete")
    assert node.held().tasks["server"].exit_code == 0


def test_a_push_is_answered_once_it_is_written(node: Node) -> None:
    node.push(a_group())
    with sqlite3.connect(node.data / "agent.db") as journal:
        assert journal.execute("select id from allocations").fetchall() == [("a1",)]
    journal.close()


def test_a_second_agent_on_the_folder_is_refused_with_the_first_ones_pid(node: Node) -> None:
    with pytest.raises(FolderInUse, match=f"pid {os.getpid()}"):
        NodeAgent.build(
            AgentSettings(data=node.data, servers=[], name="n", bind=None), {}, SystemClock(), RandomIds()
        )


def test_an_agent_that_cannot_be_built_lets_go_of_its_folder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = AgentSettings(
            data=tmp_path, servers=["http://127.0.0.1:1"], name="n", bind=taken.getsockname()[:2]
        )
        with pytest.raises(CannotServe, match="Address already in use"):
            NodeAgent.build(settings, {}, SystemClock(), RandomIds())
    assert holder_of(tmp_path) is None


def test_all_tasks_can_be_ended_and_start_again_in_place(node: Node) -> None:
    node.push(a_group())
    until(node.pid)
    before = node.pid()
    assert node.end(tasks=True) == []
    assert before is not None
    assert not psutil.pid_exists(before)

    node.start()
    until(node.pid)
    assert node.pid() != before
    assert node.held().tasks["server"].restarts == 0


def test_a_task_killed_by_hand_is_noticed_at_once_and_restarts(node: Node) -> None:
    node.push(a_group())
    until(node.pid)
    before = node.pid()
    assert before is not None
    psutil.Process(before).kill()
    until(lambda: node.held().tasks["server"].events[-1].type == "Restarting")
    assert node.held().tasks["server"].signal == 9


def test_a_registration_says_what_the_machine_has(node: Node) -> None:
    [said] = node.plane.registrations
    assert said.resources.cpu_millicores == (psutil.cpu_count() or 1) * 1000
    assert said.resources.memory_bytes > 0
    assert said.attributes["kernel.name"] == "linux"
    assert {"arch", "kernel.version", "disk.bytes", "cgroup", "hostname"} <= said.attributes.keys()
    assert said.drivers["process"].healthy
    assert said.endpoint.startswith("http://127.0.0.1:")
    assert said.boot_id
    assert said.folder == f"{node.data.stat().st_dev}:{node.data.stat().st_ino}"
    assert said.machine_id != read_machine_id() or not said.machine_id


def test_files_of_the_agent_are_its_own(node: Node) -> None:
    node.push(a_group())
    until(node.pid)
    assert node.data.stat().st_mode & 0o077 == 0
    for path in (node.data / "agent.db", node.data / "agent.lock"):
        assert path.stat().st_mode & 0o077 == 0


def test_a_hostname_becomes_a_nodes_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Web_01.Example.ORG.")
    assert default_name() == "web-01-example-org"
