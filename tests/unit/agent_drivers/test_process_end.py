"""How a process task ends: by itself, by a signal, killed with all it started, out of memory."""

import contextlib
import json
import os
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.doors import DriverError
from tests.unit.agent_drivers.process_world import ProcessWorld, lives, wait_until


@pytest.mark.parametrize(
    ("script", "exit_code", "number"),
    [
        ("exit 0", 0, None),
        ("exit 3", 3, None),
        ("exit 255", 255, None),
        ("kill -TERM $$", None, signal.SIGTERM),
        ("kill -SEGV $$", None, signal.SIGSEGV),
        ("kill -KILL $$", None, signal.SIGKILL),
    ],
)
def test_exit_is_recorded(
    either_world: ProcessWorld, script: str, exit_code: int | None, number: int | None
) -> None:
    """Exit code or signal, and when it began and ended; the agent is woken for it."""
    before = datetime.now(UTC)
    handle = either_world.shell(script)
    status = either_world.ended(handle)
    assert status.state == "exited"
    assert (status.exit_code, status.signal) == (exit_code, number)
    assert not status.oom_killed
    assert status.started_at is not None
    assert status.finished_at is not None
    assert before <= status.started_at <= status.finished_at <= datetime.now(UTC)
    wait_until(lambda: either_world.wakes("a1") == 1)


def test_exit_is_durable(world: ProcessWorld) -> None:
    """The end is on disk before anybody hears of it, in a file that was synced and renamed into place."""
    handle = world.shell("exit 7")
    world.ended(handle)
    folder = world.folder(handle).path
    assert json.loads(folder.joinpath("exit.json").read_bytes())["exit_code"] == 7
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["exit.json", "state.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_full_disk(tmp_path: Path) -> None:
    """With no room for records a start fails for now, and the end of what runs is recorded all the same."""
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], check=False
    ).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        world = ProcessWorld(tmp_path)
        handle = world.shell("trap 'exit 8' TERM; echo up; while :; do sleep 0.05; done")
        world.lines(1)
        ballast = tmp_path / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as filling:
            while True:
                filling.write(bytes(4096))
        with pytest.raises(DriverError) as failure:
            world.start("true", allocation="a2")
        assert failure.value.temporary
        assert "No space left on device" in str(failure.value)
        world.driver.signal(handle, "SIGTERM")
        assert world.ended(handle).exit_code == 8
        ballast.unlink()
        assert world.ended(world.start("true", allocation="a2")).exit_code == 0
        world.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_signal_reaches_the_main_process(world: ProcessWorld) -> None:
    """A signal goes to the task's own process, which may do with it what it likes."""
    handle = world.shell(
        "trap 'echo reloaded' HUP; trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    )
    world.lines(1)
    world.driver.signal(handle, "SIGHUP")
    assert world.lines(2) == ["up", "reloaded"]
    world.driver.signal(handle, "SIGTERM")
    assert world.ended(handle).exit_code == 9
    assert world.log().splitlines()[-1] == "bye"
    world.driver.signal(handle, "SIGTERM")  # To one that has ended: nothing.


def test_signal_of_no_such_name(world: ProcessWorld) -> None:
    """A signal that this machine does not know is refused."""
    handle = world.start("sleep", "60")
    for name in ("SIGNOPE", "TERM", "SIG_DFL", "__doc__"):
        with pytest.raises(DriverError, match="is no signal"):
            world.driver.signal(handle, name)


def test_kill_ends_what_ignores_signals(either_world: ProcessWorld) -> None:
    """SIGTERM ignored, or stopped: killed all the same."""
    stubborn = either_world.shell("trap '' TERM INT HUP; echo up; while :; do sleep 1; done")
    stopped = either_world.shell("kill -STOP $$", allocation="a2")
    either_world.lines(1)
    wait_until(lambda: _state(either_world.pid(stopped)) == "T")
    either_world.driver.signal(stubborn, "SIGTERM")
    for handle in (stubborn, stopped):
        either_world.driver.kill(handle)
        assert either_world.ended(handle).signal == signal.SIGKILL
        either_world.driver.kill(handle)  # Again: nothing.


DAEMONS = """
(setsid sh -c 'echo $$; exec sleep 60' &)
(sh -c 'trap "" TERM HUP; (setsid sh -c "echo \\$\\$; exec sleep 60" & ) ; echo $$; exec sleep 60' &)
sh -c 'echo $$; exec sleep 60' &
"""


def test_kill_ends_the_whole_tree(either_world: ProcessWorld) -> None:
    """Daemons in sessions of their own, whose parents are gone, end with the task."""
    handle = either_world.shell(DAEMONS + "echo $$; wait")
    pids = [int(line) for line in either_world.lines(5)]
    assert all(map(lives, pids))
    either_world.driver.kill(handle)
    either_world.ended(handle)
    assert not any(map(lives, pids))


CROWD = """
i=0
while [ $i -lt 170 ]; do
    (setsid sh -c 'echo $$ >> pids; trap "" TERM; exec sleep 600' &)
    sh -c 'echo $$ >> pids; (sleep 600 & echo $! >> pids; wait)' &
    i=$((i + 1))
done
wait
"""


def test_kill_ends_a_tree_of_500(either_world: ProcessWorld) -> None:
    """A third of them daemons, a third children of children: none is left when the task's end is told."""
    handle = either_world.shell(CROWD, memory_bytes=1024**3)
    pids = either_world.launch().task_dir / "pids"
    wait_until(lambda: pids.exists() and pids.read_text().count("\n") == 510, "510 processes")
    started = [int(pid) for pid in pids.read_text().split()]
    assert all(map(lives, started))
    either_world.driver.kill(handle)
    assert either_world.ended(handle).signal == signal.SIGKILL
    assert not any(map(lives, started))


def test_what_main_leaves_ends_with_it(either_world: ProcessWorld) -> None:
    """A task is over when its main process is; the daemons it left are ended before that is said."""
    handle = either_world.shell(DAEMONS + "while [ ! -e go ]; do sleep 0.02; done; exit 4")
    pids = [int(line) for line in either_world.lines(4)]
    either_world.launch().task_dir.joinpath("go").touch()
    assert either_world.ended(handle).exit_code == 4
    assert not any(map(lives, pids))


def test_orphans_are_reaped(world: ProcessWorld) -> None:
    """Children of children that ended are no zombies while the task goes on."""
    handle = world.shell("for i in 1 2 3 4 5; do (sh -c 'echo $$' &); done; sleep 60")
    pids = [int(line) for line in world.lines(5)]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "reaping")
    assert world.driver.status(handle).state == "running"


def test_running_out_of_memory_is_shown(world: ProcessWorld) -> None:
    """A task beyond its memory is killed by the kernel, and its status says why."""
    if not world.limits("memory"):
        return
    handle = world.shell("head -c 200M /dev/zero | tail", memory_bytes=16 * 1024**2)
    status = world.ended(handle)
    assert status.oom_killed
    assert status.exit_code != 0


def test_remove(world: ProcessWorld) -> None:
    """What is left of an ended task goes, but its logs; one that runs is not touched."""
    handle = world.shell("echo hello; exec sleep 60")
    world.lines(1)
    with pytest.raises(DriverError, match="still runs"):
        world.driver.remove(handle)
    world.driver.kill(handle)
    world.ended(handle)
    cgroups = world.run(handle).cgroups
    for _ in range(2):
        world.driver.remove(handle)
    assert world.driver.status(handle).state == "gone"
    assert not list((world.data / "agent" / "tasks").iterdir())
    assert not [folder for folder in cgroups if Path(folder).exists()]
    assert world.log() == "hello\n"


def test_nothing_is_woken_twice(world: ProcessWorld) -> None:
    """One end is one wake, of its own allocation."""
    world.start("sleep", "60", allocation="a2")
    world.ended(world.start("true"))
    wait_until(lambda: world.wakes("a1") == 1)
    assert world.wakes("a2") == 0


def test_agent_does_not_poll(world: ProcessWorld) -> None:
    """While nothing happens, the driver uses no processor time at all, however many tasks it has."""
    for number in range(20):
        world.start("sleep", "60", allocation=f"a{number}")
    before = os.times()
    world.ended(world.start("sleep", "0.5", allocation="b"))
    after = os.times()
    assert (after.user - before.user) + (after.system - before.system) < 0.2


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0]
