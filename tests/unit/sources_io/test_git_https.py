"""Git over https with a certificate of our own authority and a login."""

import base64
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.git_hosts import GitHttps
from tests.unit.sources_io.repository import ENVIRONMENT, ManualClock, Repo, follow, job_text, until
from tests.unit.sources_io.test_git_hanging import git_children
from trueup.models.source_error import SourceUnavailable
from trueup.sources.git_command import GitAccess, GitCommand, GitFailed
from trueup.sources.git_remote import parse_remote


@pytest.fixture
def server(repo: Repo) -> Iterator[GitHttps]:
    repo.commit({"a.yaml": job_text("a")})
    with GitHttps(repo.path.parent, login="ci:s3cret").running() as running:
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("ci:s3cret\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_commits_come_over_https(
    repo: Repo, server: GitHttps, token_file: Path, data: Path, clock: ManualClock
) -> None:
    source = follow(server.url(), data, clock, ca_file=server.ca_file, token_file=token_file)
    first = source.read(None)
    assert sorted(first.jobs) == ["a"]
    commit = repo.commit({"a.yaml": job_text("a", "2")}, author="Bob")
    source.look_now()
    second = source.read(first.commit.id)
    assert (second.commit.id, second.commit.author) == (commit, "Bob")
    assert source.status.url == server.url()


def test_token_alone_goes_as_password(
    server: GitHttps, token_file: Path, data: Path, clock: ManualClock
) -> None:
    server.login = "trueup:glpat-1"
    token_file.write_text("glpat-1")
    source = follow(server.url(), data, clock, ca_file=server.ca_file, token_file=token_file)
    assert sorted(source.read(None).jobs) == ["a"]


def test_password_in_the_address(server: GitHttps, data: Path, clock: ManualClock) -> None:
    url = server.url().replace("https://", "https://ci:s3cret@")
    source = follow(url, data, clock, ca_file=server.ca_file)
    assert sorted(source.read(None).jobs) == ["a"]
    assert "s3cret" not in source.status.url


@pytest.mark.parametrize("token", ["", "ci:wrong"])
def test_refused_login(
    server: GitHttps, token_file: Path, data: Path, clock: ManualClock, token: str
) -> None:
    """Asks nobody, names the option, and does not show the token."""
    token_file.write_text(token)
    source = follow(server.url(), data, clock, ca_file=server.ca_file, token_file=token_file)
    with pytest.raises(SourceUnavailable, match="--git-token-file") as error:
        source.read(None)
    assert not token or token not in str(error.value)
    assert "askpass" not in str(error.value)
    assert "terminal" not in str(error.value)


def test_renewed_token_is_used(server: GitHttps, token_file: Path, data: Path, clock: ManualClock) -> None:
    token_file.write_text("ci:old")
    source = follow(server.url(), data, clock, ca_file=server.ca_file, token_file=token_file)
    with pytest.raises(SourceUnavailable):
        source.read(None)
    token_file.write_text("ci:s3cret")
    source.look_now()
    assert sorted(source.read(None).jobs) == ["a"]


def test_token_file_that_is_gone(server: GitHttps, token_file: Path, data: Path, clock: ManualClock) -> None:
    token_file.unlink()
    source = follow(server.url(), data, clock, ca_file=server.ca_file, token_file=token_file)
    with pytest.raises(SourceUnavailable, match="token"):
        source.read(None)


@pytest.mark.parametrize("content", ["ci:s3cret\nmore", "x" * 10_000])
def test_token_file_that_holds_something_else(
    server: GitHttps, token_file: Path, data: Path, clock: ManualClock, content: str
) -> None:
    token_file.write_text(content)
    source = follow(server.url(), data, clock, ca_file=server.ca_file, token_file=token_file)
    with pytest.raises(SourceUnavailable, match="does not hold one token on one line") as error:
        source.read(None)
    assert "s3cret" not in str(error.value)


def test_unknown_authority(server: GitHttps, token_file: Path, data: Path, clock: ManualClock) -> None:
    source = follow(server.url(), data, clock, token_file=token_file)
    with pytest.raises(SourceUnavailable, match="--git-ca"):
        source.read(None)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[GitHttps]:
    """A host that has a repository of that name, too."""
    Repo(tmp_path / "other/repo").commit({"evil.yaml": job_text("evil")})
    with GitHttps(tmp_path / "other").running() as running:
        yield running


@pytest.fixture
def both_ca_file(server: GitHttps, other: GitHttps, tmp_path: Path) -> Path:
    """Both hosts are trusted."""
    path = tmp_path / "both.pem"
    path.write_text(server.ca_file.read_text() + other.ca_file.read_text())
    return path


@pytest.mark.parametrize("methods", [("GET", "POST"), ("POST",)])
@pytest.mark.parametrize("in_address", [False, True])
def test_login_does_not_follow_a_redirect(
    server: GitHttps,
    other: GitHttps,
    both_ca_file: Path,
    token_file: Path,
    data: Path,
    clock: ManualClock,
    methods: tuple[str, ...],
    in_address: bool,
) -> None:
    """Neither from the first question nor from a later one; nothing of the other host is taken."""
    server.redirect_to = other.url("")[:-1]
    server.redirects = methods
    url, token = server.url(), token_file
    if in_address:
        url = url.replace("https://", "https://ci:s3cret@")
    source = follow(url, data, clock, ca_file=both_ca_file, token_file=None if in_address else token)
    with pytest.raises(SourceUnavailable):
        source.read(None)
    assert server.seen
    assert other.seen == []


def test_repository_that_moved_is_followed_where_there_is_no_login(
    server: GitHttps, other: GitHttps, both_ca_file: Path, data: Path, clock: ManualClock
) -> None:
    """As forges do it for names that changed."""
    server.login = ""
    server.redirect_to = other.url("")[:-1]
    source = follow(server.url(), data, clock, ca_file=both_ca_file)
    assert sorted(source.read(None).jobs) == ["evil"]
    assert set(other.seen) == {""}


def test_what_a_server_says_of_a_login_is_not_shown(
    server: GitHttps, token_file: Path, data: Path, clock: ManualClock
) -> None:
    server.mood = "repeats"
    source = follow(server.url(), data, clock, ca_file=server.ca_file, token_file=token_file)
    with pytest.raises(SourceUnavailable, match=r"remote: no entry for Basic \*\*\*") as error:
        source.read(None)
    assert base64.b64encode(b"ci:s3cret").decode() not in str(error.value)


def test_login_is_in_no_arguments_and_no_environment(
    server: GitHttps, token_file: Path, data: Path, clock: ManualClock
) -> None:
    """Of git and all it starts, while the host keeps them waiting."""
    server.mood = "silent"
    source = follow(server.url(), data, clock, ca_file=server.ca_file, token_file=token_file)

    def read() -> None:
        with pytest.raises(SourceUnavailable):
            source.read(None)

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: bool(server.seen))
    shown = [f"{child.cmdline()} {child.environ()}" for child in git_children()]
    source.close()
    reader.join()
    assert any("remote-https" in text for text in shown)
    for secret in ("s3cret", base64.b64encode(b"ci:s3cret").decode()):
        assert [text for text in shown if secret in text] == []


def test_only_commands_that_ask_the_remote_may_talk_to_it(server: GitHttps, tmp_path: Path) -> None:
    """Git would fetch by itself what it finds missing, file by file."""
    server.login = ""
    home, mirror = tmp_path / "home", tmp_path / "home/mirror.git"
    git = GitCommand(home, parse_remote(server.url()), GitAccess(ca_file=server.ca_file), ENVIRONMENT)
    git.run("init", "--quiet", "--bare", str(mirror), git_dir=mirror, deadline_seconds=30)
    settings = ("-c", f"remote.trueup.url={server.url()}", "-c", "remote.trueup.promisor=true")
    with pytest.raises(GitFailed):
        git.run(*settings, "cat-file", "-e", "1" * 40, git_dir=mirror, deadline_seconds=30)
    assert server.seen == []
    git.run(*settings, "ls-remote", "--", "trueup", git_dir=mirror, deadline_seconds=30)
    assert server.seen


def test_no_such_repository(server: GitHttps, token_file: Path, data: Path, clock: ManualClock) -> None:
    source = follow(server.url("absent"), data, clock, ca_file=server.ca_file, token_file=token_file)
    with pytest.raises(SourceUnavailable, match="absent"):
        source.read(None)
