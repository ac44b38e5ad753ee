"""What comes out of archives, and what is refused."""

import io
import stat
import tarfile
import tracemalloc

import pytest

from agent.artifacts.unpack import UnpackLimits, is_archive, members
from agent.doors import ArtifactError
from tests.unit.agent.archives import a_file, a_header, a_tar, a_zip

LIMITS = UnpackLimits()
PACKINGS = {".tar.gz": "gz", ".tgz": "gz", ".tar.xz": "xz", ".tar.bz2": "bz2", ".tar": ""}


def unpacked(name: str, packed: bytes, limits: UnpackLimits = LIMITS) -> dict[str, tuple[str, int, bytes]]:
    return {
        "/".join(one.path): (one.kind, one.mode, one.target.encode() or b"".join(one.chunks))
        for one in members(name, io.BytesIO(packed), limits)
    }


@pytest.mark.parametrize("ending", PACKINGS)
def test_every_packing_of_tar(ending: str) -> None:
    big = bytes(range(256)) * 4096
    packed = a_tar(
        [
            (a_header(".", tarfile.DIRTYPE), b""),
            (a_header("app", tarfile.DIRTYPE, mode=0o755), b""),
            a_file("./app/run", b"#!/bin/sh\n", 0o755),
            a_file("app/" + "long" * 60, big),
            (a_header("app/bin/start", tarfile.SYMTYPE, linkname="../run"), b""),
            (a_header("app/again", tarfile.LNKTYPE, linkname="./app/run"), b""),
        ],
        PACKINGS[ending],
    )
    assert unpacked(f"App-1{ending.upper()}", packed) == {
        "app": ("folder", 0o644, b""),
        "app/run": ("file", 0o755, b"#!/bin/sh\n"),
        "app/" + "long" * 60: ("file", 0o644, big),
        "app/bin/start": ("link", 0o644, b"../run"),
        "app/again": ("hard link", 0o644, b"app/run"),
    }


def test_a_zip() -> None:
    packed = a_zip(
        {"app/": b"", "app/run": b"run", "app/link": b"run", "plain": b"p" * 100_000},
        {"app/run": stat.S_IFREG | 0o755, "app/link": stat.S_IFLNK | 0o777, "plain": stat.S_IFREG | 0o644},
    )
    assert unpacked("x.zip", packed) == {
        "app": ("folder", 0o644, b""),
        "app/run": ("file", 0o755, b"run"),
        "app/link": ("link", 0o644, b"run"),
        "plain": ("file", 0o644, b"p" * 100_000),
    }


@pytest.mark.parametrize(
    ("mode", "kept"), [(0o6755, 0o755), (0o777, 0o755), (0o400, 0o600), (0o4011, 0o600), (0, 0o600)]
)
def test_rights_are_those_of_data(mode: int, kept: int) -> None:
    assert unpacked("x.tar.gz", a_tar([a_file("a", b"x", mode)]))["a"][1] == kept


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a/..", "..", "/"])
def test_a_member_that_would_leave_is_refused(name: str) -> None:
    for file, packed in (("x.tar", a_tar([a_file(name)], "")), ("x.zip", a_zip({name: b"x"}))):
        if file == "x.tar" and name == "/":
            continue
        with pytest.raises(ArtifactError, match="would be unpacked outside"):
            unpacked(file, packed)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a", "/etc/passwd"),
        ("a", ".."),
        ("a", "../x"),
        ("d/a", "../../x"),
        ("d/a", "b/../.."),
        # By its words it stays inside; where `up` leads up, it does not.
        ("d/a", "up/.."),
        ("a", ""),
    ],
)
def test_a_link_that_leads_out_is_refused(name: str, target: str) -> None:
    with pytest.raises(ArtifactError, match="leads out of it"):
        unpacked("x.tar", a_tar([(a_header(name, tarfile.SYMTYPE, linkname=target), b"")], ""))
    if target:
        packed = a_zip({name: target.encode()}, {name: stat.S_IFLNK | 0o777})
        with pytest.raises(ArtifactError, match="leads out of it"):
            unpacked("x.zip", packed)


@pytest.mark.parametrize("target", ["b", "./b/c", "../b", "..", "."])
def test_a_link_that_stays_is_taken(target: str) -> None:
    packed = a_tar([(a_header("d/a", tarfile.SYMTYPE, linkname=target), b"")], "")
    assert unpacked("x.tar", packed) == {"d/a": ("link", 0o644, target.encode())}


@pytest.mark.parametrize("target", ["../x", "/etc/passwd"])
def test_a_hard_link_that_leads_out_is_refused(target: str) -> None:
    with pytest.raises(ArtifactError, match="outside"):
        unpacked("x.tar", a_tar([(a_header("a", tarfile.LNKTYPE, linkname=target), b"")], ""))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_what_is_no_file_folder_or_link_is_refused(kind: bytes) -> None:
    with pytest.raises(ArtifactError, match="no file, folder or link"):
        unpacked("x.tar", a_tar([(a_header("dev", kind), b"")], ""))
    with pytest.raises(ArtifactError, match="no file, folder or link"):
        unpacked("x.zip", a_zip({"dev": b""}, {"dev": stat.S_IFCHR | 0o644}))


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.xz", "x.tar.bz2", "x.tar", "x.zip"])
def test_what_is_no_archive_is_refused(name: str) -> None:
    for broken in (b"", b"no archive at all" * 100, b"\x1f\x8b" + b"\0" * 600):
        with pytest.raises(ArtifactError, match=r"cannot be read|table of contents"):
            unpacked(name, broken)


def test_an_archive_that_is_cut_off_is_refused() -> None:
    for name, packed in (
        ("x.tar.gz", a_tar([a_file("a", bytes(200_000))])),
        ("x.tar.xz", a_tar([a_file("a", bytes(200_000))], "xz")),
        ("x.tar", a_tar([a_file("a", bytes(200_000))], "")),
    ):
        with pytest.raises(ArtifactError):
            unpacked(name, packed[: len(packed) // 2])


def test_a_damaged_zip_is_refused() -> None:
    packed = bytearray(a_zip({"a": b"content" * 100}))
    packed[40] ^= 0xFF
    with pytest.raises(ArtifactError, match="cannot be read"):
        unpacked("x.zip", bytes(packed))


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
def test_what_unpacks_to_too_much_is_refused(name: str) -> None:
    content = bytes(2_000_000)
    packed = a_tar([a_file("a", content)]) if name == "x.tar.gz" else a_zip({"a": content})
    with pytest.raises(ArtifactError, match="unpacks to more than 1000000 bytes"):
        unpacked(name, packed, UnpackLimits(total_bytes=1_000_000))


def test_too_many_members_are_refused() -> None:
    packed = a_tar([a_file(str(number)) for number in range(20)])
    with pytest.raises(ArtifactError, match="more than 10 members"):
        unpacked("x.tar.gz", packed, UnpackLimits(members=10))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_gigabytes_is_refused_before_it_is_held(kind: bytes) -> None:
    size = 8 * 1024**3
    header = a_header("big", kind, size).tobuf(tarfile.GNU_FORMAT)
    stream = io.BytesIO(header + bytes(64 * 1024**2))
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="header of the archive has no end"):
        list(members("x.tar", stream, LIMITS))
    assert tracemalloc.get_traced_memory()[1] < 16 * 1024**2
    tracemalloc.stop()


def test_headers_after_headers_end() -> None:
    """Each is small; together they would fill the memory, and a chain of them the stack."""
    one = a_header("n", tarfile.XHDTYPE, 512).tobuf(tarfile.GNU_FORMAT) + b"11 path=abc\n".ljust(512, b"\0")
    with pytest.raises(ArtifactError):
        unpacked("x.tar", one * 20_000)


def test_a_sparse_file_is_refused() -> None:
    header = a_header("s", tarfile.GNUTYPE_SPARSE, 0).tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(ArtifactError, match="sparse"):
        unpacked("x.tar", header + bytes(1024))


def test_a_table_of_contents_of_gigabytes_is_refused() -> None:
    packed = bytearray(a_zip({"a": b"x"}))
    end = packed.rindex(b"PK\x05\x06")
    packed[end + 12 : end + 16] = (0x7FFFFFFF).to_bytes(4, "little")
    with pytest.raises(ArtifactError):
        unpacked("x.zip", bytes(packed))


def test_names_that_no_text_holds_are_said_in_plain_letters() -> None:
    packed = a_tar([(a_header("a\udcff\x1b[2J", tarfile.FIFOTYPE), b"")], "")
    with pytest.raises(ArtifactError) as caught:
        unpacked("x.tar", packed)
    assert str(caught.value).isascii()
    assert "\x1b" not in str(caught.value)


def test_only_known_endings_are_unpacked() -> None:
    assert is_archive("a.TGZ")
    assert not is_archive("a.gz")
    assert not is_archive("tar")
