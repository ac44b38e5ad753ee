"""A host without end costs what the limits allow: of time, memory and disk; and nothing of it stays."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.git_hosts import GitHttps
from tests.unit.sources_io.repository import ManualClock, Repo, follow, job_text
from tests.unit.sources_io.test_git_hanging import git_children
from trueup.models.source_error import SourceUnavailable
from trueup.sources.git_process import GitLimits
from trueup.sources.spec_source import TreeSpecSource

MIB = 1024**2


@pytest.fixture
def server(repo: Repo) -> Iterator[GitHttps]:
    repo.commit({"a.yaml": job_text("a")})
    with GitHttps(repo.path.parent).running() as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def bounded(
    server: GitHttps, data: Path, clock: ManualClock, *, deadline: float = 90.0, mirror: int = 8 * MIB
) -> TreeSpecSource:
    return follow(
        server.url(),
        data,
        clock,
        ca_file=server.ca_file,
        deadline=timedelta(seconds=deadline),
        first_deadline=timedelta(seconds=deadline),
        limits=GitLimits(memory_bytes=256 * MIB, mirror_bytes=mirror),
    )


def packs(data: Path) -> list[Path]:
    return list(data.glob("git/*/mirror.git/objects/pack/*"))


def refused(source: TreeSpecSource) -> str:
    source.look_now()
    with pytest.raises(SourceUnavailable) as error:
        source.read(None)
    assert git_children() == []
    return str(error.value)


def test_pack_without_end_stops_at_the_size_of_the_mirror(
    server: GitHttps, data: Path, clock: ManualClock
) -> None:
    """What it brought is gone by the next look, which finds a host that is well again."""
    source = bounded(server, data, clock)
    server.mood = "endless pack"
    assert "sends more than the 8 MiB that its mirror may still grow" in refused(source)
    assert sum(path.stat().st_size for path in packs(data)) <= 8 * MIB
    server.mood = ""
    source.look_now()
    assert sorted(source.read(None).jobs) == ["a"]
    assert sum(path.stat().st_size for path in packs(data)) < MIB


def test_pack_without_end_stops_at_the_deadline(server: GitHttps, data: Path, clock: ManualClock) -> None:
    source = bounded(server, data, clock, deadline=2, mirror=1024**4)
    server.mood = "endless pack"
    assert "no answer within 2 s" in refused(source)
    server.mood = ""
    healed = bounded(server, data, clock)
    assert sorted(healed.read(None).jobs) == ["a"]
    assert {path.suffix for path in packs(data)} <= {".pack", ".idx", ".promisor", ".rev"}


def test_refs_without_end_stop_at_the_memory(server: GitHttps, data: Path, clock: ManualClock) -> None:
    source = bounded(server, data, clock)
    server.mood = "endless refs"
    assert "Out of memory" in refused(source)


def test_mirror_that_is_full_is_fetched_anew(
    repo: Repo, server: GitHttps, data: Path, clock: ManualClock
) -> None:
    """What a rewritten history left in it makes room that way."""
    source = bounded(server, data, clock, mirror=MIB)
    (repo.path / "noise").write_bytes(os.urandom(MIB - 4096))
    repo.commit({})
    source.look_now()
    source.read(None)
    repo.git("reset", "--quiet", "--hard", "HEAD~1")
    (repo.path / "other").write_bytes(os.urandom(MIB // 2))
    newest = repo.commit({})
    for _ in range(2):
        assert "may still grow" in refused(source)
    source.look_now()
    assert source.read(None).commit.id == newest


def test_host_that_takes_requests_and_never_answers(server: GitHttps, data: Path, clock: ManualClock) -> None:
    source = bounded(server, data, clock, deadline=1)
    server.mood = "silent"
    assert "no answer within 1 s" in refused(source)
