"""The output of process tasks: kept, rotated, bounded, and never in the task's way."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.unit.agent_drivers.process_world import ProcessWorld, lives, wait_until


def files(world: ProcessWorld, stream: str = "server.stdout") -> list[str]:
    folder = world.launch().logs_dir
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(stream))


def marks(world: ProcessWorld, stream: str = "server.stdout") -> list[list[str]]:
    return [line.split() for line in world.log(f"{stream}.marks").splitlines()]


def test_streams_are_apart(world: ProcessWorld) -> None:
    """stdout and stderr go to files of their own, which only the agent's user can read."""
    world.ended(world.shell("echo out; echo err >&2"))
    assert world.log("server.stdout") == "out\n"
    assert world.log("server.stderr") == "err\n"
    for path in world.launch().logs_dir.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert world.launch().logs_dir.stat().st_mode & 0o777 == 0o700


def test_attempts_follow_each_other(world: ProcessWorld) -> None:
    """A task's next attempt writes on in the same file, and the marks say where it begins."""
    for attempt in (1, 2, 3):
        world.ended(world.shell(f"echo attempt {attempt}", attempt=attempt))
    assert world.log() == "attempt 1\nattempt 2\nattempt 3\n"
    starts = [(line[1], line[3]) for line in marks(world) if line[0] == "start"]
    assert starts == [("0", "1"), ("10", "2"), ("20", "3")]


def test_rotation(world: ProcessWorld) -> None:
    """Files stay within their size, `.1` is the newest rotated, the oldest go, and no line is torn."""
    handle = world.shell(
        "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done", max_files=3, max_size=4096
    )
    world.ended(handle)
    names = [name for name in files(world) if not name.endswith(".marks")]
    assert names == ["server.stdout", "server.stdout.1", "server.stdout.2"]
    texts = [world.log(name) for name in reversed(names)]
    assert all(len(text) <= 4096 for text in texts)
    assert all(len(text) > 3500 for text in texts[:2])
    numbers = [int(line.removeprefix("line ")) for line in "".join(texts).splitlines()]
    assert numbers == list(range(numbers[0], 5000))


def test_marks_say_where_a_file_begins(world: ProcessWorld) -> None:
    """The last `rotate` mark is the offset of the current file in the whole stream; older ones are dropped with it."""
    world.ended(world.shell("head -c 100000 /dev/zero | tr '\\0' x", max_files=2, max_size=10_000))
    world.ended(world.shell("echo next", attempt=2, max_files=2, max_size=10_000))
    rotated = [int(line[1]) for line in marks(world) if line[0] == "rotate"]
    assert len(rotated) == 2
    assert rotated[1] - rotated[0] == len(world.log("server.stdout.1"))
    assert [line[1] for line in marks(world) if line[0] == "start"] == ["100000"]
    assert world.log()[100_000 - rotated[1] :] == "next\n"


def test_one_file_only(world: ProcessWorld) -> None:
    """With `max_files: 1` nothing is rotated: the file begins anew."""
    world.ended(world.shell("for i in 1 2 3 4 5 6 7 8 9; do echo 1234567890; done", max_files=1, max_size=33))
    assert world.log() == "1234567890\n" * 3
    assert files(world) == ["server.stdout", "server.stdout.marks"]


def test_lower_limit_of_a_later_attempt(world: ProcessWorld) -> None:
    """What an earlier attempt with a higher limit left is removed."""
    world.ended(world.shell("seq 2000", max_files=5, max_size=1000))
    assert "server.stdout.4" in files(world)
    world.ended(world.shell("true", attempt=2, max_files=2, max_size=1000))
    assert files(world) == ["server.stdout", "server.stdout.1", "server.stdout.marks"]


def test_flood(world: ProcessWorld) -> None:
    """Output as fast as a process can write takes no more room than it may, and no memory of the shim's."""
    handle = world.shell("yes; exit 1", max_files=3, max_size=100_000)
    wait_until(lambda: "server.stdout.2" in files(world))
    wait_until(lambda: int((marks(world) or [["", "0"]])[-1][1]) > 20_000_000, "20 MB of output")
    peak = next(line for line in _status(world.run(handle).shim_pid) if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 40_000
    world.driver.kill(handle)
    world.ended(handle)
    used = sum(path.stat().st_size for path in world.launch().logs_dir.glob("server.stdout*"))
    assert used < 3 * 100_000 + 150_000


def test_binary_and_no_newline(world: ProcessWorld) -> None:
    """One line longer than a file, of any bytes, is kept as it is, cut where files end."""
    world.ended(world.shell("head -c 300000 /dev/zero", max_files=10, max_size=100_000))
    sizes = [
        world.launch().logs_dir.joinpath(name).stat().st_size for name in files(world) if "marks" not in name
    ]
    assert sum(sizes) == 300_000
    assert max(sizes) <= 100_000


def test_output_of_what_outlives_nothing(world: ProcessWorld) -> None:
    """The last words of a task are there when its end is."""
    handle = world.shell("seq 20000; echo last")
    world.ended(handle)
    assert world.log().splitlines()[-1] == "last"
    assert world.log().count("\n") == 20001


def test_link_in_place_of_a_log(world: ProcessWorld, tmp_path: Path) -> None:
    """A planted link is never written through, and the task runs all the same."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    logs = world.launch().logs_dir
    logs.mkdir(parents=True)
    logs.joinpath("server.stdout").symlink_to(victim)
    logs.joinpath("server.stderr").mkdir()
    handle = world.shell("echo hello; echo hello >&2; exit 3")
    assert world.ended(handle).exit_code == 3
    assert victim.read_text() == "precious"


def test_output_that_finds_no_place(world: ProcessWorld) -> None:
    """While the log cannot be written the task goes on; then a line says how much is missing, and why."""
    obstacle = world.launch().logs_dir / "server.stdout"
    obstacle.mkdir(parents=True)
    world.shell("head -c 200000 /dev/zero; touch went-on; while :; do echo alive; sleep 0.05; done")
    wait_until(world.launch().task_dir.joinpath("went-on").exists)
    obstacle.rmdir()
    wait_until(lambda: world.log().endswith("alive\n"))
    notice = re.fullmatch(
        r"\[trueup\] (\d+) bytes of output were dropped: Is a directory", world.log().splitlines()[1]
    )
    assert notice is not None
    assert int(notice[1]) % len("alive\n") == 200_000 % len("alive\n")
    assert int(notice[1]) < 210_000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_full_disk_never_holds_up_a_task(world: ProcessWorld) -> None:
    """Output that finds no room is dropped; once there is room again a line says how much was."""
    logs = world.launch().logs_dir
    logs.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(logs)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        ballast = logs / "ballast"
        ballast.write_bytes(b"x" * 200_000)
        handle = world.shell(
            "head -c 2000000 /dev/zero; touch went-on; while :; do echo alive; sleep 0.05; done",
            max_size=10_000_000,
        )
        wait_until(world.launch().task_dir.joinpath("went-on").exists)
        ballast.unlink()
        wait_until(lambda: "bytes of output were dropped: No space left on device\n" in world.log())
        wait_until(lambda: world.log().endswith("alive\n"))
        world.driver.kill(handle)
        world.ended(handle)
    finally:
        subprocess.run(["umount", "-l", str(logs)], check=True)


def _status(pid: int) -> list[str]:
    assert lives(pid)
    return Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
