"""The HEALTHCHECK of an image, on a real engine: its word is that of one check more."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from agent.drivers.docker_driver import DockerDriver
from agent.drivers.docker_engine import EngineAddress
from agent.drivers.docker_owner import Owner
from agent.drivers.docker_policy import DockerPolicy
from tests.builders import a_group, a_task
from tests.docker_engine import DockerEngine, client
from tests.unit.agent.node import Node, a_running_node, until
from trueup.models.allocation import TaskState
from trueup.models.ids import AllocationId
from trueup.models.job import TaskConfig

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("a1")]

_IMAGE = "trueup-test-healthcheck"


@pytest.fixture
def image(docker_engine: DockerEngine) -> Iterator[str]:
    """The run's image with a check: whether there is a file."""
    with contextlib.closing(client(docker_engine.host)) as engine:
        made = _image_with(
            engine, docker_engine.image, "HEALTHCHECK --interval=200ms --retries=1 CMD test -e /well"
        )
        yield made
        engine.remove_image(made, force=True)


@pytest.fixture
def node(tmp_path: Path, docker_engine: DockerEngine, image: str) -> Iterator[Node]:
    address = EngineAddress(host=docker_engine.host)
    drivers = {
        "docker": lambda _data, node_id, wake: DockerDriver(
            address, wake, owner=Owner(cluster="test", node=node_id), policy=DockerPolicy()
        )
    }
    with a_running_node(tmp_path / "agent", drivers) as node:
        yield node


def test_an_allocation_is_as_healthy_as_its_image_says(
    node: Node, image: str, docker_engine: DockerEngine
) -> None:
    config = TaskConfig(image=image, args=("sleep", "3600"), network_mode="none")
    node.push(a_group(tasks=(a_task(driver="docker", config=config),)), min_healthy_time=0.1)
    until(lambda: "Check not passed yet" in _events(_task(node)))
    assert _task(node).healthy is False
    assert node.held().healthy is None

    with contextlib.closing(client(docker_engine.host)) as engine:
        _run(engine, _task(node).container_id, "touch", "/well")
        until(lambda: node.held().healthy)
        assert _task(node).healthy is True
        assert _events(_task(node)) == ["Started", "Check not passed yet", "Check passed"]
        until(lambda: node.plane.updates[AllocationId("a1")].healthy)

        _run(engine, _task(node).container_id, "rm", "/well")
        until(lambda: node.held().healthy is False)
        until(lambda: node.plane.updates[AllocationId("a1")].healthy is False)
        assert _task(node).events[-1].message == "the HEALTHCHECK of its image fails"


def _task(node: Node) -> TaskState:
    assert node.agent is not None
    runner = node.agent.runner
    until(runner.allocations)
    return node.held().tasks["server"]


def _events(task: TaskState) -> list[str]:
    return [event.type for event in task.events]


def _image_with(engine: docker.APIClient, base: str, change: str) -> str:
    made = engine.create_container(base)
    engine.commit(made["Id"], repository=_IMAGE, tag="1", changes=[change])
    engine.remove_container(made["Id"])
    return f"{_IMAGE}:1"


def _run(engine: docker.APIClient, container: str, *command: str) -> None:
    engine.exec_start(engine.exec_create(container, list(command))["Id"])
