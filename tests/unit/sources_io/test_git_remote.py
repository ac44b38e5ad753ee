"""Hostile and mistaken addresses, refs and folders are refused before any process starts."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.sources_io.repository import ManualClock, follow
from trueup.sources.git_remote import RefusedAddress, check_ref, check_root, parse_remote

_started: list[object] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in {"subprocess.Popen", "os.posix_spawn", "os.exec", "os.fork"}:
        _started.append(arguments)


sys.addaudithook(_note)


@pytest.fixture(autouse=True)
def _nothing_is_started() -> Iterator[None]:
    """Python tells of each process that is about to start."""
    _started.clear()
    yield
    assert _started == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-c",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c touch% /tmp/x",
        "fd::17",
        "git::https://example.org/x",
        "http://example.org/x.git",
        "git://example.org/x.git",
        "ftp://example.org/x",
        "ssh://-oProxyCommand=touch/x",
        "ssh://-luser@example.org/x",
        "-oProxyCommand=x@example.org:x",
        "git@-oProxyCommand=touch:x",
        "https://example.org/\nx",
        "https:///x",
        "https://exa mple.org/x",
        "https://example.org:port/x",
        "file://host/x",
        "a\x00b",
        "--help",
        "-u./x:y",
        "ext::ssh -oProxyCommand=x",
        "https::https://example.org/x",
        "https://-x/y",
        "https://example.org\r/x",
        "git@example.org:x\x1b]0;y",
    ],
)
def test_address_that_is_refused(url: str, tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(RefusedAddress):
        parse_remote(url)
    with pytest.raises(ValueError):
        follow(url, tmp_path / "data", clock)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "-x",
        "--help",
        "a b",
        "a..b",
        "a~1",
        "a^",
        "a:b",
        "x*",
        "a\nb",
        "@{u}",
        "@",
        "/a",
        "a/",
        "a.lock",
        "--upload-pack=touch",
        "refs/heads/../../x",
        "main@{1}",
        "a\x7fb",
        "a\x1bb",
        "a\\b",
        "[a]",
    ],
)
def test_ref_that_is_refused(ref: str, tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(RefusedAddress):
        check_ref(ref)
    with pytest.raises(ValueError):
        follow(tmp_path, tmp_path / "data", clock, ref=ref)


@pytest.mark.parametrize(
    "path", ["../x", "a/../../b", "..", "-x", "--help", ":(top)x", "a\nb", "a\0b", "a\x7f"]
)
def test_folder_that_is_refused(path: str, tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(RefusedAddress):
        check_root(path)
    with pytest.raises(ValueError):
        follow(tmp_path, tmp_path / "data", clock, paths=(path,))


@pytest.mark.parametrize(
    ("url", "transport", "address"),
    [
        ("https://example.org/team/specs.git", "https", "https://example.org/team/specs.git"),
        ("https://ann@example.org:8443/specs", "https", "https://example.org:8443/specs"),
        ("https://[::1]:8443/specs", "https", "https://[::1]:8443/specs"),
        ("ssh://git@example.org:2222/specs.git", "ssh", "ssh://git@example.org:2222/specs.git"),
        ("git@example.org:team/specs.git", "ssh", "git@example.org:team/specs.git"),
        ("file:///srv/specs", "file", "/srv/specs"),
        ("/srv/specs", "file", "/srv/specs"),
    ],
)
def test_address_that_is_taken(url: str, transport: str, address: str) -> None:
    remote = parse_remote(url)
    assert (remote.transport, remote.address) == (transport, address)
    assert remote.warning == ""


def test_password_in_the_address_is_taken_out(tmp_path: Path, clock: ManualClock) -> None:
    """It works, is warned about, and shows nowhere."""
    source = follow("https://ann:s3cret@example.org/specs.git", tmp_path / "data", clock)
    remote = parse_remote("https://ann:s3cret@example.org/specs.git")
    assert (remote.username, remote.password) == ("ann", "s3cret")
    assert "s3cret" not in repr(remote)
    assert "--git-token-file" in source.warning
    assert source.status.url == "https://example.org/specs.git"


def test_refused_address_does_not_show_its_password() -> None:
    with pytest.raises(RefusedAddress) as refusal:
        parse_remote("https://ann:s3cret@exa mple.org/x\n")
    assert "s3cret" not in str(refusal.value)
