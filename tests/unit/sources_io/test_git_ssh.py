"""Git over ssh with a real sshd: one key, known hosts, nobody's configuration."""

import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.git_hosts import Sshd, running_sshd
from tests.unit.sources_io.repository import ENVIRONMENT, ManualClock, Repo, follow, job_text
from tests.unit.sources_io.test_git_hanging import git_children
from trueup.models.source_error import SourceUnavailable
from trueup.sources.git import GitSettings, GitTree


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


def test_host_whose_key_changed(repo: Repo, sshd: Sshd, tmp_path: Path, clock: ManualClock) -> None:
    """As of somebody in between: it is not talked to, and the file of known hosts stays as it is."""
    repo.commit({"a.yaml": job_text("a")})
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    host = sshd.known_hosts.read_text().split()[0]
    known = tmp_path / "known"
    known.write_text(f"{host} {' '.join((tmp_path / 'k.pub').read_text().split()[:2])}\n")
    before = known.read_text()
    source = follow(sshd.url(repo.path), tmp_path / "data", clock, ssh_key=sshd.key, known_hosts=known)
    with pytest.raises(SourceUnavailable, match=r"has changed .*--git-known-hosts"):
        source.read(None)
    assert known.read_text() == before


def test_key_that_others_may_read(repo: Repo, sshd: Sshd, tmp_path: Path, clock: ManualClock) -> None:
    repo.commit({"a.yaml": job_text("a")})
    key = tmp_path / "key"
    key.write_bytes(sshd.key.read_bytes())
    key.chmod(0o644)
    source = follow(sshd.url(repo.path), tmp_path / "data", clock, ssh_key=key, known_hosts=sshd.known_hosts)
    with pytest.raises(SourceUnavailable, match="chmod 600 the file of --git-ssh-key"):
        source.read(None)


def test_settings_and_keys_of_the_user_are_not_used(
    repo: Repo, sshd: Sshd, tmp_path: Path, clock: ManualClock
) -> None:
    """Neither an agent that has the right key, nor a command that ssh's own settings name."""
    repo.commit({"a.yaml": job_text("a")})
    canary = tmp_path / "canary"
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/config").write_text(
        f"Host *\n  ProxyCommand touch {canary}\n  LocalCommand touch {canary}\n"
    )
    surroundings = ENVIRONMENT | {
        "HOME": str(home),
        "GIT_SSH_COMMAND": f"touch {canary}",
        "GIT_SSH": f"touch {canary}",
        "SSH_AUTH_SOCK": str(tmp_path / "agent"),
    }
    settings = GitSettings(url=sshd.url(repo.path), ssh_key=sshd.key, known_hosts=sshd.known_hosts)
    tree = GitTree(settings, tmp_path / "data", clock, environment=surroundings)
    assert tree.snapshot(None).files
    assert not canary.exists()


def test_host_whose_session_never_answers(repo: Repo, sshd: Sshd, tmp_path: Path, clock: ManualClock) -> None:
    """ssh itself is well and sends its signs of life; git and ssh end at the deadline all the same."""
    repo.commit({"a.yaml": job_text("a")})
    (repo.path / ".git/packed-refs").unlink(missing_ok=True)
    os.mkfifo(repo.path / ".git/packed-refs")
    source = follow(
        sshd.url(repo.path),
        tmp_path / "data",
        clock,
        ssh_key=sshd.key,
        known_hosts=sshd.known_hosts,
        deadline=timedelta(seconds=3),
    )
    with pytest.raises(SourceUnavailable, match="no answer within 3 s"):
        source.read(None)
    assert not [
        child for child in git_children() if child.name().startswith("ssh") and "sshd" not in child.name()
    ]
    with (repo.path / ".git/packed-refs").open("wb", buffering=0):
        """Lets the host's own git go."""
