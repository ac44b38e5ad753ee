"""An agent that may open no more files takes no task for one that has ended."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from agent.doors import DriverError
from tests.unit.agent_drivers.process_world import ProcessWorld, kill_hard, lives, wait_until


@contextmanager
def no_files_left(spare: int) -> Iterator[None]:
    """Until then this process may open only so many files more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/dev/null", os.O_RDONLY)]
    limit = max(int(name) for name in os.listdir("/proc/self/fd")) + 64  # noqa: PTH208 - names are all it takes
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    with suppress(OSError):
        while len(taken) < limit:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    for _ in range(spare):
        os.close(taken.pop())
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in taken:
            os.close(one)


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_a_task_that_runs_is_not_taken_for_gone(world: ProcessWorld, spare: int) -> None:
    """Neither by the agent that watches it nor by the next, whatever the call at which nothing is left."""
    handle = world.start("sleep", "60")
    pid = world.pid(handle)
    world.again()
    with no_files_left(spare), suppress(DriverError, OSError):
        assert world.driver.status(handle).state == "running"
    assert lives(pid)
    assert world.driver.status(handle).pid == pid


@pytest.mark.parametrize("spare", [0, 1, 2, 3])
def test_what_a_killed_shim_left_is_ended_as_soon_as_it_can_be(world: ProcessWorld, spare: int) -> None:
    """Not called ended before: what it started would run beside its successor."""
    handle = world.shell("(setsid sh -c 'echo $$; exec sleep 60' &); sleep 60")
    pids = [int(world.lines(1)[0]), world.pid(handle)]
    shim = world.run(handle).shim_pid
    with no_files_left(spare):
        os.kill(shim, signal.SIGKILL)
        wait_until(lambda: world.wakes("a1") > 0, "the wake")
        with suppress(DriverError, OSError):
            world.driver.status(handle)
    assert world.ended(handle).state == "exited"
    wait_until(lambda: not any(map(lives, pids)), "the end of what the shim watched")


def test_an_end_that_could_not_be_looked_at_is_seen_later(world: ProcessWorld) -> None:
    """The agent is woken all the same, and goes on watching the others."""
    first, second = world.start("sleep", "60"), world.start("sleep", "60", allocation="a2")
    pid = world.pid(first)
    with no_files_left(0):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: world.wakes("a1") > 0, "the wake")
    assert world.ended(first).state == "exited"
    kill_hard(world.pid(second))
    assert world.ended(second).state == "exited"
