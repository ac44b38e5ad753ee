"""The real agent, and what others put in the place of its containers: the task ends and starts as it was asked for."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from agent.drivers.docker_driver import DockerDriver
from agent.drivers.docker_engine import EngineAddress
from agent.drivers.docker_owner import Owner, agent_tag
from agent.drivers.docker_policy import DockerPolicy
from tests.builders import a_group, a_task
from tests.docker_engine import DockerEngine, client
from tests.unit.agent.node import Node, a_running_node, until
from trueup.models.allocation import TaskState
from trueup.models.ids import AllocationId
from trueup.models.job import Restart, TaskConfig, TaskGroup
from trueup.models.units import Duration

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("a1")]


@pytest.fixture
def node(tmp_path: Path, docker_engine: DockerEngine) -> Iterator[Node]:
    address = EngineAddress(host=docker_engine.host)
    drivers = {
        "docker": lambda data, node_id, wake: DockerDriver(
            address,
            wake,
            owner=Owner(cluster="test", node=node_id, agent=agent_tag(data, "node-1", "a-machine")),
            policy=DockerPolicy(),
        )
    }
    with a_running_node(tmp_path / "agent", drivers) as node:
        yield node


@pytest.fixture
def engine(docker_engine: DockerEngine) -> Iterator[docker.APIClient]:
    with contextlib.closing(client(docker_engine.host)) as opened:
        yield opened


@pytest.fixture
def newer_image(engine: docker.APIClient, docker_engine: DockerEngine) -> Iterator[str]:
    """The same as the run's, with another id."""
    made = engine.create_container(docker_engine.image)
    engine.commit(made["Id"], repository="trueup-test-newer", tag="1", changes=["LABEL newer=yes"])
    engine.remove_container(made["Id"])
    yield "trueup-test-newer:1"
    engine.remove_image("trueup-test-newer:1", force=True)


def test_a_container_brought_to_a_newer_image_is_replaced_by_policy(
    node: Node, engine: docker.APIClient, docker_engine: DockerEngine, newer_image: str
) -> None:
    """As by a tool that watches for newer images; the agent may have its own made before that tool is done."""
    node.push(_group(docker_engine.image, Restart(attempts=1, delay=Duration(milliseconds=50))))
    before = _running(node)
    _recreate(engine, before.container_id, newer_image)

    until(lambda: _task(node).restarts == 1)
    after = _running(node)

    assert (after.image, after.image_id) == (before.image, before.image_id)
    assert _containers(engine) == [after.container_id]


def test_a_container_replaced_while_no_agent_ran_is_replaced_and_the_reason_told(
    node: Node, engine: docker.APIClient, docker_engine: DockerEngine, newer_image: str
) -> None:
    node.push(_group(docker_engine.image, Restart(attempts=1, delay=Duration(milliseconds=50))))
    before = _running(node)
    node.end()
    _recreate(engine, before.container_id, newer_image)
    node.start()

    until(lambda: _task(node).restarts == 1)
    after = _running(node)

    assert after.image_id == before.image_id
    [told] = [event.message for event in after.events if event.type == "Terminated"]
    assert "another container was put in its place: image sha256:" in told
    assert _containers(engine) == [after.container_id]


def test_nothing_that_was_put_in_its_place_runs_on_where_policy_starts_nothing(
    node: Node, engine: docker.APIClient, docker_engine: DockerEngine, newer_image: str
) -> None:
    node.push(_group(docker_engine.image, Restart(attempts=0)))
    before = _running(node)
    node.end()
    _recreate(engine, before.container_id, newer_image)
    node.start()

    until(lambda: node.held().client_status == "failed")
    until(lambda: _containers(engine) == [])


def test_a_container_replaced_while_no_agent_ran_and_its_folder_was_lost_is_none_of_its_own(
    node: Node, engine: docker.APIClient, docker_engine: DockerEngine, newer_image: str
) -> None:
    """All that is left of what it was started with is a label."""
    group = _group(docker_engine.image, Restart(attempts=1, delay=Duration(milliseconds=50)))
    node.push(group)
    before = _running(node)
    node.end()
    put = _recreate(engine, before.container_id, newer_image)
    shutil.rmtree(node.data)

    node.start()
    node.push(group)

    until(lambda: put not in _containers(engine))
    assert _running(node).image_id == before.image_id


@pytest.mark.parametrize("attempts", [0, 1])
def test_an_engine_that_starts_a_container_again_by_itself_hides_no_end_of_it(
    node: Node, engine: docker.APIClient, docker_engine: DockerEngine, attempts: int
) -> None:
    """Somebody gave all containers of the machine another restart policy."""
    config = TaskConfig(
        image=docker_engine.image,
        args=("sh", "-c", "while [ ! -e ${TASK_DIR}/end ]; do sleep 0.05; done; exit 3"),
        network_mode="none",
    )
    restart = Restart(attempts=attempts, delay=Duration(seconds=1))
    node.push(a_group(tasks=(a_task(driver="docker", config=config),), restart=restart))
    before = _running(node)
    engine.update_container(before.container_id, restart_policy={"Name": "always"})

    (node.data / "allocations/a1/tasks/server/end").touch()

    until(lambda: node.held().client_status == "failed")
    until(lambda: _containers(engine) == [])
    assert _task(node).restarts == attempts


def test_a_container_restarted_by_hand_is_an_end_like_any_other(
    node: Node, engine: docker.APIClient, docker_engine: DockerEngine
) -> None:
    """Whether it is seen to have ended or not; what the agent removes first, that hand finds no more."""
    node.push(_group(docker_engine.image, Restart(attempts=1, delay=Duration(milliseconds=50))))
    before = _running(node)
    with contextlib.suppress(docker.errors.APIError):
        engine.restart(before.container_id, timeout=5)

    until(lambda: _task(node).restarts == 1)
    until(lambda: _containers(engine) == [_task(node).container_id])
    assert _running(node).container_id != before.container_id


def test_a_container_restarted_while_no_agent_ran_does_not_run_on_where_policy_starts_nothing(
    node: Node, engine: docker.APIClient, docker_engine: DockerEngine
) -> None:
    """It is another process than the one that the task's was."""
    node.push(_group(docker_engine.image, Restart(attempts=0)))
    before = _running(node)
    node.end()
    engine.restart(before.container_id, timeout=5)
    node.start()

    until(lambda: node.held().client_status == "failed")
    until(lambda: not engine.containers(filters={"label": "trueup.alloc=a1"}))
    [told] = [event.message for event in _task(node).events if event.type == "Terminated"]
    assert "another hand started it again" in told


def _group(image: str, restart: Restart) -> TaskGroup:
    config = TaskConfig(image=image, args=("sleep", "3600"), network_mode="none")
    return a_group(tasks=(a_task(driver="docker", config=config),), restart=restart)


def _task(node: Node) -> TaskState:
    assert node.agent is not None
    runner = node.agent.runner
    until(lambda: runner.allocation(AllocationId("a1")))
    return node.held().tasks["server"]


def _running(node: Node) -> TaskState:
    until(lambda: _task(node).state == "running" and _task(node).container_id)
    return _task(node)


def _containers(engine: docker.APIClient) -> list[str]:
    return [one["Id"] for one in engine.containers(all=True, filters={"label": "trueup.alloc=a1"})]


def _recreate(engine: docker.APIClient, container: str, image: str) -> str:
    """Another container of *image*, with the name and all labels of the one that was there; empty if it has none.

    While the name is free, the agent may have its own made.
    """
    before = engine.inspect_container(container)
    engine.remove_container(container, force=True)
    body = {**before["Config"], "Image": image, "HostConfig": before["HostConfig"]}
    with contextlib.suppress(docker.errors.APIError):
        made = engine.create_container_from_config(body, before["Name"].removeprefix("/"))  # type: ignore[no-untyped-call]
        engine.start(made["Id"])
        return str(made["Id"])
    return ""
