"""A task whose records were deleted while it ran: found by its cgroup, and in charge of the agent as before."""

import os
import shutil
import time

import pytest

from agent.doors import DriverError, TaskHandle
from tests.unit.agent_drivers.process_world import SECOND, ProcessWorld, kill_hard, lives, wait_until
from trueup.models.units import Duration

LONG = Duration(seconds=20)


@pytest.fixture
def tracked(world: ProcessWorld) -> ProcessWorld:
    if world.driver._cgroups.tracking is None:
        pytest.skip("without cgroups its folder is all that a task is known by")
    return world


def lose_records(world: ProcessWorld) -> None:
    """As `rm -r` of the data folder between two agents does."""
    world.driver.close()
    shutil.rmtree(world.data / "agent" / "tasks")
    world.again()


def found(world: ProcessWorld, handle: TaskHandle) -> TaskHandle:
    assert list(world.driver.recover()) == [handle]
    return handle


def test_it_is_found_with_its_pid_and_start(tracked: ProcessWorld) -> None:
    """What it was started as, whatever it started itself."""
    handle = tracked.shell("(setsid sleep 61 &); sleep 62 & exec sleep 60")
    before = tracked.driver.status(handle)
    lose_records(tracked)
    after = tracked.driver.status(found(tracked, handle))
    assert (after.state, after.pid) == ("running", before.pid)
    assert before.started_at is not None
    assert after.started_at is not None
    assert abs((after.started_at - before.started_at).total_seconds()) < 1


def test_the_same_start_finds_it(tracked: ProcessWorld) -> None:
    """Although nothing is on record: nothing starts twice."""
    handle = tracked.start("sleep", "60")
    pid = tracked.pid(handle)
    lose_records(tracked)
    assert tracked.start("sleep", "60") == handle
    assert tracked.pid(handle) == pid


def test_its_signal_reaches_it_and_its_exit_code_is_known(tracked: ProcessWorld) -> None:
    """Its shim writes down the end in the folder that is there now, and the agent is woken."""
    handle = tracked.shell("trap 'exit 6' TERM; echo up; while :; do sleep 0.02; done")
    tracked.lines(1)
    lose_records(tracked)
    tracked.driver.signal(found(tracked, handle), "SIGTERM")
    status = tracked.ended(handle)
    assert (status.state, status.exit_code) == ("exited", 6)


def test_it_is_killed_with_all_it_started(tracked: ProcessWorld) -> None:
    """Daemons too."""
    handle = tracked.shell("setsid sleep 61 & echo $!; exec sleep 60")
    pids = [int(tracked.lines(1)[0]), tracked.pid(handle)]
    lose_records(tracked)
    tracked.driver.kill(found(tracked, handle))
    assert tracked.ended(handle).signal == 9
    wait_until(lambda: not any(map(lives, pids)))
    tracked.driver.remove(handle)
    assert tracked.driver.status(handle).state == "gone"


def test_records_are_deleted_under_the_agent(tracked: ProcessWorld) -> None:
    """They are written anew when it is next asked for."""
    handle = tracked.start("sleep", "60")
    pid = tracked.pid(handle)
    shutil.rmtree(tracked.data / "agent" / "tasks")
    assert tracked.pid(handle) == pid
    assert tracked.run(handle).rebuilt


def test_its_shim_is_killed_later(tracked: ProcessWorld) -> None:
    """It goes with it, as any task does."""
    handle = tracked.start("sleep", "60")
    lose_records(tracked)
    found(tracked, handle)
    kill_hard(tracked.run(handle).shim_pid)
    status = tracked.ended(handle)
    assert status.state in {"exited", "gone"}
    wait_until(lambda: not lives(tracked.run(handle).pid))


def test_exec_checks_run_in_its_surroundings(tracked: ProcessWorld) -> None:
    """Environment, folder, user, limits and cgroup of the command are those of its task."""
    script = "pwd; echo $GREETING; id -u; id -G; cat /proc/self/limits /proc/self/cgroup; ls /proc/$$/fd"
    user = "nobody" if os.geteuid() == 0 else ""
    fields = {"environment": {"GREETING": "hello"}, "ulimits": {"nofile": 99, "core": -1}}
    handle = tracked.shell(f"{script}; sleep 60", user=user, cwd="/", **fields)
    wait_until(lambda: tracked.log().endswith("0\n1\n2\n"))
    said = tracked.log()
    lose_records(tracked)
    assert tracked.driver.execute(found(tracked, handle), ["sh", "-c", script], LONG) == (0, said)


@pytest.mark.parametrize(
    ("command", "code", "output"),
    [
        (["sh", "-c", "echo out; echo err >&2"], 0, "out\nerr\n"),
        (["sh", "-c", "echo no; exit 3"], 3, "no\n"),
        (["sh", "-c", "kill -TERM $$"], 143, ""),
        (["sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; exit 1"], 1, "x" * 4096),
    ],
)
def test_exit_code_and_output(tracked: ProcessWorld, command: list[str], code: int, output: str) -> None:
    handle = tracked.start("sleep", "60")
    lose_records(tracked)
    assert tracked.driver.execute(found(tracked, handle), command, LONG) == (code, output)


def test_command_that_is_missing(tracked: ProcessWorld) -> None:
    handle = tracked.start("sleep", "60")
    lose_records(tracked)
    code, output = tracked.driver.execute(found(tracked, handle), ["no-such-program"], LONG)
    assert code == 127
    assert 'cannot start "no-such-program": No such file or directory' in output


def test_command_that_takes_too_long(tracked: ProcessWorld) -> None:
    """It is ended with what it started; the task is not touched."""
    handle = tracked.start("sleep", "60")
    lose_records(tracked)
    began = time.monotonic()
    code, output = tracked.driver.execute(
        found(tracked, handle), ["sh", "-c", "echo $$; sleep 61 & echo $!; wait"], Duration(seconds=2)
    )
    assert code == 124
    assert time.monotonic() - began < 30
    wait_until(lambda: not any(lives(int(pid)) for pid in output.split()), "the command's end")
    assert tracked.driver.status(handle).state == "running"


def test_command_in_a_task_that_has_ended(tracked: ProcessWorld) -> None:
    handle = tracked.start("sleep", "60")
    lose_records(tracked)
    tracked.driver.kill(found(tracked, handle))
    tracked.ended(handle)
    with pytest.raises(DriverError, match="has ended"):
        tracked.driver.execute(handle, ["true"], SECOND)
