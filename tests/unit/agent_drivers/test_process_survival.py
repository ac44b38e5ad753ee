"""What outlives what: the death of agent, spawner, shim and machine, and pids that became another's."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.drivers.shim import records
from agent.drivers.task_folder import all_folders
from tests.unit.agent_drivers.process_world import (
    NO_CGROUPS,
    SECOND,
    ProcessWorld,
    kill_hard,
    lives,
    wait_until,
)

AGENT = """
import signal, sys
from pathlib import Path
from tests.unit.agent_drivers.process_world import NO_CGROUPS, ProcessWorld
world = ProcessWorld(Path(sys.argv[1]), cgroups=NO_CGROUPS if sys.argv[2] == "without" else None)
for number, script in enumerate(sys.argv[3:]):
    print(world.pid(world.shell(script, allocation=f"a{number}")), flush=True)
signal.pause()
"""
TICKER = "trap 'echo bye; exit 6' TERM; echo up; while :; do echo tick; sleep 0.02; done"


@contextlib.contextmanager
def an_agent(
    data: Path, cgroups: str, *scripts: str, read: int | None = None
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """An agent in a process of its own that starts a task for each script, and the tasks' pids (the first *read*)."""
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(data), cgroups, *scripts],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    with agent:
        try:
            assert agent.stdout is not None
            yield agent, [int(agent.stdout.readline()) for _ in scripts[:read]]
        finally:
            agent.kill()


def a_world(data: Path, cgroups: str) -> ProcessWorld:
    return ProcessWorld(data, cgroups=NO_CGROUPS if cgroups == "without" else None)


@pytest.fixture(params=["with", "without"])
def cgroups(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_tasks_outlive_a_killed_agent(tmp_path: Path, cgroups: str) -> None:
    """kill -9 of the agent: tasks run on and write their logs, and the next agent takes them up by pid."""
    with an_agent(tmp_path, cgroups, TICKER, TICKER) as (agent, pids):
        agent.kill()
        agent.wait()
    world = a_world(tmp_path, cgroups)
    try:
        assert set(world.driver.recover()) == {world.handle("a0"), world.handle("a1")}
        assert [world.pid(world.handle(f"a{number}")) for number in (0, 1)] == pids
        seen = len(world.log(allocation="a0"))
        wait_until(lambda: len(world.log(allocation="a0")) > seen + 50, "more output")
        assert world.shell(TICKER, allocation="a0") == world.handle("a0")
        assert world.pid(world.handle("a0")) == pids[0]
        assert world.driver.execute(world.handle("a0"), ["echo", "hello"], SECOND) == (0, "hello\n")
        world.driver.signal(world.handle("a0"), "SIGTERM")
        assert world.ended(world.handle("a0")).exit_code == 6
        assert world.log(allocation="a0").endswith("bye\n")
    finally:
        world.close()


def test_ends_while_no_agent_is_there(tmp_path: Path, cgroups: str) -> None:
    """Exit codes and signals of tasks that end without an agent are there for the next."""
    scripts = ("sleep 0.3; exit 5", "sleep 0.3; kill -USR1 $$", "sleep 0.3; echo last")
    with an_agent(tmp_path, cgroups, *scripts) as (agent, pids):
        agent.kill()
        agent.wait()
    wait_until(lambda: not any(map(lives, pids)))
    world = a_world(tmp_path, cgroups)
    try:
        assert set(world.driver.recover()) == {world.handle(f"a{number}") for number in range(3)}
        found = [world.ended(world.handle(f"a{number}")) for number in range(3)]
        assert [(status.exit_code, status.signal) for status in found] == [
            (5, None),
            (None, signal.SIGUSR1),
            (0, None),
        ]
        assert [status.pid for status in found] == pids
        assert world.log(allocation="a2") == "last\n"
    finally:
        world.close()


def test_killed_agent_takes_its_spawner_along(tmp_path: Path) -> None:
    """Shims stay, the spawner does not: agents that die again and again leave nothing behind."""
    with an_agent(tmp_path, "with", "exec sleep 60") as (agent, _):
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text("ascii").split()
        assert len(children) == 1
        agent.kill()
        agent.wait()
        wait_until(lambda: not lives(int(children[0])), "the spawner's end")
    ProcessWorld(tmp_path).close()


def test_agent_killed_while_it_starts_tasks(tmp_path: Path, cgroups: str) -> None:
    """Whatever was started when it died runs once: repeating every start adds those that are missing, no second."""
    count, started = 30, tmp_path / "started"
    script = f"echo $TRUEUP_ALLOC_ID >> {started}; exec sleep 60"
    with an_agent(tmp_path, cgroups, *[script] * count, read=5) as (agent, first_pids):
        agent.kill()
        agent.wait()
    world = a_world(tmp_path, cgroups)
    try:
        for number in range(count):
            world.shell(script, allocation=f"a{number}")
        assert [world.pid(world.handle(f"a{number}")) for number in range(5)] == first_pids
        wait_until(lambda: len(started.read_text().split()) >= count)
        assert sorted(started.read_text().split()) == sorted(
            world.id(f"a{number}") for number in range(count)
        )
    finally:
        world.close()


def test_spawner_is_started_again(world: ProcessWorld) -> None:
    """A killed spawner takes no task along, and the next start has a new one."""
    first = world.start("sleep", "60")
    spawner = world.driver._spawner.pid
    assert spawner is not None
    os.kill(spawner, signal.SIGKILL)
    second = world.start("sleep", "60", allocation="a2")
    assert world.driver._spawner.pid != spawner
    assert world.driver.status(first).state == world.driver.status(second).state == "running"


def test_killed_shim_takes_its_task_along(either_world: ProcessWorld) -> None:
    """A task without its shim would lose its output and its end: it ends too, daemons as well, and says why."""
    handle = either_world.shell("(setsid sh -c 'echo $$; exec sleep 60' &); sleep 60")
    pids = [int(either_world.lines(1)[0]), either_world.pid(handle)]
    kill_hard(either_world.run(handle).shim_pid)
    status = either_world.ended(handle)
    assert status.state == "exited"
    assert status.signal == signal.SIGKILL
    assert "shim" in status.error
    wait_until(lambda: not any(map(lives, pids)), "the end of what the shim watched")


def test_shim_killed_while_no_agent_is_there(tmp_path: Path, cgroups: str) -> None:
    """The next agent finds the shim gone, ends the rest, and the task is not running for ever."""
    with an_agent(tmp_path, cgroups, "exec sleep 60") as (agent, pids):
        agent.kill()
        agent.wait()
    (record,) = tmp_path.glob("agent/tasks/*/server/1/state.json")
    kill_hard(msgspec.json.decode(record.read_bytes())["shim_pid"])
    world = a_world(tmp_path, cgroups)
    try:
        assert list(world.driver.recover()) == [world.handle("a0")]
        assert world.ended(world.handle("a0")).signal == signal.SIGKILL
        wait_until(lambda: not lives(pids[0]))
    finally:
        world.close()


def test_reused_pid_is_never_signalled(either_world: ProcessWorld) -> None:
    """A process with the pids on record but another start time is a stranger: not shown, not signalled, not killed."""
    handle = either_world.start("sleep", "60")
    run = either_world.run(handle)
    kill_hard(run.shim_pid)
    either_world.ended(handle)
    folder = either_world.folder(handle).path
    with subprocess.Popen(["sleep", "60"]) as stranger:
        stat = Path(f"/proc/{stranger.pid}/stat").read_text()
        before = int(stat.rpartition(")")[2].split()[19]) - 1
        reused = msgspec.structs.replace(
            run, pid=stranger.pid, shim_pid=stranger.pid, start_ticks=before, shim_start_ticks=before
        )
        folder.joinpath("state.json").write_bytes(msgspec.json.encode(reused))
        folder.joinpath("exit.json").unlink()
        either_world.driver.signal(handle, "SIGKILL")
        either_world.driver.kill(handle)
        assert either_world.driver.status(handle).state == "exited"
        assert stranger.poll() is None
        stranger.kill()


def test_machine_was_restarted(world: ProcessWorld) -> None:
    """With another boot id all pids on record are void: nothing is signalled, and what ran is gone."""
    ended, running = world.shell("exit 3", allocation="a2"), world.start("sleep", "60")
    world.ended(ended)
    pid = world.pid(running)
    world.again(boot_id=lambda: "another boot")
    assert set(world.driver.recover()) == {ended, running}
    assert world.driver.status(ended).exit_code == 3
    status = world.driver.status(running)
    assert (status.state, status.error) == ("gone", "the machine was restarted")
    world.driver.signal(running, "SIGKILL")
    world.driver.kill(running)
    assert lives(pid)
    world.again()
    assert world.pid(running) == pid


def test_start_under_way(world: ProcessWorld) -> None:
    """A shim that was asked for by an agent which died, and has nothing on record yet, is not nothing."""
    folder = world.folder(world.handle("a0"))
    folder.make()
    descriptor = os.open(folder.path, os.O_RDONLY)
    claimed = records.claim(descriptor)
    assert claimed is not None
    assert records.claim(descriptor) is None
    assert world.driver.status(world.handle("a0")).state == "running"
    os.close(claimed)
    os.close(descriptor)
    assert world.driver.status(world.handle("a0")).state == "gone"
    world.driver.remove(world.handle("a0"))


def test_records_that_are_removed_while_they_are_listed(tmp_path: Path) -> None:
    """An allocation that goes meanwhile is left out, and all others are found."""
    for name in ("a1", "a2", "a3"):
        tmp_path.joinpath(name, "server", "1").mkdir(parents=True)
    listed = all_folders(tmp_path)
    first = next(listed)
    shutil.rmtree(tmp_path / "a2")
    assert [first.allocation_id, *(folder.allocation_id for folder in listed)] == ["a1", "a3"]


def test_two_drivers_on_one_folder(world: ProcessWorld) -> None:
    """An agent that was replaced while it still lived: both see the same task, and its end."""
    handle = world.shell("read line; sleep 0.2; exit 2")
    first = world.driver
    world.again()
    assert world.shell("read line; sleep 0.2; exit 2") == handle
    assert world.ended(handle).exit_code == first.status(handle).exit_code == 2
