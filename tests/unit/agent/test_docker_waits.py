"""What is slow or hangs on the engine's side holds up its own tasks alone: pulls, and an engine that says nothing."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.drivers.docker_driver import DockerDriver
from agent.drivers.docker_engine import EngineAddress
from agent.drivers.docker_owner import Owner
from agent.drivers.docker_policy import DockerPolicy
from agent.node_agent import DriverFactory
from tests.builders import a_group, a_task
from tests.docker_engine import IMAGE, DockerEngine, Engine
from tests.unit.agent.node import PROCESSES, Node, a_running_node, until
from tests.unit.agent_drivers.registry import Registry, a_registry
from trueup.models.allocation import Allocation
from trueup.models.ids import AllocationId
from trueup.models.job import TaskConfig, TaskGroup
from trueup.models.wire import StopOrder

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("a1")]


@pytest.fixture
def registry(docker_engine: DockerEngine) -> Iterator[Registry]:
    with a_registry(docker_engine.host) as made:
        made.held = threading.Event()
        yield made


@pytest.fixture
def node(tmp_path: Path, docker_engine: DockerEngine, registry: Registry) -> Iterator[Node]:
    """Its registry answers once `registry.held` is set, at the latest when the node ends."""
    with a_running_node(tmp_path / "agent", _drivers(docker_engine.host)) as node:
        yield node
        assert registry.held is not None
        registry.held.set()


def test_tasks_that_wait_for_a_slow_registry_hold_up_no_other(node: Node, registry: Registry) -> None:
    """40 of them, of as many images, where each kind of call has 32 threads."""
    for number in range(40):
        node.push(_containers(registry.image(str(number))), allocation_id=f"slow{number}")
    until(lambda: _events(node, "slow39") == ["Pulling image"])
    node.push(_containers(IMAGE), allocation_id="at-hand")
    node.push(a_group())

    until(lambda: _held(node, "at-hand").client_status == "running")
    until(node.pid)
    assert registry.waiting <= 2
    began = time.monotonic()
    for waiting in (*(f"slow{number}" for number in range(40)), "a1"):
        _stop(node, waiting)
    until(lambda: _held(node, "a1").client_status == "complete")
    for number in range(40):
        until(lambda one=f"slow{number}": _held(node, one).client_status == "complete")  # type: ignore[misc]
    assert time.monotonic() - began < 15
    assert "Started" not in _events(node, "slow0")


def test_tasks_of_one_image_wait_for_one_pull(node: Node, registry: Registry) -> None:
    for number in range(5):
        node.push(_containers(registry.image("shared")), allocation_id=f"one{number}")
    until(lambda: all(_events(node, f"one{number}") == ["Pulling image"] for number in range(5)))
    until(lambda: registry.waiting)
    assert registry.held is not None
    registry.held.set()

    # It has no such program as is asked for, and so they get as far as that.
    until(lambda: all("Driver failure" in _events(node, f"one{number}") for number in range(5)))
    assert registry.asked == 1


def test_a_registry_that_is_broken_is_asked_less_and_less_often(node: Node, registry: Registry) -> None:
    """And as the same start: it uses up no restart of the task's."""
    assert registry.held is not None
    registry.held.set()
    registry.broken = True
    began = time.monotonic()
    node.push(_containers(registry.image("later")))
    asked_at = []
    for count in range(1, 5):
        until(lambda count=count: registry.asked >= count)  # type: ignore[misc]
        asked_at.append(time.monotonic() - began)

    # Half a second, one, two.
    assert asked_at[3] > 3.4
    task = _held(node, "a1").tasks["server"]
    assert (task.state, task.restarts) == ("pending", 0)
    assert "503 Service Unavailable" in next(
        event.message for event in task.events if event.type == "Driver failure"
    )
    registry.broken = False

    # It has no such program as is asked for, and so it gets as far as that.
    until(
        lambda: any(
            "the image has no such program" in event.message
            for event in _held(node, "a1").tasks["server"].events
        )
    )


def test_an_engine_that_hangs_holds_up_no_process_task(tmp_path: Path) -> None:
    engine = Engine(Path(tempfile.mkdtemp(prefix="tu-", dir="/tmp")))
    engine.start()
    try:
        with a_running_node(tmp_path / "agent", _drivers(engine.host)) as node:
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGSTOP)
            try:
                for number in range(40):
                    node.push(_containers(IMAGE), allocation_id=f"hung{number}")
                until(lambda: sum("docker" in one.name for one in threading.enumerate()) >= 32)
                began = time.monotonic()
                node.push(a_group())
                until(node.pid)
                _stop(node, "a1")
                until(lambda: _held(node, "a1").client_status == "complete")
                assert time.monotonic() - began < 5
                for number in range(40):
                    _stop(node, f"hung{number}")
            finally:
                os.kill(engine.pid, signal.SIGCONT)
            for number in range(40):
                until(lambda one=f"hung{number}": _held(node, one).client_status == "complete")  # type: ignore[misc]
    finally:
        engine.destroy()


def _drivers(host: str) -> dict[str, DriverFactory]:
    address = EngineAddress(host=host, chosen=True)
    return {
        **PROCESSES,
        "docker": lambda _data, node_id, wake: DockerDriver(
            address, wake, owner=Owner(cluster="test", node=node_id), policy=DockerPolicy()
        ),
    }


def _containers(image: str) -> TaskGroup:
    config = TaskConfig(image=image, args=("sleep", "3600"), network_mode="none", init=False)
    return a_group(tasks=(a_task(driver="docker", config=config),))


def _held(node: Node, allocation_id: str) -> Allocation:
    """Once the node has taken in that it was pushed."""
    assert node.agent is not None
    runner, key = node.agent.runner, AllocationId(allocation_id)
    until(lambda: runner.allocation(key))
    found = runner.allocation(key)
    assert found is not None
    return found


def _events(node: Node, allocation_id: str) -> list[str]:
    return [event.type for event in _held(node, allocation_id).tasks["server"].events]


def _stop(node: Node, allocation_id: str) -> None:
    assert node.agent is not None
    node.agent.runner.stop([StopOrder(id=AllocationId(allocation_id), reason="not needed")])
