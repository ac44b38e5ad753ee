"""Umask and resource limits of process tasks: their own, whatever the agent's are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.doors import DriverError
from agent.drivers.ulimits import DEFAULTS, hard_limits
from tests.unit.agent_drivers.process_world import SECOND, ProcessWorld

ROWS = {
    "core": "Max core file size",
    "memlock": "Max locked memory",
    "nofile": "Max open files",
    "nproc": "Max processes",
    "stack": "Max stack size",
    "cpu": "Max cpu time",
}
ODD_AGENT = """
import os, resource, sys
from pathlib import Path
from tests.unit.agent_drivers.process_world import ProcessWorld
os.umask(0o077)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
resource.setrlimit(resource.RLIMIT_CORE, (77, 88))
resource.setrlimit(resource.RLIMIT_CPU, (3000, 4000))
world = ProcessWorld(Path(sys.argv[1]))
world.ended(world.shell("umask; cat /proc/self/limits"))
print(world.log())
try:
    world.start("true", allocation="a2", ulimits={"nofile": 4096})
except Exception as error:
    print("refused:", error)
print("told:", world.driver.fingerprint().attributes.get("ulimits"))
world.close()
"""


def limits_in(text: str) -> dict[str, tuple[str, str]]:
    """Soft and hard of what `/proc/self/limits` says."""
    found = {}
    for name, row in ROWS.items():
        (line,) = [line for line in text.splitlines() if line.startswith(row)]
        soft, hard = line[len(row) :].split()[:2]
        found[name] = (soft, hard)
    return found


def shown(limit: int) -> str:
    return "unlimited" if limit < 0 else str(limit)


def of_odd_agent(data: Path, *through: str) -> str:
    """What tasks of an agent with odd limits of its own say, and what it says itself."""
    return subprocess.run(
        [*through, sys.executable, "-c", ODD_AGENT, str(data)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ).stdout


def test_limits_are_not_those_of_the_agent(tmp_path: Path) -> None:
    """Nor its umask: a task starts the same on every node whose agent may raise a limit."""
    said = of_odd_agent(tmp_path)
    assert said.startswith("0022\n")
    found = limits_in(said)
    assert found["core"][0] == "0"
    assert found["stack"][0] == str(8 * 1024**2)
    if hard_limits() is None:
        assert found == {name: tuple(map(shown, DEFAULTS[name])) for name in ROWS}
        assert "refused" not in said
        assert "told: None" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has what is taken away here")
def test_an_agent_that_may_raise_nothing(tmp_path: Path) -> None:
    """The defaults come as near as they can; what was asked for is refused, and placement is told."""
    said = of_odd_agent(tmp_path, "setpriv", "--bounding-set", "-sys_resource")
    found = limits_in(said)
    assert found["nofile"] == ("200", "200")
    assert found["core"] == ("0", "88")
    assert found["cpu"] == ("4000", "4000")
    assert 'refused: cannot set the limit nofile for "true": Operation not permitted; it is more than' in said
    assert "core=88" in said
    assert "nofile=200" in said


def test_limits_that_a_task_asks_for(world: ProcessWorld) -> None:
    """One number or two, and its exec checks have them too."""
    handle = world.shell(
        "cat /proc/self/limits; sleep 60",
        ulimits={"nofile": {"soft": 64, "hard": 128}, "core": 0, "cpu": 500},
    )
    world.lines(17)
    found = limits_in(world.log())
    assert (found["nofile"], found["core"], found["cpu"]) == (("64", "128"), ("0", "0"), ("500", "500"))
    code, output = world.driver.execute(handle, ["sh", "-c", "ulimit -Sn; ulimit -Hn"], SECOND)
    assert (code, output) == (0, "64\n128\n")


def test_a_limit_that_there_is_not(world: ProcessWorld) -> None:
    with pytest.raises(DriverError, match=r"config\.ulimits: nofiles is no limit; there are as, core, cpu"):
        world.start("true", ulimits={"nofiles": 3})
    assert not world.driver.recover()


def test_a_limit_beyond_the_kernels(world: ProcessWorld) -> None:
    """Refused with what to do, and nothing is left of the start."""
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    with pytest.raises(DriverError, match=r'cannot set the limit nofile for "true".*config\.ulimits'):
        world.start("true", ulimits={"nofile": most + 1})
    assert not world.driver.recover()
