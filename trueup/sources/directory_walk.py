"""One walk over a spec folder: every name with its stat, nothing read but `.trueupignore`.

No step leaves the root: folders are opened from their parent's descriptor without following links, and links are
resolved here, name by name. A link that leaves the root is an error of its own; one through a hidden folder inside it
is followed, as Kubernetes lays out a ConfigMap.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from trueup.models.source_error import SourceUnavailable
from trueup.sources.ignore import NO_RULES, IgnoreRules
from trueup.sources.snapshot import (
    IGNORE_FILE,
    MAX_FILE_BYTES,
    MAX_TREE_BYTES,
    MAX_TREE_FILES,
    is_document_name,
)

LEAVES_ROOT: Final = "is a link that leaves the spec tree"
TOO_LARGE: Final = f"is larger than {MAX_FILE_BYTES // 1024**2} MiB"
TREE_TOO_LARGE: Final = (
    f"holds more than {MAX_TREE_FILES} files or {MAX_TREE_BYTES // 1024**2} MiB; name a sub-folder of it as the source,"
    f" or list what is no spec in {IGNORE_FILE}"
)
_MAX_DEPTH: Final = 64
_MAX_LINKS: Final = 40
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Signature(NamedTuple):
    """By what a change of a file is seen without reading it."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


class Entry(NamedTuple):
    """A regular file. *real* is where it lies in the root, past all links; *document* as in SpecFile."""

    real: str
    document: bool
    signature: Signature


@dataclass(slots=True, kw_only=True)
class Walk:
    """What one walk found, by path. Two that are equal saw the same tree.

    *refused* and *unusable* as in Snapshot, with the reason; *mounts* are the folders where another file system
    begins; *root* is the root folder's device and inode.
    """

    root: tuple[int, int]
    entries: dict[str, Entry] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    mounts: set[str] = field(default_factory=set)


class Refused(Exception):
    """A name that cannot be followed, with the reason."""


def walk_folder(root: Path) -> Walk:
    """Walks *root*. SourceUnavailable when the root itself cannot be read whole, or the tree is too large."""
    try:
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SourceUnavailable(f"{root} does not exist") from None
    except NotADirectoryError:
        raise SourceUnavailable(f"{root} is no folder") from None
    except OSError as error:
        raise SourceUnavailable(f"{root} cannot be read: {error.strerror}") from None
    try:
        return _Walker(root, root_fd).walk()
    finally:
        os.close(root_fd)


@contextmanager
def open_file(root: Path, real: str) -> Iterator[int]:
    """A descriptor of the file at *real*, whose folders must not be links. OSError if it cannot be opened."""
    *folders, name = real.split("/")
    folder = _open_below(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), folders)
    try:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def signature_of(found: os.stat_result) -> Signature:
    """The signature in a stat result."""
    return Signature(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """An open folder: *path* as the tree shows it, *real* past all links (both empty for the root).

    *above* are the device and inode of every folder on the way to it, its own last, so that no link makes a loop.
    """

    descriptor: int
    path: str
    real: str
    above: tuple[tuple[int, int], ...]


class _Walker:
    def __init__(self, root: Path, root_fd: int) -> None:
        self._root = root
        self._root_fd = root_fd
        at = os.fstat(root_fd)
        self._found = Walk(root=(at.st_dev, at.st_ino))
        self._texts: dict[str, bytes] = {}
        self._rules = NO_RULES
        self._bytes = 0

    def walk(self) -> Walk:
        try:
            self._folder(_Folder(descriptor=self._root_fd, path="", real="", above=(self._found.root,)))
        except OSError as error:
            raise SourceUnavailable(f"{self._root} cannot be read: {error.strerror}") from None
        return self._found

    def _folder(self, folder: _Folder) -> None:
        with os.scandir(folder.descriptor) as names:
            entries = sorted(names, key=lambda entry: entry.name)
        if any(entry.name == IGNORE_FILE for entry in entries):
            self._read_rules(folder)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = _join(folder.path, entry.name)
            if not _is_text(path):
                shown = os.fsencode(path).decode("utf-8", "backslashreplace")
                self._refuse_file(shown, "has a name that is no UTF-8", document=is_document_name(path))
                continue
            with suppress(FileNotFoundError):  # it went while we looked: the next walk differs, then
                self._take(folder, entry, path)

    def _take(self, folder: _Folder, entry: "os.DirEntry[str]", path: str) -> None:
        found = entry.stat(follow_symlinks=False)
        real = _join(folder.real, entry.name)
        if stat.S_ISLNK(found.st_mode):
            try:
                real, found = self._resolve(real)
            except Refused as refusal:
                self._refuse_link(folder, path, str(refusal))
                return
        if stat.S_ISDIR(found.st_mode):
            self._inner_folder(folder, path, real, found)
        else:
            self._file(path, real, found)

    def _inner_folder(self, folder: _Folder, path: str, real: str, found: os.stat_result) -> None:
        identity = (found.st_dev, found.st_ino)
        if self._rules.ignores(path, folder=True):
            return
        if identity in folder.above:
            self._found.refused[path] = "is a link to a folder that it lies in"
            return
        if len(folder.above) > _MAX_DEPTH:
            self._found.refused[path] = f"lies more than {_MAX_DEPTH} folders deep"
            return
        if found.st_dev != folder.above[-1][0]:
            self._found.mounts.add(path)
        try:
            descriptor = self._open_folder(folder, path, real)
        except FileNotFoundError:
            return
        except OSError as error:
            self._found.refused[path] = f"is a folder that cannot be read: {error.strerror}"
            return
        try:
            self._folder(
                _Folder(descriptor=descriptor, path=path, real=real, above=(*folder.above, identity))
            )
        finally:
            os.close(descriptor)

    def _open_folder(self, folder: _Folder, path: str, real: str) -> int:
        name = path.rpartition("/")[2]
        if real == _join(folder.real, name):
            return os.open(name, _FOLDER, dir_fd=folder.descriptor)
        return _open_below(os.dup(self._root_fd), real.split("/"))

    def _file(self, path: str, real: str, found: os.stat_result) -> None:
        document = is_document_name(path) and not self._rules.ignores(path, folder=False)
        if not stat.S_ISREG(found.st_mode):
            self._refuse_file(path, "is no regular file", document=document)
        elif found.st_size > MAX_FILE_BYTES:
            self._refuse_file(path, TOO_LARGE, document=document)
        else:
            self._found.entries[path] = Entry(real, document, signature_of(found))
            self._bytes += found.st_size
            self._check_limits()

    def _check_limits(self) -> None:
        if len(self._found.entries) > MAX_TREE_FILES or self._bytes > MAX_TREE_BYTES:
            raise SourceUnavailable(f"{self._root} {TREE_TOO_LARGE}")

    def _refuse_file(self, path: str, reason: str, *, document: bool) -> None:
        (self._found.refused if document else self._found.unusable)[path] = reason

    def _refuse_link(self, folder: _Folder, path: str, reason: str) -> None:
        """What a link that goes nowhere would have been is told by its name, or by what is there beyond the root."""
        if self._rules.ignores(path, folder=False):
            self._found.unusable[path] = reason
            return
        document = is_document_name(path)
        if not document:
            with suppress(OSError):
                beyond = os.stat(path.rpartition("/")[2], dir_fd=folder.descriptor)
                document = stat.S_ISDIR(beyond.st_mode)
        self._refuse_file(path, reason, document=document)

    def _resolve(self, path: str) -> tuple[str, os.stat_result]:
        """Where *path* leads, and the stat of it. Refused if it leaves the root at any step, or ends nowhere."""
        waiting = path.split("/")[::-1]
        done: list[str] = []
        links = 0
        found = os.fstat(self._root_fd)
        while waiting:
            part = waiting.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                if not done:
                    raise Refused(LEAVES_ROOT)
                done.pop()
                found = self._stat(done)
                continue
            found = self._stat([*done, part])
            if not stat.S_ISLNK(found.st_mode):
                done.append(part)
                continue
            links += 1
            target = os.readlink("/".join([*done, part]), dir_fd=self._root_fd)
            if links > _MAX_LINKS:
                raise Refused("is a link that leads to itself")
            if target.startswith("/"):
                raise Refused(LEAVES_ROOT)
            waiting.extend(reversed(target.split("/")))
            found = self._stat(done)
        return "/".join(done), found

    def _stat(self, parts: list[str]) -> os.stat_result:
        if not parts:
            return os.fstat(self._root_fd)
        try:
            return os.stat("/".join(parts), dir_fd=self._root_fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            raise Refused("is a link to nothing") from None
        except OSError as error:
            raise Refused(f"is a link that cannot be followed: {error.strerror}") from None

    def _read_rules(self, folder: _Folder) -> None:
        """Adds the patterns of a folder. Unread, they would let in what they keep out: no tree, then."""
        path = _join(folder.path, IGNORE_FILE)
        try:
            real, found = self._resolve(_join(folder.real, IGNORE_FILE))
            text = self._read_small(real) if stat.S_ISREG(found.st_mode) else None
        except Refused as refusal:
            raise SourceUnavailable(f"{self._root}: {path}: {refusal}") from None
        except OSError as error:
            raise SourceUnavailable(f"{self._root}: {path} cannot be read: {error.strerror}") from None
        if text is None:
            raise SourceUnavailable(f"{self._root}: {path} is no regular file")
        self._texts[folder.path] = text
        self._rules = IgnoreRules(self._texts)

    def _read_small(self, real: str) -> bytes:
        with open_file(self._root, real) as descriptor:
            return os.read(descriptor, MAX_FILE_BYTES)


def _open_below(folder: int, parts: list[str]) -> int:
    """Opens one folder after the other, none of them a link. Takes *folder* over."""
    for part in parts:
        try:
            inner = os.open(part, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
