"""Git over ssh with a real sshd: one key, known hosts, nobody's configuration."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.require import require
from tests.unit.sources_io.repository import ManualClock, Repo, follow, job_text, until
from trueup.models.source_error import SourceUnavailable


@dataclass(frozen=True, kw_only=True)
class Sshd:
    port: int
    folder: Path

    def url(self, repo: Repo) -> str:
        user = psutil.Process().username()
        return f"ssh://{user}@127.0.0.1:{self.port}{repo.path}"


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    require("ssh")
    folder = tmp_path_factory.mktemp("sshd")
    make_key(folder / "host")
    make_key(folder / "key")
    make_key(folder / "other key")
    shutil.copy(folder / "key.pub", folder / "authorized")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n"
        f"PidFile none\nAcceptEnv GIT_PROTOCOL\n"
    )
    host_key = (folder / "host.pub").read_text().split()[:2]
    (folder / "known hosts").write_text(f"[127.0.0.1]:{port} {' '.join(host_key)}\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config")], stderr=log)
    try:
        until(lambda: answers(port))
        yield Sshd(port=port, folder=folder)
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def test_commits_come_over_ssh(repo: Repo, sshd: Sshd, tmp_path: Path, clock: ManualClock) -> None:
    repo.commit({"a.yaml": job_text("a")})
    source = follow(
        sshd.url(repo),
        tmp_path / "data",
        clock,
        ssh_key=sshd.folder / "key",
        known_hosts=sshd.folder / "known hosts",
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
        sshd.url(repo),
        tmp_path / "data",
        clock,
        ssh_key=sshd.folder / "other key",
        known_hosts=sshd.folder / "known hosts",
    )
    with pytest.raises(SourceUnavailable, match="--git-ssh-key"):
        source.read(None)


def test_unknown_host(repo: Repo, sshd: Sshd, tmp_path: Path, clock: ManualClock) -> None:
    """Its key is not taken on trust."""
    repo.commit({"a.yaml": job_text("a")})
    (tmp_path / "known").write_text("")
    source = follow(
        sshd.url(repo), tmp_path / "data", clock, ssh_key=sshd.folder / "key", known_hosts=tmp_path / "known"
    )
    with pytest.raises(SourceUnavailable, match="--git-known-hosts"):
        source.read(None)
    assert (tmp_path / "known").read_text() == ""
