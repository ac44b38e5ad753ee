"""What is in an archive, member by member, as a stream: nothing is written here, and nothing is read ahead.

An archive is somebody else's word. A member that would leave the folder it is unpacked into, a link that would lead
out of it, a device, a sparse map or a header without end is refused with the whole archive, as is one that unpacks to
more than a task may hold. Rights are those of data: no setuid, nothing writable for others. Source: PEP 706, and what
came after it (CVE-2025-4517): a link may climb only before it names anything, so no link of the archive changes what
`..` means.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import posixpath
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Literal, Protocol

from agent.doors import ArtifactError

CHUNK: Final = 256 * 1024
_HEADERS: Final = 4 * 1024**2
"""How much may be read between the contents of two members: the bound of what a header can make us hold."""
_DIRECTORY: Final = 16 * 1024**2
"""The largest table of contents of a zip archive: some 100,000 members."""
_XZ_MEMORY: Final = 256 * 1024**2
_LONGEST_TARGET: Final = 4096
_ENCRYPTED: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackLimits:
    """How much an archive may become."""

    total_bytes: int = 16 * 1024**3
    members: int = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file, folder or link of an archive. *path* are its steps, *target* where a link leads.

    *chunks* is the content of a file, to be read before the next member is asked for.
    """

    kind: Literal["file", "folder", "link", "hard link"]
    path: tuple[str, ...]
    mode: int = 0o644
    target: str = ""
    chunks: Iterable[bytes] = ()


class Readable(Protocol):
    """What is read from."""

    def read(self, size: int = -1, /) -> bytes: ...


def is_archive(name: str) -> bool:
    """Whether a file of that name is unpacked."""
    return _opener(name) is not None


def members(name: str, packed: BinaryIO, limits: UnpackLimits) -> Iterator[Member]:
    """The members of an archive, known by its name's ending. ArtifactError says what is refused, and why."""
    opener = _opener(name)
    if opener is None:
        raise ArtifactError("is no archive")
    kept = _Kept(limits)
    with _as_refusals():
        for member in opener(packed, kept):
            kept.count_member()
            yield member


@contextlib.contextmanager
def _as_refusals() -> Iterator[None]:
    """Whatever an archive makes the readers of the standard library say becomes an ArtifactError."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            # The disk's, not the archive's: those of broken archives have no number.
            raise
        raise _unreadable(error) from error
    except ArtifactError:
        raise
    except Exception as error:
        raise _unreadable(error) from error


class _Kept:
    """Counts what comes out of an archive, and says when it is enough."""

    def __init__(self, limits: UnpackLimits) -> None:
        self._limits = limits
        self._members = 0
        self._bytes = 0

    def count_member(self) -> None:
        self._members += 1
        if self._members > self._limits.members:
            raise ArtifactError(f"the archive has more than {self._limits.members} members")

    def chunks(self, source: Readable, size: int, shown: str) -> Iterator[bytes]:
        """The *size* bytes of a member."""
        left = size
        while left > 0:
            with _as_refusals():
                chunk = source.read(min(CHUNK, left))
            if not chunk:
                raise ArtifactError(f"the archive ends in the middle of {shown}")
            left -= len(chunk)
            self._bytes += len(chunk)
            if self._bytes > self._limits.total_bytes:
                raise ArtifactError(f"the archive unpacks to more than {self._limits.total_bytes} bytes")
            yield chunk


class _Metered(io.RawIOBase):
    """An unpacked stream of which only so much may be read until more is allowed."""

    def __init__(self, stream: Readable) -> None:
        super().__init__()
        self._stream = stream
        self._left = 0

    def allow(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        if self._left <= 0:
            raise ArtifactError("a header of the archive has no end")
        found = self._stream.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(found)
        return found


class _XzStream:
    """An xz stream, unpacked within bounded memory."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._decompressor = _xz()

    def read(self, size: int = -1, /) -> bytes:
        while True:
            if self._decompressor.eof:
                rest = self._decompressor.unused_data or self._packed.read(CHUNK)
                if not rest.strip(b"\0"):
                    return b""
                self._decompressor = _xz()
            elif self._decompressor.needs_input:
                rest = self._packed.read(CHUNK)
                if not rest:
                    raise EOFError("it ends too early")
            else:
                rest = b""
            found = self._decompressor.decompress(rest, size)
            if found:
                return found


class _Header(tarfile.TarInfo):
    """A header of a tar archive whose further headers are of bounded size, and that is no sparse file."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        found = super().frombuf(buf, encoding, errors)
        if found.type == tarfile.GNUTYPE_SPARSE:
            raise ArtifactError(f"the archive holds a sparse file, {_shown(found.name)}")
        if found.type not in _OF_MEMBERS and found.size > _HEADERS:
            raise ArtifactError("a header of the archive has no end")
        return found


_OF_MEMBERS: Final = frozenset({*tarfile.REGULAR_TYPES, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE})


def _tar(unpacked: Callable[[BinaryIO], Readable]) -> Callable[[BinaryIO, _Kept], Iterator[Member]]:
    return lambda packed, kept: _tar_members(unpacked(packed), kept)


def _tar_members(stream: Readable, kept: _Kept) -> Iterator[Member]:
    metered = _Metered(stream)
    metered.allow(_HEADERS)
    with tarfile.open(fileobj=metered, mode="r|", tarinfo=_Header, bufsize=CHUNK) as archive:
        while True:
            metered.allow(_HEADERS)
            found = archive.next()
            if found is None:
                return
            # It keeps every header for a random access that nobody makes.
            archive.members.clear()  # type: ignore[attr-defined] # as documented for ages, untyped
            metered.allow(max(found.size, 0) + _HEADERS)
            made = _tar_member(archive, found, kept)
            if made is not None:
                yield made


def _tar_member(archive: tarfile.TarFile, found: tarfile.TarInfo, kept: _Kept) -> Member | None:
    path = _steps(found.name)
    shown = _shown(found.name)
    if found.isdir():
        return Member(kind="folder", path=path) if path else None
    if not path:
        raise ArtifactError("the archive holds a member without a name")
    if found.issym():
        return _link(path, found.linkname)
    if found.islnk():
        original = _steps(found.linkname)
        if not original or original == path:
            raise ArtifactError(f"the archive's link {shown} leads nowhere")
        return Member(kind="hard link", path=path, target="/".join(original))
    if not found.isreg() or found.sparse:
        raise ArtifactError(f"the archive holds {shown}, which is no file, folder or link")
    content = archive.extractfile(found)
    if content is None:
        raise ArtifactError(f"the archive's member {shown} has no content")
    chunks = kept.chunks(content, found.size, shown)
    return Member(kind="file", path=path, mode=_rights(found.mode), chunks=chunks)


def _zip_members(packed: BinaryIO, kept: _Kept) -> Iterator[Member]:
    with zipfile.ZipFile(_BoundedReads(packed)) as archive:
        for found in archive.infolist():
            made = _zip_member(archive, found, kept)
            if made is not None:
                yield made


def _zip_member(archive: zipfile.ZipFile, found: zipfile.ZipInfo, kept: _Kept) -> Member | None:
    path, shown = _steps(found.filename), _shown(found.filename)
    mode = found.external_attr >> 16
    if found.is_dir():
        return Member(kind="folder", path=path) if path else None
    if not path:
        raise ArtifactError("the archive holds a member without a name")
    if found.flag_bits & _ENCRYPTED:
        raise ArtifactError(f"the archive's member {shown} is encrypted")
    if stat.S_ISLNK(mode):
        if found.file_size > _LONGEST_TARGET:
            raise ArtifactError(f"the archive's link {shown} is too long")
        with archive.open(found) as content:
            return _link(path, content.read(_LONGEST_TARGET).decode("utf-8", "surrogateescape"))
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        raise ArtifactError(f"the archive holds {shown}, which is no file, folder or link")
    return Member(kind="file", path=path, mode=_rights(mode or 0o644), chunks=_zipped(archive, found, kept))


def _zipped(archive: zipfile.ZipFile, found: zipfile.ZipInfo, kept: _Kept) -> Iterator[bytes]:
    with _as_refusals(), archive.open(found) as content:
        yield from kept.chunks(content, found.file_size, _shown(found.filename))


class _BoundedReads(io.RawIOBase):
    """A file that is not read in one piece: a zip archive's table of contents would be."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        if size > _DIRECTORY:
            raise ArtifactError("the archive's table of contents is too long")
        found = self._stream.read(_DIRECTORY + 1 if size < 0 else size)
        if len(found) > _DIRECTORY:
            raise ArtifactError("the archive's table of contents is too long")
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _link(path: tuple[str, ...], target: str) -> Member:
    """A symbolic link that stays beneath the folder it is unpacked into, whatever else the archive holds."""
    steps = [step for step in target.split("/") if step not in {"", "."}]
    climbs = 0
    while climbs < len(steps) and steps[climbs] == "..":
        climbs += 1
    leaves = target.startswith("/") or climbs >= len(path) or ".." in steps[climbs:]
    if leaves or not target or "\0" in target:
        shown = _shown(posixpath.join(*path))
        raise ArtifactError(f"the archive's link {shown} leads out of it, to {_shown(target)}")
    return Member(kind="link", path=path, target=target)


def _steps(name: str) -> tuple[str, ...]:
    steps = tuple(step for step in name.split("/") if step not in {"", "."})
    if name.startswith("/") or ".." in steps or "\0" in name:
        raise ArtifactError(f"the archive's member {_shown(name)} would be unpacked outside")
    return steps


def _rights(mode: int) -> int:
    """As PEP 706 has it for data: its owner can write it, nobody else; it is a program for all or for nobody."""
    kept = mode & 0o755 | 0o600
    return kept if kept & 0o100 else kept & ~0o111


def _shown(name: str) -> str:
    # Names come in any bytes, and messages go into JSON and onto terminals.
    return ascii(name if len(name) <= 200 else name[:199] + "…")


def _unreadable(error: Exception) -> ArtifactError:
    return ArtifactError(f"the archive cannot be read: {str(error)[:200] or type(error).__name__}")


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


def _opener(name: str) -> Callable[[BinaryIO, _Kept], Iterator[Member]] | None:
    lower = name.lower()
    return next((opener for ending, opener in _OPENERS.items() if lower.endswith(ending)), None)


_OPENERS: Final[dict[str, Callable[[BinaryIO, _Kept], Iterator[Member]]]] = {
    **dict.fromkeys((".tar.gz", ".tgz"), _tar(lambda packed: gzip.GzipFile(fileobj=packed))),
    **dict.fromkeys((".tar.xz", ".txz"), _tar(_XzStream)),
    **dict.fromkeys((".tar.bz2", ".tbz2"), _tar(bz2.BZ2File)),
    ".tar": _tar(lambda packed: packed),
    ".zip": _zip_members,
}
