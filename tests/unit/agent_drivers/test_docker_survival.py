"""Containers, their output and what is known of them, over the death of agents and engines."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agent.doors import DriverError, TaskHandle
from agent.drivers.docker_driver import DockerDriver
from agent.drivers.docker_engine import Engine as DockerClient
from agent.drivers.docker_engine import EngineAddress, engine_address
from agent.drivers.docker_owner import Owner
from agent.drivers.docker_policy import DockerPolicy
from tests.docker_engine import Engine
from tests.unit.agent_drivers.docker_world import DockerWorld, MakeDockerWorld
from tests.unit.agent_drivers.process_world import wait_until
from trueup.models.ids import AllocationId
from trueup.models.job import LogLimits
from trueup.models.units import Bytes

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

_COUNTING = "i=0; while [ $i -lt 3000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"

_AN_AGENT = """
import sys, threading
from agent.drivers.docker_driver import DockerDriver
from agent.drivers.docker_engine import EngineAddress
from agent.drivers.docker_policy import DockerPolicy
from agent.drivers.docker_owner import Owner
owner = Owner(cluster=sys.argv[2], node="node-1")
address = EngineAddress(host=sys.argv[1])
driver = DockerDriver(address, lambda _: None, owner=owner, policy=DockerPolicy())
print(len(driver.recover()), end="", flush=True)
threading.Event().wait()
"""


def test_a_new_agent_finds_its_containers_and_nobody_elses(make_docker_world: MakeDockerWorld) -> None:
    """Two nodes of one cluster, and another cluster, on one engine."""
    mine = make_docker_world()
    other_node = make_docker_world(cluster=mine.owner.cluster, node="node-2")
    other_cluster = make_docker_world()
    running = mine.start("sleep", "100")
    ended = mine.start("true", task="once")
    mine.ended(ended)
    other_node.start("sleep", "100", allocation_id="b" * 32)
    other_cluster.start("sleep", "100")
    pid = mine.driver.status(running).pid

    mine.restart()

    assert sorted(mine.driver.recover(), key=lambda handle: handle.task) == [ended, running]
    assert mine.driver.status(running).pid == pid
    assert mine.driver.status(ended).exit_code == 0


def test_output_goes_on_where_the_last_agent_left_off(docker_world: DockerWorld) -> None:
    """Neither lost nor doubled, however often the agent is restarted while the task writes."""
    handle = docker_world.start("sh", "-c", _COUNTING)
    while docker_world.driver.status(handle).state == "running":
        docker_world.restart()
        docker_world.driver.recover()

    docker_world.driver.remove(handle)

    assert docker_world.output(handle).splitlines() == [f"out {number}" for number in range(3000)]
    assert docker_world.output(handle, "stderr").splitlines() == [f"err {number}" for number in range(3000)]
    marks = docker_world.folder / handle.allocation_id / "logs" / "server.stdout.marks"
    assert [line.split()[0] for line in marks.read_text().splitlines()].count("start") == 1


def test_output_is_exact_over_agents_that_are_killed(docker_world: DockerWorld) -> None:
    """At any instant, with the signal that leaves no time to note anything."""
    handle = docker_world.start("sh", "-c", _COUNTING)
    docker_world.driver.close()
    for _ in range(3):
        agent = subprocess.Popen(
            [sys.executable, "-c", _AN_AGENT, docker_world.address.host, docker_world.owner.cluster],
            stdout=subprocess.PIPE,
        )
        with agent:
            assert agent.stdout is not None
            assert agent.stdout.read(1) == b"1"
            _await_lines(docker_world, handle, docker_world.output(handle).count("\n") + 100)
            agent.kill()

    docker_world.restart()
    docker_world.driver.recover()
    docker_world.ended(handle)
    docker_world.driver.remove(handle)

    assert docker_world.output(handle).splitlines() == [f"out {number}" for number in range(3000)]
    assert docker_world.output(handle, "stderr").splitlines() == [f"err {number}" for number in range(3000)]


def test_output_is_exact_though_the_last_agent_died_before_it_noted_how_far_it_was(
    docker_world: DockerWorld,
) -> None:
    """The position is that of the begin; what was written since is told by its length."""
    handle = docker_world.start(
        "sh",
        "-c",
        "echo 1; echo 2; while [ ! -e $0/on ]; do sleep 0.05; done; echo 3",
        str(docker_world.launch().task_dir),
    )
    position = docker_world.folder / handle.allocation_id / "logs" / "server.position"
    wait_until(lambda: docker_world.output(handle) == "1\n2\n")
    docker_world.driver.close()
    at_begin = position.read_text().split('"streams"')[0] + (
        '"streams":{"stdout":{"at":"","same":0,"offset":0},"stderr":{"at":"","same":0,"offset":0}}}'
    )
    position.write_text(at_begin)

    docker_world.restart()
    docker_world.driver.recover()
    (docker_world.launch().task_dir / "on").touch()
    docker_world.ended(handle)
    docker_world.driver.remove(handle)

    assert docker_world.output(handle) == "1\n2\n3\n"


def test_output_written_while_no_agent_ran_is_there_after_the_removal(docker_world: DockerWorld) -> None:
    """Also of a task that ended meanwhile."""
    handle = docker_world.start("sh", "-c", "sleep 0.3; echo late; printf unended")
    docker_world.driver.close()
    wait_until(lambda: docker_world.containers()[0]["State"] == "exited", "the end")

    docker_world.restart()
    [found] = docker_world.driver.recover()
    docker_world.driver.remove(found)

    assert docker_world.output(handle).splitlines() == ["late", "unended"]


def test_output_is_rotated_and_kept_within_its_limit(docker_world: DockerWorld) -> None:
    handle = docker_world.start(
        "seq", "1", "3000", logs=LogLimits(max_files=3, max_size=Bytes(2000)), task="counter"
    )
    docker_world.ended(handle)
    docker_world.driver.remove(handle)

    logs = docker_world.folder / handle.allocation_id / "logs"
    parts = [logs / f"counter.stdout{number}" for number in (".2", ".1", "")]
    lines = "".join(part.read_text() for part in parts).splitlines()

    assert all(part.stat().st_size <= 2000 for part in parts)
    assert not (logs / "counter.stdout.3").exists()
    assert lines == [str(number) for number in range(int(lines[0]), 3001)]


def test_a_long_line_without_an_end_arrives_whole(docker_world: DockerWorld) -> None:
    """The engine cuts it in pieces of 16 KiB."""
    said = docker_world.run("sh", "-c", "head -c 50000 /dev/zero | tr '\\0' x")

    assert said.strip() == "x" * 50000


def test_an_agent_that_lost_its_folder_finds_its_containers_and_nobody_elses(
    make_docker_world: MakeDockerWorld,
) -> None:
    """It has another id then; what it made before it had a tag of its own is the id's alone."""
    cluster = uuid.uuid4().hex
    mine = make_docker_world(cluster=cluster, node="id-1", agent="tag-1")
    other = make_docker_world(cluster=cluster, node="id-2", agent="tag-2")
    untagged = make_docker_world(cluster=cluster, node="id-1")
    handle = mine.start("sleep", "100")
    other.start("sleep", "100", allocation_id="b" * 32)
    earlier = untagged.start("sleep", "100", allocation_id="c" * 32)
    assert {one.allocation_id for one in mine.driver.recover()} == {handle.allocation_id, "c" * 32}

    mine.owner = replace(mine.owner, node="id-3")
    mine.restart()

    assert list(mine.driver.recover()) == [handle]
    assert mine.driver.status(handle).state == "running"
    assert mine.start("sleep", "100") == handle
    mine.woken.clear()
    mine.driver.kill(handle)
    wait_until(lambda: mine.woken, "the news of its end")
    mine.driver.kill(earlier)
    assert untagged.driver.status(earlier).state == "running"
    with pytest.raises(DriverError, match="not this agent's is named"):
        mine.start("sleep", "100", allocation_id="b" * 32)
    assert set(mine.woken) == {handle.allocation_id}


def test_a_machine_without_an_engine_offers_no_docker_and_has_no_containers(tmp_path: Path) -> None:
    driver = _driver(EngineAddress(host=f"unix://{tmp_path}/none.sock"))

    assert driver.fingerprint() is None
    assert list(driver.recover()) == []
    # Once one of its tasks is known, the engine is away, and nobody can say what runs.
    handle = TaskHandle(driver="docker", allocation_id=AllocationId("a"), task="server", attempt=1, data="")
    for ask in (lambda: driver.status(handle), driver.recover):
        with pytest.raises(DriverError, match="No such file") as failed:
            ask()
        assert failed.value.temporary
    driver.close()


def test_an_engine_that_is_named_and_absent_is_one_to_see_to(tmp_path: Path) -> None:
    driver = _driver(EngineAddress(host=f"unix://{tmp_path}/none.sock", chosen=True))

    state = driver.fingerprint()
    with pytest.raises(DriverError, match=r"no Docker engine answers at .*No such file"):
        driver.recover()
    driver.close()

    assert state is not None
    assert (state.healthy, "No such file" in state.detail) == (False, True)


def test_an_engine_that_refuses_connections_is_one_to_see_to(tmp_path: Path) -> None:
    """Docker is installed and does not run: the node says so, though nobody named the engine."""
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(f"{tmp_path}/docker.sock")
    driver = _driver(EngineAddress(host=f"unix://{tmp_path}/docker.sock"))

    state = driver.fingerprint()
    driver.close()

    assert state is not None
    assert (state.healthy, "Connection refused" in state.detail) == (False, True)


def test_the_engine_of_the_environment_is_used_unless_settings_name_one() -> None:
    environment = {"DOCKER_HOST": "unix:///run/user/1000/docker.sock"}

    assert engine_address(environment) == EngineAddress(host=environment["DOCKER_HOST"], chosen=True)
    assert engine_address(environment, "unix:///x.sock").host == "unix:///x.sock"
    assert engine_address({}) == EngineAddress(host="unix:///var/run/docker.sock", chosen=False)


def test_a_healthy_engine_says_its_version_and_what_policy_allows(docker_world: DockerWorld) -> None:
    state = docker_world.driver.fingerprint()

    assert state is not None
    assert state.healthy
    assert state.attributes["version"]
    assert (state.attributes["privileged"], state.attributes["network_modes"]) == ("false", "bridge,none")


@pytest.fixture
def own_engine() -> Iterator[Engine]:
    engine = Engine(Path(tempfile.mkdtemp(prefix="tu-", dir="/tmp")), live_restore=True)
    engine.start()
    yield engine
    engine.destroy()


def test_an_engine_that_dies_and_comes_back(own_engine: Engine, tmp_path: Path) -> None:
    """Nothing is taken for ended while it is away; afterwards all is looked at, and output goes on."""
    world = DockerWorld(tmp_path, own_engine.host)
    try:
        handle = world.start("sh", "-c", "i=0; while true; do echo $i; i=$((i+1)); sleep 0.02; done")
        pid = world.driver.status(handle).pid
        wait_until(lambda: world.output(handle).count("\n") > 5)

        own_engine.kill()
        for ask in (world.driver.status, world.driver.kill, world.driver.remove):
            with pytest.raises(DriverError) as failed:
                ask(handle)
            assert failed.value.temporary
        state = world.driver.fingerprint()
        assert state is not None
        assert not state.healthy
        world.woken.clear()

        own_engine.start()
        wait_until(lambda: handle.allocation_id in world.woken, "the waking")
        assert world.driver.status(handle).pid == pid
        written = world.output(handle).count("\n")
        wait_until(lambda: world.output(handle).count("\n") > written + 10)

        world.driver.kill(handle)
        world.ended(handle)
        world.driver.remove(handle)
        lines = world.output(handle).splitlines()
        assert lines == [str(number) for number in range(len(lines))]
    finally:
        world.close()


def test_an_engine_that_hangs_holds_up_no_look_at_it(own_engine: Engine) -> None:
    driver = _driver(EngineAddress(host=own_engine.host, chosen=True))
    assert driver.fingerprint() is not None
    assert own_engine.pid is not None
    os.kill(own_engine.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        state = driver.fingerprint()
        assert time.monotonic() - begun < 5
    finally:
        os.kill(own_engine.pid, signal.SIGCONT)
        driver.close()

    assert state is not None
    assert "kept silent until the deadline" in state.detail


def test_as_many_calls_as_there_are_threads_have_connections_that_are_kept(
    own_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """All at once, on an engine that answers none before all have asked; later calls need no new ones."""
    asked = DockerClient(EngineAddress(host=own_engine.host, chosen=True))
    asked.ping()
    before = psutil.Process().num_fds()
    assert own_engine.pid is not None
    os.kill(own_engine.pid, signal.SIGSTOP)
    try:
        with caplog.at_level("WARNING", "urllib3.connectionpool"), ThreadPoolExecutor(64) as threads:
            calls = [threads.submit(asked.ping) for _ in range(64)]
            # One has the connection that was kept.
            wait_until(lambda: psutil.Process().num_fds() >= before + 63, "all of the calls")
            os.kill(own_engine.pid, signal.SIGCONT)
            for call in calls:
                call.result()
    finally:
        os.kill(own_engine.pid, signal.SIGCONT)
        asked.close()

    assert caplog.messages == []


def _await_lines(world: DockerWorld, handle: TaskHandle, count: int) -> None:
    wait_until(lambda: world.output(handle).count("\n") >= min(count, 3000), "more output")


def _driver(address: EngineAddress) -> DockerDriver:
    return DockerDriver(
        address, lambda _: None, owner=Owner(cluster="c", node="node-1"), policy=DockerPolicy()
    )
