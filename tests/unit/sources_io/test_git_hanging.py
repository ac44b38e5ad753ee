"""A remote that hangs is left at the deadline, and nothing of git stays behind."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from tests.unit.sources_io.repository import ManualClock, Repo, follow, job_text, until
from trueup.models.source_error import SourceUnavailable


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def git_children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.name().startswith(("git", "ssh")) and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.parametrize("url", ["https://{}/x.git", "ssh://git@{}/x.git"])
def test_deadline(url: str, silent: str, repo: Repo, tmp_path: Path, clock: ManualClock) -> None:
    source = follow(
        url.format(silent),
        tmp_path / "data",
        clock,
        deadline=timedelta(seconds=0.5),
        first_deadline=timedelta(seconds=0.5),
    )
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match="no answer within"):
        source.read(None)
    assert time.monotonic() - began < 30
    assert git_children() == []


def test_upload_pack_that_hangs_is_killed(repo: Repo, tmp_path: Path, clock: ManualClock) -> None:
    """What git started ends with it, and the next look finds a mirror that works."""
    repo.commit({"a.yaml": job_text("a")})
    source = follow(repo.path, tmp_path / "data", clock, deadline=timedelta(seconds=2))
    first = source.read(None)
    newer = repo.commit({"a.yaml": job_text("a", "2")})
    os.mkfifo(repo.path / ".git/packed-refs")
    source.look_now()
    with pytest.raises(SourceUnavailable, match=r"no answer within 2 s"):
        source.read(first.commit.id)
    until(lambda: not git_children())
    (repo.path / ".git/packed-refs").unlink()
    source.look_now()
    assert source.read(first.commit.id).commit.id == newer


def test_restart_waits_no_longer_for_a_remote_that_hangs(
    repo: Repo, tmp_path: Path, clock: ManualClock
) -> None:
    """The long deadline is for a first fetch."""
    repo.commit({"a.yaml": job_text("a")})
    follow(repo.path, tmp_path / "data", clock).read(None)
    os.mkfifo(repo.path / ".git/packed-refs")
    source = follow(repo.path, tmp_path / "data", clock, deadline=timedelta(seconds=0.5))
    with pytest.raises(SourceUnavailable, match=r"no answer within 0.5 s"):
        source.read(None)


def test_fetch_that_takes_long_gets_more_time_up_to_that_of_a_first_one(
    repo: Repo, tmp_path: Path, clock: ManualClock
) -> None:
    """It may be large, and would else never be done. One that is done ends that."""
    repo.commit({"a.yaml": job_text("a")})
    source = follow(repo.path, tmp_path / "data", clock, deadline=timedelta(seconds=2))
    source.read(None)
    packed = repo.path / ".git/packed-refs"
    os.mkfifo(packed)
    for seconds in ("2", "4"):
        source.look_now()
        with pytest.raises(SourceUnavailable, match=rf"no answer within {seconds} s"):
            source.read(None)
    packed.unlink()
    source.look_now()
    source.read(None)
    os.mkfifo(packed)
    source.look_now()
    with pytest.raises(SourceUnavailable, match=r"no answer within 2 s"):
        source.read(None)


def test_many_readers_are_one_question(silent: str, repo: Repo, tmp_path: Path, clock: ManualClock) -> None:
    """While a look is under way, others wait for what it finds."""
    source = follow(f"https://{silent}/x.git", tmp_path / "data", clock, deadline=timedelta(seconds=2))
    errors: list[str] = []
    asking: set[int] = set()

    def read() -> None:
        try:
            source.read(None)
        except SourceUnavailable as error:
            errors.append(str(error))

    readers = [threading.Thread(target=read) for _ in range(5)]
    for reader in readers:
        reader.start()
    while any(reader.is_alive() for reader in readers):
        asking |= {child.pid for child in git_children() if child.name().startswith("git-remote")}
        readers[0].join(0.02)
    assert len(errors) == 5
    assert len(set(errors)) == 1
    assert len(asking) == 1


def test_close_ends_a_fetch_under_way(silent: str, repo: Repo, tmp_path: Path, clock: ManualClock) -> None:
    """A shutdown does not wait for the deadline."""
    source = follow(f"https://{silent}/x.git", tmp_path / "data", clock)
    errors: list[str] = []

    def read() -> None:
        try:
            source.read(None)
        except SourceUnavailable as error:
            errors.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: any("ls-remote" in " ".join(child.cmdline()) for child in git_children()))
    began = time.monotonic()
    source.close()
    reader.join()
    assert time.monotonic() - began < 30
    assert errors
    assert git_children() == []


def test_callers_wait_in_line(repo: Repo, tmp_path: Path, clock: ManualClock) -> None:
    """One git at a time on the mirror, whoever asks."""
    commit = repo.commit({"a.yaml": job_text("a")})
    source = follow(repo.path, tmp_path / "data", clock)
    found: list[str] = []

    def read() -> None:
        source.look_now()
        found.append(source.read(None).commit.id)

    readers = [threading.Thread(target=read) for _ in range(6)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert found == [commit] * 6
