"""Puts a task's artifacts into its folder, unpacked where they are archives: `agent.doors.Artifacts`.

Once for each allocation: what a task changed in them stays when it starts again, and a start without a network works.
That they are there is written beside the task's folder, where no task can write, after all of them is on the disk.
"""

import ctypes
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from agent.artifacts.cache import ArtifactCache
from agent.artifacts.sources import ArtifactSources
from agent.artifacts.unpack import CHUNK, Member, UnpackLimits, is_archive, members
from agent.doors import Account, ArtifactError, ArtifactsUnwanted, TaskFolders, WantedArtifact
from agent.drivers.start_failure import is_temporary
from agent.task_tree import OPEN_FOLDER, TaskTree
from trueup.models.artifacts import name_of

_PROGRAM: Final = 0o755
"""What is fetched as it is may be the program itself."""


class PlacedArtifacts:
    """Artifacts of this node's tasks. Thread-safe for different tasks."""

    def __init__(
        self, sources: ArtifactSources, cache: ArtifactCache, limits: UnpackLimits | None = None
    ) -> None:
        self._sources = sources
        self._cache = cache
        self._limits = limits or UnpackLimits()

    def provide(
        self,
        wanted: Sequence[WantedArtifact],
        folders: TaskFolders,
        owner: Account | None,
        *,
        downloads: Callable[[str], None],
        is_unwanted: Callable[[], bool],
    ) -> None:
        """Puts all of *wanted* into the task's folder, which is there. ArtifactError, ArtifactsUnwanted."""
        note = _Note(folders, wanted)
        if note.is_written():
            return
        for one in wanted:
            self._sources.check(one)
        try:
            root = os.open(folders.task, OPEN_FOLDER)
            try:
                tree = TaskTree(root, owner)
                for one in wanted:
                    with self._cache.open(one, downloads, is_unwanted) as fetched:
                        self._put(tree, one, fetched, is_unwanted)
                _flush(root)
            finally:
                os.close(root)
            note.write()
        except OSError as error:
            raise ArtifactError(
                f"artifacts: cannot write into the task's folder: {_in_words(error)}",
                temporary=is_temporary(error.errno or 0),
            ) from error

    def clean_up(self) -> None:
        """Drops what was not used for long, and the oldest of what is too much."""
        self._cache.clean_up()

    def close(self) -> None:
        """Gives up what is being fetched."""
        self._cache.close()

    def _put(
        self, tree: TaskTree, one: WantedArtifact, fetched: BinaryIO, is_unwanted: Callable[[], bool]
    ) -> None:
        destination = _steps(one)
        name = name_of(one.source)
        if is_archive(name):
            try:
                self._unpack(tree, destination, members(name, fetched, self._limits), is_unwanted)
            except ArtifactError as error:
                raise ArtifactError(f"{one.shown}: {error}", temporary=error.temporary) from error
            return
        if one.destination.endswith("/") or not destination:
            if not name:
                raise ArtifactError(f"{one.shown} has no name; write a destination that ends in the file's")
            destination = [*destination, name]
        tree.write(destination, iter(lambda: fetched.read(CHUNK), b""), _PROGRAM)

    def _unpack(
        self,
        tree: TaskTree,
        destination: Sequence[str],
        found: Iterator[Member],
        is_unwanted: Callable[[], bool],
    ) -> None:
        tree.make_folder(destination)
        files: set[tuple[str, ...]] = set()
        for member in found:
            if is_unwanted():
                raise ArtifactsUnwanted
            path = [*destination, *member.path]
            match member.kind:
                case "folder":
                    tree.make_folder(path)
                case "file":
                    tree.write(path, member.chunks, member.mode)
                    files.add(member.path)
                case "link":
                    tree.link(path, member.target)
                    files.discard(member.path)
                case "hard link":
                    original = tuple(member.target.split("/"))
                    if original not in files:
                        raise ArtifactError(
                            f"the archive's link to {ascii(member.target)[:200]} leads to no file of it"
                        )
                    tree.link_hard(path, [*destination, *original])
                    files.add(member.path)


class _Note:
    """That a task's artifacts are in its folder: a file of the agent's own, beside it."""

    def __init__(self, folders: TaskFolders, wanted: Sequence[WantedArtifact]) -> None:
        self._path = folders.logs.parent / "artifacts" / folders.task.name
        # Sources may hold a secret: what is written down is no more than a digest.
        named = [(one.source, one.checksum, one.destination) for one in wanted]
        self._digest = hashlib.sha256(msgspec.json.encode(named)).hexdigest()

    def is_written(self) -> bool:
        try:
            return self._path.read_text("ascii").strip() == self._digest
        except (OSError, UnicodeError):
            return False

    def write(self) -> None:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        new = self._path.with_name(f".{self._path.name}.new")
        with new.open("w", encoding="ascii") as stream:
            stream.write(f"{self._digest}\n")
            stream.flush()
            os.fsync(stream.fileno())
        new.rename(self._path)


def _steps(one: WantedArtifact) -> list[str]:
    steps = [step for step in one.destination.split("/") if step not in {"", "."}]
    if one.destination.startswith("/") or ".." in steps or "\0" in one.destination:
        raise ArtifactError(
            f"{one.shown}: its destination must be a path beneath the task's folder, without .."
        )
    return steps


def _flush(folder: int) -> None:
    """All that was written to the file system of *folder*, on its disk: file by file it would take minutes."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(folder) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _in_words(error: OSError) -> str:
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return "a step of a path in it is a link or no folder; it is not followed"
    where = error.filename if isinstance(error.filename, str) else ""
    words = error.strerror or type(error).__name__
    return f"{words}: {Path(where).name!a}" if where else words
