"""The real agent with containers: ports, folders, checks and its own death, on a real engine."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.drivers.docker_driver import DockerDriver
from agent.drivers.docker_engine import EngineAddress
from agent.drivers.docker_owner import Owner
from agent.drivers.docker_policy import DockerPolicy
from tests.builders import a_group, a_task
from tests.docker_engine import DockerEngine
from tests.unit.agent.archives import a_file, a_tar
from tests.unit.agent.artifact_host import ANY_HOST, an_artifact_host, sha256
from tests.unit.agent.node import Node, a_free_port, a_running_node, until
from trueup.models.ids import AllocationId
from trueup.models.job import Artifact, Check, Port, TaskConfig, TaskFile
from trueup.models.service import ServiceAddress, ServiceNews
from trueup.models.units import Duration

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("a1")]


@pytest.fixture
def node(tmp_path: Path, docker_engine: DockerEngine) -> Iterator[Node]:
    address = EngineAddress(host=docker_engine.host)
    drivers = {
        "docker": lambda _data, node_id, wake: DockerDriver(
            address, wake, owner=Owner(cluster="test", node=node_id), policy=DockerPolicy()
        )
    }
    with a_running_node(tmp_path / "agent", drivers, ANY_HOST) as node:
        yield node


def test_a_container_serves_its_files_on_its_port_and_outlives_the_agent(
    node: Node, docker_engine: DockerEngine
) -> None:
    checks = (
        Check(type="http", port="http", path="/hello", interval=Duration(milliseconds=200)),
        Check(type="exec", command=("test", "-f", "/etc/passwd"), interval=Duration(milliseconds=200)),
    )
    command = (
        "sh",
        "-c",
        "echo up as $TRUEUP_ALLOC_NAME; exec httpd -f -p ${PORT_http} -h ${TASK_DIR}/local",
    )
    task = a_task(
        driver="docker",
        config=TaskConfig(image=docker_engine.image, args=command),
        files=(TaskFile(path="local/hello", content="hello from ${NODE_NAME}\n"),),
        checks=checks,
    )
    port = a_free_port()
    group = a_group(tasks=(task,), ports=(Port(name="http", to=8080),))
    node.push(group, ports={"http": port}, min_healthy_time=0.2)
    until(lambda: node.plane.updates and node.plane.updates[AllocationId("a1")].healthy)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/hello", timeout=5) as answer:
        assert answer.read() == b"hello from node-1\n"
    log = node.data / "allocations/a1/logs/server.stdout"
    until(log.exists)
    until(lambda: log.read_bytes() == b"up as web.app[0]\n")

    before = node.held().tasks["server"]
    node.end()
    node.start()
    until(lambda: node.held().healthy)
    after = node.held().tasks["server"]
    assert (after.container_id, after.started_at) == (before.container_id, before.started_at)
    assert after.restarts == 0


def test_a_container_runs_what_was_fetched_for_it_as_whatever_user(
    node: Node, docker_engine: DockerEngine
) -> None:
    program = b"#!/bin/sh\nid -u; touch made; exec sleep 3600\n"
    with an_artifact_host() as host:
        host.files["/app.tgz"] = a_tar([a_file("run", program, 0o700)])
        artifact = Artifact(source=f"{host.url}/app.tgz", checksum=sha256(host.files["/app.tgz"]))
        config = TaskConfig(
            image=docker_engine.image, args=("sh", "-c", "cd ${TASK_DIR}/local && exec ./run")
        )
        task = a_task(driver="docker", config=config, artifacts=(artifact,), user="1234")
        node.push(a_group(tasks=(task,)))
        log = node.data / "allocations/a1/logs/server.stdout"
        until(lambda: log.exists() and log.read_bytes() == b"1234\n")
    until((node.data / "allocations/a1/tasks/server/local/made").exists)


def test_addresses_change_inside_the_running_container(node: Node, docker_engine: DockerEngine) -> None:
    address = ServiceAddress(
        host="10.0.0.2",
        port=80,
        job="web",
        group="app",
        allocation="web.app[0]",
        allocation_id=AllocationId("w0"),
        node="node-2",
    )
    # Reads by the signal alone, so that what it saw was there when it came.
    command = "cd ${TASK_DIR}; cp up.conf first; trap 'cp up.conf second' HUP; while :; do sleep 0.1; done"
    task = a_task(
        driver="docker",
        config=TaskConfig(image=docker_engine.image, args=("sh", "-c", command)),
        files=(TaskFile(path="up.conf", services=("shop",), each="to ${ADDR}", on_change="SIGHUP"),),
    )
    assert node.agent is not None
    node.agent.runner.tell_services(ServiceNews(version="v1", lists={"shop": ()}))
    node.push(a_group(tasks=(task,)))
    folder = node.data / "allocations/a1/tasks/server"
    until((folder / "first").exists)
    assert (folder / "first").read_text() == ""
    until(lambda: node.held().tasks["server"].container_id)
    before = node.held().tasks["server"]

    news = ServiceNews(version="v2", since="v1", lists={"shop": (address,)})
    node.agent.runner.tell_services(news)
    until((folder / "second").exists)
    until(lambda: (folder / "second").read_text() == "to 10.0.0.2:80\n")
    assert node.held().tasks["server"].container_id == before.container_id
    assert node.held().tasks["server"].restarts == 0
