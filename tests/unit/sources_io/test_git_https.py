"""Git over https with a certificate of our own authority and a login."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.git_hosts import GitHttps
from tests.unit.sources_io.repository import ManualClock, Repo, follow, job_text
from trueup.models.source_error import SourceUnavailable


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


def test_unknown_authority(server: GitHttps, token_file: Path, data: Path, clock: ManualClock) -> None:
    source = follow(server.url(), data, clock, token_file=token_file)
    with pytest.raises(SourceUnavailable, match="--git-ca"):
        source.read(None)


def test_login_does_not_follow_a_redirect(
    server: GitHttps, token_file: Path, data: Path, clock: ManualClock, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(GitHttps(tmp_path / "other").running())
        server.redirect_to = other.url("")[:-1]
        source = follow(server.url(), data, clock, ca_file=server.ca_file, token_file=token_file)
        with pytest.raises(SourceUnavailable):
            source.read(None)
        assert other.seen == []


def test_no_such_repository(server: GitHttps, token_file: Path, data: Path, clock: ManualClock) -> None:
    source = follow(server.url("absent"), data, clock, ca_file=server.ca_file, token_file=token_file)
    with pytest.raises(SourceUnavailable, match="absent"):
        source.read(None)
