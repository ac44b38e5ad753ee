"""A mirror has all commits and none of the large files, where the host can leave them out."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.git_hosts import GitHttps, Sshd, running_sshd
from tests.unit.sources_io.repository import ENVIRONMENT, ManualClock, Repo, follow, job_text
from trueup.models.desired import DesiredState
from trueup.sources.git import GitSettings
from trueup.sources.snapshot import MAX_FILE_BYTES
from trueup.sources.spec_source import TreeSpecSource, git_remotes_source

_LARGE_BYTES = 3 * MAX_FILE_BYTES


@pytest.fixture
def server(repo: Repo) -> Iterator[GitHttps]:
    with GitHttps(repo.path.parent).running() as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def source(repo: Repo, server: GitHttps, data: Path, clock: ManualClock) -> TreeSpecSource:
    """Of a repository that had a large file and has another one, beside modules and a merge."""
    write_large(repo, "old.bin")
    repo.commit({"a.yaml": job_text("a")}, author="Bob")
    repo.commit(
        {"old.bin": None, ".gitmodules": '[submodule "m"]\n\tpath = m\n\turl = https://example.org/m\n'}
    )
    repo.git("checkout", "-q", "-b", "side")
    write_large(repo, "large.yaml")
    repo.commit({"b.yaml": job_text("b")}, author="Cid")
    repo.git("checkout", "-q", "main")
    repo.commit({"README": "x"})
    repo.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    return follow(server.url(), data, clock, ca_file=server.ca_file)


def write_large(repo: Repo, name: str) -> None:
    (repo.path / name).write_bytes(os.urandom(_LARGE_BYTES))


def mirror_of(data: Path) -> Path:
    (mirror,) = data.glob("git/*/mirror.git")
    return mirror


def size_of(mirror: Path) -> int:
    return sum(file.stat().st_size for file in mirror.rglob("*") if file.is_file())


def read_now(source: TreeSpecSource, applied: DesiredState | None = None) -> DesiredState:
    source.look_now()
    return source.read(None if applied is None else applied.commit.id)


def authors(state: DesiredState) -> dict[str, str]:
    return {name: job.commit.author for name, job in state.jobs.items() if job.commit is not None}


def commits(repo: Repo, folder: Path, tip: str) -> str:
    return repo.git(f"--git-dir={folder}", "rev-list", "--count", tip)


def check(repo: Repo, state: DesiredState, data: Path) -> None:
    """All commits came, so every author is known; what is too large is an error on its file alone."""
    assert authors(state) == {"a": "Bob", "b": "Cid"}
    assert {error.file: error.message for error in state.errors} == {"large.yaml": "is larger than 1 MiB"}
    assert commits(repo, mirror_of(data), state.commit.id) == commits(repo, repo.path / ".git", "main")


def test_large_files_are_left_out(
    repo: Repo, source: TreeSpecSource, data: Path, server: GitHttps, clock: ManualClock
) -> None:
    """Also of commits to come, and what comes back from old ones is here."""
    first = read_now(source)
    check(repo, first, data)
    repo.commit({"a.yaml": job_text("a", "2"), "b.yaml": None}, author="Dan")
    write_large(repo, "other.bin")
    second = repo.commit({}, author="Eve")
    state = read_now(source, first)
    assert (state.commit.id, authors(state)) == (second, {"a": "Dan"})
    repo.git("revert", "--no-edit", "HEAD~1", author="Fay")
    third = read_now(source, state)
    assert authors(third) == {"a": "Fay", "b": "Fay"}
    assert third.jobs["a"].job == first.jobs["a"].job
    assert size_of(mirror_of(data)) < MAX_FILE_BYTES
    restarted = follow(server.url(), data, clock, ca_file=server.ca_file)
    assert sorted(restarted.read(third.commit.id).jobs) == ["a", "b"]


@pytest.mark.parametrize("settings", [{}, {"uploadpackfilter.blob:limit.allow": "false"}])
def test_host_that_leaves_nothing_out(
    repo: Repo, source: TreeSpecSource, data: Path, server: GitHttps, settings: dict[str, str]
) -> None:
    """All of it is fetched: from a host that knows no filters, and from one that forbids ours."""
    server.filters = bool(settings)
    server.settings = settings
    state = read_now(source)
    check(repo, state, data)
    assert size_of(mirror_of(data)) > _LARGE_BYTES
    newer = repo.commit({"c.yaml": job_text("c")})
    assert read_now(source, state).commit.id == newer


def test_packs_are_joined_though_files_are_missing(
    repo: Repo, source: TreeSpecSource, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trueup.sources.git_mirror._PACK_AFTER", 2)
    state = read_now(source)
    for number in range(5):
        write_large(repo, "large.yaml")
        repo.commit({"c.yaml": job_text("c", str(number))})
        state = read_now(source, state)
        assert sorted(state.jobs) == ["a", "b", "c"]
    assert len(list(mirror_of(data).glob("objects/pack/*.pack"))) <= 3
    assert size_of(mirror_of(data)) < MAX_FILE_BYTES
    assert commits(repo, mirror_of(data), state.commit.id) == commits(repo, repo.path / ".git", "main")


def test_repository_for_emergencies_has_the_large_files_too(
    repo: Repo, source: TreeSpecSource, data: Path, server: GitHttps, clock: ManualClock
) -> None:
    """A clone of it is whole, so what the mirror lacks was asked of the host."""
    remote = GitSettings(url=server.url(), ca_file=server.ca_file)
    several = git_remotes_source([remote], data, clock, environment=ENVIRONMENT)
    try:
        applied = several.read(None).commit.id
        several.read(applied)
    finally:
        several.close()
    assert size_of(mirror_of(data)) < MAX_FILE_BYTES
    clone = data / "clone"
    repo.git("clone", "--quiet", str(data / "emergency.git"), str(clone))
    assert (clone / "large.yaml").read_bytes() == (repo.path / "large.yaml").read_bytes()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


def test_over_ssh(repo: Repo, source: TreeSpecSource, sshd: Sshd, tmp_path: Path, clock: ManualClock) -> None:
    repo.git("config", "uploadpack.allowFilter", "true")
    other = follow(
        sshd.url(repo.path), tmp_path / "other", clock, ssh_key=sshd.key, known_hosts=sshd.known_hosts
    )
    check(repo, read_now(other), tmp_path / "other")
    assert size_of(mirror_of(tmp_path / "other")) < MAX_FILE_BYTES
