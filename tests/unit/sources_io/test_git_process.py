"""One program within bounds, and none of it left behind: with real processes."""

import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.unit.sources_io.repository import ENVIRONMENT, until
from trueup.sources.git_process import Bounds, Ended, GitFailed, ProcessGroups

MIB = 1024**2


@pytest.fixture
def groups(tmp_path: Path) -> ProcessGroups:
    return ProcessGroups(tmp_path)


@pytest.fixture
def seconds() -> str:
    """For a sleep that is no other run's."""
    return f"98761.{time.time_ns()}"


def shell(
    groups: ProcessGroups,
    script: str,
    *,
    deadline: float = 60.0,
    output: int = MIB,
    file: int = MIB,
    memory: int = 1024 * MIB,
    stdin: bytes = b"",
) -> Ended:
    bounds = Bounds(deadline_seconds=deadline, output_bytes=output, file_bytes=file, memory_bytes=memory)
    return groups.run(("sh", "-c", script), ENVIRONMENT, bounds, stdin)


def lives(marker: str) -> bool:
    """Whether any process of ours has *marker* as an argument."""
    found = psutil.process_iter(["cmdline", "status"])
    return any(
        marker in (one.info["cmdline"] or ()) and one.info["status"] != psutil.STATUS_ZOMBIE for one in found
    )


def test_what_it_says_comes_back(groups: ProcessGroups) -> None:
    ended = shell(groups, "cat; echo why >&2; exit 3", stdin=b"x" * MIB, output=2 * MIB)
    assert (ended.status, ended.output, ended.errors) == (3, b"x" * MIB, b"why\n")


def test_whole_group_ends_at_the_deadline_even_what_ignores_term(groups: ProcessGroups, seconds: str) -> None:
    with pytest.raises(GitFailed, match=r"no answer within 0.3 s") as failure:
        shell(groups, f"(trap '' TERM; sh -c 'trap \"\" TERM; sleep {seconds}; :') & wait", deadline=0.3)
    assert failure.value.timed_out
    until(lambda: not lives(seconds))


def test_what_a_program_leaves_behind_ends_with_it(groups: ProcessGroups, seconds: str) -> None:
    """It would hold the pipes open, too."""
    began = time.monotonic()
    assert shell(groups, f"sleep {seconds} & echo done").output == b"done\n"
    assert time.monotonic() - began < 50
    until(lambda: not lives(seconds))


def test_output_without_end(groups: ProcessGroups) -> None:
    with pytest.raises(GitFailed, match="printed more than 1 MiB") as failure:
        shell(groups, "yes")
    assert failure.value.said_too_much


def test_complaints_without_end_keep_their_last_words(groups: ProcessGroups) -> None:
    ended = shell(groups, "head -c 5000000 /dev/zero | tr '\\0' x >&2; echo why >&2; exit 1")
    assert len(ended.errors) <= 64 * 1024
    assert ended.errors.endswith(b"xwhy\n")


def test_file_without_end(groups: ProcessGroups, tmp_path: Path) -> None:
    """Also what it starts is bounded."""
    assert shell(groups, "yes > large; exit $?", file=MIB).status != 0
    assert (tmp_path / "large").stat().st_size <= MIB


def test_memory_without_end(groups: ProcessGroups) -> None:
    """A line that never ends is collected whole by tail."""
    assert shell(groups, "head -c 500000000 /dev/zero | tail -n 1 > /dev/null", memory=64 * MIB).status != 0


def test_program_that_is_not_installed(groups: ProcessGroups, tmp_path: Path) -> None:
    bounds = Bounds(deadline_seconds=1, output_bytes=1, file_bytes=1, memory_bytes=MIB)
    with pytest.raises(GitFailed, match="the git program is not installed; install git"):
        groups.run(("git", "--version"), {"PATH": str(tmp_path)}, bounds)


def test_close_ends_what_runs_and_starts_nothing_more(groups: ProcessGroups, seconds: str) -> None:
    ended: list[Ended] = []
    runner = threading.Thread(target=lambda: ended.append(shell(groups, f"sleep {seconds}; :")))
    runner.start()
    until(lambda: lives(seconds))
    groups.close()
    runner.join(30)
    assert [one.status for one in ended] == [-9]
    with pytest.raises(GitFailed, match="closed"):
        shell(groups, "true")
