"""Fetching from real servers and from files, and what the policy keeps from being fetched."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from agent.artifacts.sources import ArtifactSources, FetchLimits
from agent.doors import ArtifactError, ArtifactsUnwanted
from tests.unit.agent.artifact_host import ANY_HOST, ArtifactHost, a_wanted, an_artifact_host
from trueup.models.artifacts import ArtifactPolicy


@pytest.fixture
def host() -> Iterator[ArtifactHost]:
    with an_artifact_host() as made:
        yield made


def fetched(source: str, policy: ArtifactPolicy = ANY_HOST, limits: FetchLimits | None = None) -> bytes:
    return b"".join(ArtifactSources(policy, limits).chunks(a_wanted(source), lambda: False))


def refused(
    source: str, policy: ArtifactPolicy = ANY_HOST, limits: FetchLimits | None = None
) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        fetched(source, policy, limits)
    return caught.value


def test_what_a_server_has_comes_as_it_is(host: ArtifactHost) -> None:
    """Also where the server takes an archive for a packed page: the checksum is of the archive."""
    host.files["/a.tar.gz"] = os.urandom(700_000)
    assert fetched(f"{host.url}/a.tar.gz?x=1#y") == host.files["/a.tar.gz"]


def test_https_with_an_authority_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    with an_artifact_host(authority) as host:
        host.files["/a"] = b"content"
        error = refused(f"{host.url}/a", ArtifactPolicy())
        assert "certificate is not trusted" in str(error)
        assert not error.temporary
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert fetched(f"{host.url}/a", ArtifactPolicy()) == b"content"


def test_a_certificate_of_another_host_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with an_artifact_host(authority, name="other.example") as host:
        host.files["/a"] = b"content"
        assert "certificate is not trusted" in str(refused(f"{host.url}/a"))
        assert host.requests == []


def test_unlisted_hosts_are_never_asked(host: ArtifactHost) -> None:
    for policy in (ArtifactPolicy(), ArtifactPolicy(hosts=("example.org",)), ArtifactPolicy(hosts=())):
        error = refused(f"{host.url}/a", policy)
        assert "on this node: list it under artifacts.hosts" in str(error)
        assert not error.temporary
    assert host.requests == []


def test_a_redirect_to_a_listed_host_is_followed(host: ArtifactHost) -> None:
    with an_artifact_host() as other:
        other.files["/b"] = b"content"
        host.redirects = {"/a": "/c", "/c": f"{other.url}/b"}
        assert fetched(f"{host.url}/a") == b"content"


def test_a_redirect_to_an_unlisted_host_is_not_followed(host: ArtifactHost) -> None:
    with an_artifact_host() as other:
        host.redirects["/a"] = f"{other.url}/b"
        listed = ArtifactPolicy(hosts=(host.url.removeprefix("http://"),))
        error = refused(f"{host.url}/a", listed)
        assert "it redirects to another address, and artifacts from the host 127.0.0.1:" in str(error)
        assert other.requests == []


def test_a_redirect_to_a_file_is_not_followed(host: ArtifactHost, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("secret")
    host.redirects["/a"] = f"file://{tmp_path}/a"
    for policy in (ANY_HOST, ArtifactPolicy(hosts=("*",), paths=(str(tmp_path),))):
        assert "redirects to what is no server" in str(refused(f"{host.url}/a", policy))


def test_a_redirect_in_a_circle_ends(host: ArtifactHost) -> None:
    host.redirects["/a"] = "/a"
    assert "redirects more than 10 times" in str(refused(f"{host.url}/a"))


def test_credentials_go_to_their_own_server_alone(host: ArtifactHost) -> None:
    with an_artifact_host() as other:
        other.files["/b"] = b"content"
        host.redirects = {"/a": "/c", "/c": f"{other.url}/b"}
        assert fetched(host.url.replace("//", "//me:p%40%C3%9F@") + "/a") == b"content"
        assert host.credentials == ["me:p@ß"] * 2
        assert other.credentials == [""]


def test_nothing_of_the_environment_goes_along(
    host: ArtifactHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a proxy, which would see everything and dial anything, nor passwords kept for other programs."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    host.files["/a"] = b"content"
    assert fetched(f"{host.url}/a") == b"content"
    assert host.credentials == [""]


@pytest.mark.parametrize(
    ("status", "temporary"),
    [
        (404, False),
        (401, False),
        (403, False),
        (410, False),
        (429, True),
        (408, True),
        (500, True),
        (503, True),
    ],
)
def test_what_a_server_answers(host: ArtifactHost, status: int, temporary: bool) -> None:
    host.statuses["/a"] = status
    error = refused(f"{host.url}/a")
    assert f"answered {status}" in str(error)
    assert error.temporary is temporary


def test_a_server_that_is_away_may_come_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error = refused(f"http://127.0.0.1:{port}/a")
    assert "Connection refused" in str(error)
    assert error.temporary
    error = refused("http://no-such-host.invalid/a")
    assert "name is not known" in str(error)
    assert error.temporary


def test_an_answer_that_ends_too_early_may_be_whole_next_time(host: ArtifactHost) -> None:
    host.files["/a"] = b"content"
    host.promised["/a"] = 1000
    error = refused(f"{host.url}/a")
    assert "ended the answer too early" in str(error)
    assert error.temporary


def test_a_server_that_says_nothing_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        error = refused(url, limits=FetchLimits(silence_seconds=0.2))
    assert "did not answer in time" in str(error)
    assert error.temporary


def test_what_is_too_large_is_not_fetched(host: ArtifactHost) -> None:
    host.files["/a"] = bytes(3 * 1024**2)
    for promised in (3 * 1024**2, 10**12):
        host.promised["/a"] = promised
        assert "larger than 1 MiB" in str(refused(f"{host.url}/a", limits=FetchLimits(total_bytes=1024**2)))


def test_what_nobody_wants_any_more_is_not_fetched_on(host: ArtifactHost) -> None:
    host.files["/a"] = bytes(3 * 1024**2)
    with pytest.raises(ArtifactsUnwanted):
        list(ArtifactSources(ANY_HOST).chunks(a_wanted(f"{host.url}/a"), lambda: True))


@pytest.mark.parametrize("status", [401, 500])
def test_no_error_says_a_password(host: ArtifactHost, status: int) -> None:
    host.statuses["/a"] = status
    host.redirects["/b"] = "http://other:hidden@no-such-host.invalid/?hidden"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    at = host.url.removeprefix("http://")
    for source in (
        f"http://me:hidden@{at}/a?token=hidden",
        f"http://me:hidden@{at}/b",
        f"http://me:hidden@127.0.0.1:{port}/a?token=hidden",
        "http://me:hidden@no-such-host.invalid/a",
        "http://me:hidden@[::1/a",
        "http://me:hid/den@x/a",
        "http://me:hidden@x y/a",
    ):
        error = refused(source)
        assert "hid" not in str(error)
        assert error.__cause__ is None or "hid" not in repr(error.__cause__)


def test_a_file_of_the_machine_beneath_a_listed_path(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"content" * 100_000)
    policy = ArtifactPolicy(paths=(str(tmp_path),))
    assert fetched(f"file://{tmp_path}/a%20b", policy) == b"content" * 100_000
    (tmp_path / "listed").symlink_to(tmp_path)
    assert fetched(f"file://{tmp_path}/a%20b", ArtifactPolicy(paths=(f"{tmp_path}/listed",)))


@pytest.mark.parametrize("planted", ["link", "folder link", "dots"])
def test_a_file_outside_is_not_read_through_a_link(tmp_path: Path, planted: str) -> None:
    listed, outside = tmp_path / "listed", tmp_path / "outside"
    listed.mkdir()
    outside.mkdir()
    (outside / "a").write_text("secret")
    (listed / "a").symlink_to(outside / "a")
    (listed / "folder").symlink_to(outside)
    path = {"link": "a", "folder link": "folder/a", "dots": "../outside/a"}[planted]
    error = refused(f"file://{listed}/{path}", ArtifactPolicy(paths=(str(listed),)))
    assert "on this node: list it under artifacts.paths" in str(error)


def test_files_are_not_read_by_default(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    error = refused(f"file://{tmp_path}/a", ArtifactPolicy())
    assert str(error) == (
        "file: artifacts are not allowed on this node: list it under artifacts.paths in the agent's configuration"
    )


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    policy = ArtifactPolicy(paths=(str(tmp_path),))
    assert "it is no file" in str(refused(f"file://{tmp_path}/pipe", policy))
    assert "Is a directory" in str(refused(f"file://{tmp_path}", policy))
    assert "No such file" in str(refused(f"file://{tmp_path}/absent", policy))
    assert "is no path" in str(refused(f"file://{tmp_path}/a%00b", policy))
    assert "another machine" in str(refused(f"file://host{tmp_path}/absent", policy))
