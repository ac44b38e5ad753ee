"""Commands run in a task's surroundings, as exec checks are."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.doors import DriverError
from tests.unit.agent_drivers.process_world import SECOND, ProcessWorld, descriptors_of, lives, wait_until
from trueup.models.units import Duration

LONG = Duration(seconds=20)


@pytest.mark.parametrize(
    ("script", "code", "output"),
    [
        ("echo out; echo err >&2", 0, "out\nerr\n"),
        ("echo no; exit 3", 3, "no\n"),
        ("kill -TERM $$", 143, ""),
        ("printf 'gr\\303\\274n\\377'", 0, "grün\N{REPLACEMENT CHARACTER}"),
        ("head -c 100000 /dev/zero | tr '\\0' x; exit 1", 1, "x" * 4096),
    ],
)
def test_exit_code_and_output(world: ProcessWorld, script: str, code: int, output: str) -> None:
    """Exit code (128 + n by signal n) and both streams as one, their first 4 KiB."""
    handle = world.start("sleep", "60")
    assert world.driver.execute(handle, ["sh", "-c", script], LONG) == (code, output)


def test_surroundings_are_the_tasks(either_world: ProcessWorld) -> None:
    """Environment, folder, user and cgroup of the command are those of its task."""
    script = "pwd; echo $GREETING; id -u; cat /proc/self/cgroup; ls /proc/$$/fd"
    user = "nobody" if os.geteuid() == 0 else ""
    handle = either_world.shell(f"{script}; sleep 60", environment={"GREETING": "hello"}, user=user, cwd="/")
    wait_until(lambda: either_world.log().endswith("0\n1\n2\n"))
    assert either_world.driver.execute(handle, ["sh", "-c", script], LONG) == (0, either_world.log())


def test_command_that_is_missing(world: ProcessWorld) -> None:
    """A command that cannot be started is a failed check that says why."""
    handle = world.start("sleep", "60")
    code, output = world.driver.execute(handle, ["no-such-program"], SECOND)
    assert code == 127
    assert 'cannot start "no-such-program": No such file or directory' in output


def test_command_that_takes_too_long(world: ProcessWorld) -> None:
    """It is ended with what it started, and its code is that of timeout(1); the task is not touched."""
    handle = world.start("sleep", "60")
    began = time.monotonic()
    code, output = world.driver.execute(
        handle, ["sh", "-c", "echo $$; sleep 61 & echo $!; wait"], Duration(milliseconds=300)
    )
    assert code == 124
    assert time.monotonic() - began < 30
    wait_until(lambda: not any(lives(int(pid)) for pid in output.split()), "the command's end")
    assert world.driver.status(handle).state == "running"


def test_side_by_side(world: ProcessWorld) -> None:
    """Commands in one task do not wait for each other: these five end only once all of them run."""
    handle = world.start("sleep", "60")
    script = "touch {0}; while [ $(ls | wc -l) -lt 5 ]; do sleep 0.02; done; exit {0}"

    def run(number: int) -> tuple[int, str]:
        return world.driver.execute(handle, ["sh", "-c", script.format(number)], LONG)

    with ThreadPoolExecutor(5) as threads:
        assert list(threads.map(run, range(5))) == [(number, "") for number in range(5)]


def test_task_that_ended(world: ProcessWorld) -> None:
    """A command ends with its task; afterwards nothing can be run in it."""
    handle = world.shell("sleep 0.3")
    assert world.driver.execute(handle, ["sleep", "60"], LONG) == (128 + signal.SIGKILL, "")
    world.ended(handle)
    with pytest.raises(DriverError, match="task server has ended"):
        world.driver.execute(handle, ["true"], SECOND)


def test_after_many_commands(world: ProcessWorld) -> None:
    """A check each second for a long time leaves nothing open in agent or shim."""
    handle = world.start("sleep", "60")
    world.driver.execute(handle, ["true"], LONG)
    shim = world.run(handle).shim_pid
    before = descriptors_of("self"), descriptors_of(shim)
    for _ in range(10):
        world.driver.execute(handle, ["true"], LONG)
        world.driver.execute(handle, ["no-such-program"], LONG)
        world.driver.execute(handle, ["sleep", "60"], Duration(milliseconds=1))
    wait_until(lambda: descriptors_of("self") <= before[0] and descriptors_of(shim) <= before[1])
