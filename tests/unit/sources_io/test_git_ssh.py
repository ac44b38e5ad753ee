"""Git over ssh with a real sshd: one key, known hosts, nobody's configuration."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.git_hosts import Sshd, running_sshd
from tests.unit.sources_io.repository import ManualClock, Repo, follow, job_text
from trueup.models.source_error import SourceUnavailable


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


def test_commits_come_over_ssh(repo: Repo, sshd: Sshd, tmp_path: Path, clock: ManualClock) -> None:
    repo.commit({"a.yaml": job_text("a")})
    source = follow(
        sshd.url(repo.path),
        tmp_path / "data",
        clock,
        ssh_key=sshd.key,
        known_hosts=sshd.known_hosts,
    )
    first = source.read(None)
    assert sorted(first.jobs) == ["a"]
    commit = repo.commit({"a.yaml": job_text("a", "2")}, author="Bob")
    source.look_now()
    second = source.read(first.commit.id)
    assert (second.commit.id, second.commit.author) == (commit, "Bob")


def test_wrong_key(repo: Repo, sshd: Sshd, tmp_path: Path, clock: ManualClock) -> None:
    repo.commit({"a.yaml": job_text("a")})
    source = follow(
        sshd.url(repo.path),
        tmp_path / "data",
        clock,
        ssh_key=sshd.other_key,
        known_hosts=sshd.known_hosts,
    )
    with pytest.raises(SourceUnavailable, match="--git-ssh-key"):
        source.read(None)


def test_unknown_host(repo: Repo, sshd: Sshd, tmp_path: Path, clock: ManualClock) -> None:
    """Its key is not taken on trust."""
    repo.commit({"a.yaml": job_text("a")})
    (tmp_path / "known").write_text("")
    source = follow(
        sshd.url(repo.path), tmp_path / "data", clock, ssh_key=sshd.key, known_hosts=tmp_path / "known"
    )
    with pytest.raises(SourceUnavailable, match="--git-known-hosts"):
        source.read(None)
    assert (tmp_path / "known").read_text() == ""
