"""Pids on record that the kernel gave to others meanwhile: on a machine whose pids the test gives out."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.namespaces import in_own_pids
from tests.require import require

pytestmark = pytest.mark.xdist_group("cgroups")

STORY = """
import os, signal, sys
from pathlib import Path
from agent.doors import DriverError
from tests.namespaces import a_process_with
from tests.unit.agent_drivers.process_world import NO_CGROUPS, SECOND, ProcessWorld, lives, wait_until

world = ProcessWorld(Path(sys.argv[1]), cgroups=NO_CGROUPS if sys.argv[2] == "without" else None)
handle = world.start("sleep", "600")
other = world.start("sleep", "600", allocation="a2")
run = world.run(handle)

# The agent dies, then the shim, which takes its task along: nobody is there to write down any end.
world.driver.close()
for pid in (run.shim_pid, run.pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), f"the end of {pid}")
assert world.folder(handle).end() is None

strangers = [a_process_with(pid, "sleep", "600") for pid in (run.pid, run.shim_pid)]
assert [stranger.pid for stranger in strangers] == [run.pid, run.shim_pid]

world.again()
assert set(world.driver.recover()) == {handle, other}
status = world.driver.status(handle)
assert status.state == "exited", status
assert status.signal == signal.SIGKILL, status
world.driver.signal(handle, "SIGTERM")
world.driver.signal(handle, "SIGKILL")
world.driver.kill(handle)
try:
    world.driver.execute(handle, ["true"], SECOND)
except DriverError as error:
    assert "has ended" in str(error), error
else:
    raise AssertionError("a command was run in a task that has ended")
assert world.driver.status(other).state == "running"
world.driver.remove(handle)
assert world.driver.status(handle).state == "gone"
assert [stranger.poll() for stranger in strangers] == [None, None]
assert all(lives(stranger.pid) for stranger in strangers)

# Nor by the next attempt's end.
again = world.start("sleep", "600", attempt=2)
assert world.driver.status(again).state == "running"
world.close()
assert [stranger.poll() for stranger in strangers] == [None, None]
for stranger in strangers:
    stranger.kill()
    stranger.wait()
print("told to the end")
"""


@pytest.mark.parametrize("cgroups", ["with", "without"])
def test_a_stranger_with_the_pid_on_record(tmp_path: Path, cgroups: str) -> None:
    """It is neither shown as the task nor signalled, killed or run commands beside; the task counts as ended."""
    require("namespaces")
    done = subprocess.run(
        in_own_pids(sys.executable, "-c", STORY, str(tmp_path), cgroups),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.endswith("told to the end\n"), done.stderr
