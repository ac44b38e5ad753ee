"""The spawner: one process that forks shims, replaced when it is gone or hangs."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.doors import DriverError
from agent.drivers.exit_watch import ExitWatch
from agent.drivers.identity import open_process, read_boot_id
from agent.drivers.spawner import Spawner
from tests.unit.agent_drivers.process_world import ProcessWorld, lives, wait_until


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[Spawner]:
    made = Spawner(tmp_path / "scratch", [], timeout_seconds=1)
    yield made
    made.close()


def test_rehearsal_leaves_nothing(spawner: Spawner, tmp_path: Path) -> None:
    """What the spawner runs to warm itself up is gone when the first order is answered."""
    spawner.warm_up()
    with pytest.raises(DriverError, match="no shim could be forked"):
        spawner.order({"nonsense": True})
    assert not list((tmp_path / "scratch").iterdir())


def test_rehearsal_that_cannot_be(tmp_path: Path) -> None:
    """A spawner without a folder to rehearse in works all the same."""
    tmp_path.joinpath("scratch").touch()
    spawner = Spawner(tmp_path / "scratch", [])
    answer = spawner.order({"folder": str(tmp_path / "absent")} | ORDER)
    spawner.close()
    assert answer["step"] == "prepare"
    assert answer["path"] == str(tmp_path / "absent")


def test_spawner_that_hangs(spawner: Spawner, tmp_path: Path) -> None:
    """An order that is not answered in time fails for now, and the next has a new spawner."""
    spawner.warm_up()
    first = spawner.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(DriverError, match="did not answer in time") as failure:
        spawner.order({"folder": str(tmp_path / "absent")} | ORDER)
    assert failure.value.temporary
    assert not lives(first)
    spawner._timeout_seconds = 30
    assert "step" in spawner.order({"folder": str(tmp_path / "absent")} | ORDER)
    assert spawner.pid != first


def test_spawner_and_shims_are_nobodys_children(world: ProcessWorld) -> None:
    """Neither has a session, a folder or a descriptor of the agent's, and a shim leaves no zombie."""
    handle = world.start("sleep", "60")
    shim, spawner = world.run(handle).shim_pid, world.driver._spawner.pid
    assert spawner is not None
    assert os.getsid(shim) == shim
    assert os.getsid(spawner) == spawner
    assert os.readlink(f"/proc/{spawner}/cwd") == "/"  # noqa: PTH115
    assert Path(f"/proc/{spawner}/comm").read_text() == "trueup-spawner\n"
    assert Path(f"/proc/{shim}/comm").read_text() == "trueup-shim\n"
    assert Path(f"/proc/{spawner}/environ").read_bytes() == b""
    world.driver.kill(handle)
    world.ended(handle)
    wait_until(lambda: not Path(f"/proc/{shim}").exists())


def test_shim_is_small(world: ProcessWorld) -> None:
    """A shim adds little memory of its own (the benchmark measures it among many)."""
    world.ended(world.start("true", attempt=1))
    shim = world.run(world.start("sleep", "60", attempt=2)).shim_pid
    rollup = Path(f"/proc/{shim}/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
    assert private < 2048


def test_exit_watch_sees_what_ended_before(tmp_path: Path) -> None:
    """A process that is gone by the time it is watched is reported all the same, once, and its key is free again."""
    seen: list[object] = []
    changed = threading.Condition()

    def on_end(key: object) -> None:
        with changed:
            seen.append(key)
            changed.notify_all()

    watch = ExitWatch(on_end)
    child = os.posix_spawn("/bin/true", ["true"], {})
    descriptor = os.pidfd_open(child)
    watch.add("child", descriptor)
    with changed:
        assert changed.wait_for(lambda: seen == ["child"], timeout=10)
    assert not watch.watches("child")
    watch.close()
    watch.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(child, 0)  # It was reaped: as the first process of a container the agent has to.


def test_process_of_another_boot(world: ProcessWorld) -> None:
    """Boot id, pid and start time all have to match for a process to be opened."""
    main = world.run(world.start("sleep", "60")).main
    opened = open_process(main, read_boot_id())
    assert opened is not None
    os.close(opened)
    assert open_process(main, "another boot") is None


ORDER: dict[str, object] = {
    "attempt": 1,
    "boot_id": "b",
    "command": ["true"],
    "environment": {},
    "cwd": "/",
    "uid": None,
    "gid": None,
    "groups": [],
    "oom_score": 0,
    "cgroups": [],
    "logs": {"folder": "/", "name": "x", "max_files": 1, "max_bytes": 1},
}
