"""How containers end and are ended, what is seen of it, and commands inside them."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import docker.errors
import pytest

from agent.doors import DriverError, TaskHandle
from agent.drivers.docker_engine import Engine
from agent.drivers.docker_errors import EngineRefused
from agent.drivers.docker_logs import LogFollower
from agent.drivers.docker_output import ContainerOutput
from agent.drivers.docker_spec import LogTarget
from tests.docker_engine import client
from tests.unit.agent_drivers.docker_world import DockerWorld
from tests.unit.agent_drivers.process_world import lives, wait_until
from trueup.models.job import Resources
from trueup.models.units import Bytes, Duration

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

_SECONDS = Duration(seconds=10)


def test_the_exit_code_and_the_times_of_an_ended_task_are_known(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sh", "-c", "exit 3")

    status = docker_world.ended(handle)

    assert (status.state, status.exit_code, status.oom_killed) == ("exited", 3, False)
    assert status.started_at is not None
    assert status.finished_at is not None
    assert status.started_at <= status.finished_at


def test_a_task_that_handles_no_signals_still_ends_on_sigterm(docker_world: DockerWorld) -> None:
    """Process 1 ignores what it has no handler for; `init` is one that has them."""
    handle = docker_world.start("sleep", "100")

    docker_world.driver.signal(handle, "SIGTERM")

    assert docker_world.ended(handle).exit_code == 143


def test_without_init_the_task_is_process_1_and_needs_the_kill(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100", init=False)

    docker_world.driver.signal(handle, "SIGTERM")
    assert docker_world.driver.execute(handle, ["true"], _SECONDS)[0] == 0
    docker_world.driver.kill(handle)

    assert docker_world.ended(handle).exit_code == 137


def test_the_signal_a_task_handles_reaches_it(docker_world: DockerWorld) -> None:
    script = "trap 'echo asked; exit 0' USR1; echo ready; while true; do sleep 0.05; done"
    handle = docker_world.start("sh", "-c", script)
    wait_until(lambda: docker_world.output(handle) == "ready\n")

    docker_world.driver.signal(handle, "SIGUSR1")

    assert docker_world.ended(handle).exit_code == 0
    docker_world.driver.remove(handle)
    assert docker_world.output(handle) == "ready\nasked\n"


def test_a_kill_ends_all_that_runs_in_the_container(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sh", "-c", "sleep 100 & setsid sleep 100 & sleep 100")
    pids = [int(row[1]) for row in docker_world.engine.top(docker_world.inspect(handle)["Id"])["Processes"]]
    assert all(lives(pid) for pid in pids)

    docker_world.driver.kill(handle)

    docker_world.ended(handle)
    wait_until(lambda: not any(lives(pid) for pid in pids), "the end of all processes")


def test_signals_kills_and_removals_of_what_ended_or_is_gone_do_nothing(docker_world: DockerWorld) -> None:
    handle = docker_world.start("true")
    docker_world.ended(handle)

    for _ in range(2):
        docker_world.driver.signal(handle, "SIGTERM")
        docker_world.driver.kill(handle)
        docker_world.driver.remove(handle)

    assert docker_world.driver.status(handle).state == "gone"
    assert docker_world.containers() == []


def test_a_signal_of_no_known_name_is_said_to_be_none(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100")

    with pytest.raises(DriverError, match='"SIGNONE" is no signal'):
        docker_world.driver.signal(handle, "SIGNONE")

    assert docker_world.driver.status(handle).state == "running"


def test_a_running_task_is_not_removed(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100")

    with pytest.raises(DriverError, match="still runs") as failed:
        docker_world.driver.remove(handle)

    assert failed.value.temporary
    assert docker_world.driver.status(handle).state == "running"


def test_a_task_that_takes_more_memory_than_it_may_is_seen_as_oom_killed(docker_world: DockerWorld) -> None:
    handle = docker_world.start(
        "sh", "-c", "tail /dev/zero", resources=Resources(memory_bytes=Bytes(16 * 1024**2))
    )

    status = docker_world.ended(handle)

    assert (status.oom_killed, status.exit_code) == (True, 137)


def test_a_paused_task_runs_and_can_be_ended(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100")
    docker_world.engine.pause(docker_world.inspect(handle)["Id"])

    assert docker_world.driver.status(handle).state == "running"
    docker_world.driver.kill(handle)

    docker_world.ended(handle)


def test_the_end_of_a_task_wakes_its_allocation(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100")
    _settle(docker_world, handle)

    docker_world.driver.kill(handle)

    wait_until(lambda: handle.allocation_id in docker_world.woken, "the waking")


def test_a_container_removed_by_hand_wakes_its_allocation_and_is_gone(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100")
    _settle(docker_world, handle)

    docker_world.engine.remove_container(docker_world.inspect(handle)["Id"], force=True)

    wait_until(lambda: handle.allocation_id in docker_world.woken, "the waking")
    status = docker_world.driver.status(handle)
    assert (status.state, status.error) == ("gone", "its container was removed")


def test_a_container_that_is_being_removed_while_it_is_followed_ends_its_follower(
    docker_world: DockerWorld, tmp_path: Path
) -> None:
    """The engine refuses to read its log first and has no such container a moment later: no test can time that."""

    class InRemoval(Engine):
        def stream(self, *_: object, **__: object) -> NoReturn:
            docker_world.driver.remove(handle)
            raise EngineRefused(409, "can not get logs from container which is dead or marked for removal")

    handle = docker_world.start("true")
    container_id = docker_world.ended(handle).container_id or ""
    engine = InRemoval(docker_world.address)
    output = ContainerOutput(
        LogTarget(folder=str(tmp_path), max_files=1, max_bytes=1000), "server", 1, container_id
    )
    follower = LogFollower(engine, container_id, output)

    follower.begin()

    assert follower.done.wait(20)
    engine.close()


def test_what_another_hand_removes_at_the_same_time_is_removed(docker_world: DockerWorld) -> None:
    """Whoever comes second is told that it is under way."""
    own = docker_world.owner.cluster[:24]
    handles = [docker_world.start("true", allocation_id=f"{own}{number:08}") for number in range(8)]
    for handle in handles:
        docker_world.ended(handle)
    ids = [docker_world.inspect(handle)["Id"] for handle in handles]

    def by_hand(container: str) -> None:
        with (
            contextlib.closing(client(docker_world.address.host)) as engine,
            contextlib.suppress(docker.errors.APIError),
        ):
            engine.remove_container(container)

    with ThreadPoolExecutor(16) as threads:
        removals = [
            threads.submit(remove, one)  # type: ignore[arg-type]
            for handle, container in zip(handles, ids, strict=True)
            for remove, one in ((by_hand, container), (docker_world.driver.remove, handle))
        ]
        for removal in removals:
            removal.result()

    wait_until(lambda: docker_world.containers() == [], "the removal of all")


def test_a_container_put_in_the_place_of_the_tasks_is_not_the_task(docker_world: DockerWorld) -> None:
    """Another image or command under its name and labels: what was started is gone, the next start replaces it."""
    handle = docker_world.start("sleep", "100")
    before = docker_world.inspect(handle)
    docker_world.engine.remove_container(before["Id"], force=True)
    other = {**before["Config"], "Cmd": ["sleep", "99"], "HostConfig": before["HostConfig"]}
    docker_world.engine.start(docker_world.create(other, before["Name"].removeprefix("/")))

    assert docker_world.driver.status(handle).state == "gone"
    again = docker_world.start("sleep", "100", attempt=2)

    assert docker_world.inspect(again)["Config"]["Cmd"] == ["sleep", "100"]
    assert len(docker_world.containers()) == 1


def test_a_command_runs_in_the_container_as_its_user(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100", user="nobody", environment={"MODE": "prod"})

    code, output = docker_world.driver.execute(
        handle, ["sh", "-c", "id -u; echo $MODE; echo err >&2; exit 4"], _SECONDS
    )

    assert code == 4
    assert sorted(output.splitlines()) == ["65534", "err", "prod"]


def test_of_much_output_the_first_4_kib_are_kept(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100")

    code, output = docker_world.driver.execute(handle, ["seq", "1", "100000"], _SECONDS)

    assert code == 0
    assert len(output) == 4096
    assert output.startswith("1\n2\n")


def test_a_command_that_takes_too_long_is_ended(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100")
    begun = time.monotonic()

    found = docker_world.driver.execute(
        handle, ["sh", "-c", "echo begun; sleep 77"], Duration(milliseconds=300)
    )

    assert found == (124, "begun\n")
    assert time.monotonic() - begun < 5
    container = docker_world.inspect(handle)["Id"]
    wait_until(lambda: "sh -c echo begun" not in str(docker_world.engine.top(container)["Processes"]))


def test_a_program_the_image_does_not_have_is_an_exit_code_and_its_reason(docker_world: DockerWorld) -> None:
    handle = docker_world.start("sleep", "100")

    code, output = docker_world.driver.execute(handle, ["nosuch"], _SECONDS)

    assert code in {126, 127}
    assert "nosuch" in output


def test_no_command_runs_in_a_task_that_ended(docker_world: DockerWorld) -> None:
    handle = docker_world.start("true")
    docker_world.ended(handle)

    with pytest.raises(DriverError, match="nothing can be run in it"):
        docker_world.driver.execute(handle, ["true"], _SECONDS)


def _settle(world: DockerWorld, handle: TaskHandle) -> None:
    """Returns once the waking by the start was heard: what comes later is of something else."""
    wait_until(lambda: handle.allocation_id in world.woken, "the waking by the start")
    world.woken.clear()
