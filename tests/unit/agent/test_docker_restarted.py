"""The real agent over restarts of its engine: what that ended starts again, and nothing else is touched."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.drivers.docker_driver import DockerDriver
from agent.drivers.docker_engine import EngineAddress
from agent.drivers.docker_owner import Owner
from agent.drivers.docker_policy import DockerPolicy
from agent.node_agent import DriverFactory
from tests.builders import a_group, a_task
from tests.docker_engine import IMAGE, Engine
from tests.require import require
from tests.unit.agent.node import PROCESSES, Node, a_running_node, until
from trueup.models.allocation import Allocation, TaskState
from trueup.models.ids import AllocationId
from trueup.models.job import Restart, TaskConfig, TaskGroup
from trueup.models.wire import StopOrder

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("a1")]


@pytest.fixture(params=[False, True], ids=["plain", "live-restore"])
def any_engine(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, bool]]:
    """An engine of this test's own, and whether its containers outlive it."""
    require("docker")
    engine = Engine(Path(tempfile.mkdtemp(prefix="tu-", dir="/tmp")), live_restore=request.param)
    engine.start()
    yield engine, request.param
    engine.destroy()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_engine_restart_is_no_restart_attempt_of_its_tasks(
    tmp_path: Path, any_engine: tuple[Engine, bool], how: str
) -> None:
    """Policy allows none here: without live-restore the container is another, with it the same; the process is."""
    engine, live_restore = any_engine
    with a_running_node(tmp_path / "agent", _drivers(engine.host)) as node:
        node.push(a_group(restart=Restart(attempts=0)))
        node.push(_containers(), allocation_id="web")
        process, container = _running(node, "a1"), _running(node, "web")

        (engine.stop if how == "stop" else engine.kill)()
        node.push(a_group(), allocation_id="meanwhile")
        _running(node, "meanwhile")
        assert (_task(node, "web"), _task(node, "a1")) == (container, process)
        engine.start()

        if not live_restore:
            until(lambda: _running(node, "web").container_id != container.container_id)
            told = [(event.type, event.message) for event in _running(node, "web").events]
            assert ("Restarting", "it ended while the Docker engine was away") in told
        after = _running(node, "web")
        assert (after.restarts, after.image_id) == (0, container.image_id)
        assert (after.container_id == container.container_id) is live_restore
        assert _running(node, "a1") == process
        assert node.agent is not None
        node.agent.runner.stop([StopOrder(id=AllocationId("web"), reason="not needed")])
        until(lambda: _held(node, "web").client_status == "complete")
        assert len(_starts(node, "web")) == (1 if live_restore else 2)


def test_an_agent_that_comes_before_its_engine_goes_on_with_all_there_is(
    tmp_path: Path, any_engine: tuple[Engine, bool]
) -> None:
    """With the process at once; and containers that ended with the engine meanwhile did so by no fault of theirs."""
    engine, live_restore = any_engine
    with a_running_node(tmp_path / "agent", _drivers(engine.host)) as node:
        node.push(a_group(restart=Restart(attempts=0)))
        node.push(_containers(), allocation_id="web")
        process, container = _running(node, "a1"), _running(node, "web")

        node.end()
        engine.stop()
        node.start()
        assert _running(node, "a1") == process
        assert _task(node, "web") == container
        engine.start()

        until(lambda: live_restore or len(_starts(node, "web")) == 2)
        after = _running(node, "web")
        assert (after.restarts, after.container_id == container.container_id) == (0, live_restore)
        assert _running(node, "a1") == process


def test_what_fails_by_itself_is_not_forgiven_for_the_engines_restart(tmp_path: Path) -> None:
    require("docker")
    engine = Engine(Path(tempfile.mkdtemp(prefix="tu-", dir="/tmp")))
    engine.start()
    try:
        with a_running_node(tmp_path / "agent", _drivers(engine.host)) as node:
            node.push(_containers("sleep", "3600"), allocation_id="web")
            _running(node, "web")
            engine.stop()
            engine.start()
            until(lambda: len(_starts(node, "web")) == 2)

            node.push(_containers("sh", "-c", "exit 3"), allocation_id="fails")
            until(lambda: _held(node, "fails").client_status == "failed")
            assert len(_starts(node, "fails")) == 1
    finally:
        engine.destroy()


def test_what_ends_by_itself_while_an_engine_with_live_restore_is_away_counts(tmp_path: Path) -> None:
    """That one ends nothing."""
    require("docker")
    engine = Engine(Path(tempfile.mkdtemp(prefix="tu-", dir="/tmp")), live_restore=True)
    engine.start()
    try:
        with a_running_node(tmp_path / "agent", _drivers(engine.host)) as node:
            waits = "while [ ! -e ${TASK_DIR}/end ]; do sleep 0.05; done; exit 3"
            node.push(_containers("sh", "-c", waits), allocation_id="ends")
            pid = _running(node, "ends").pid
            engine.stop()
            (node.data / "allocations/ends/tasks/server/end").touch()
            until(lambda: pid is not None and not psutil.pid_exists(pid))
            engine.start()

            until(lambda: _held(node, "ends").client_status == "failed")
            assert _task(node, "ends").exit_code == 3
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


def _containers(*args: str) -> TaskGroup:
    config = TaskConfig(image=IMAGE, args=args or ("sleep", "3600"), network_mode="none")
    return a_group(tasks=(a_task(driver="docker", config=config),), restart=Restart(attempts=0))


def _held(node: Node, allocation_id: str) -> Allocation:
    assert node.agent is not None
    runner, key = node.agent.runner, AllocationId(allocation_id)
    until(lambda: runner.allocation(key))
    found = runner.allocation(key)
    assert found is not None
    return found


def _task(node: Node, allocation_id: str) -> TaskState:
    return _held(node, allocation_id).tasks["server"]


def _running(node: Node, allocation_id: str) -> TaskState:
    until(lambda: _task(node, allocation_id).pid)
    return _task(node, allocation_id)


def _starts(node: Node, allocation_id: str) -> list[str]:
    return [one.type for one in _task(node, allocation_id).events if one.type == "Started"]
