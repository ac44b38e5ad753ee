"""A task's folder and what is written into it, without following any link.

A task may plant links between two of its starts, so every step of a path is opened relative to the folder before it,
never through a link, and a file is put in place by a rename, which writes through no link either. Source: Nomad's
CVE-2020-27195 and GO-2024-3073.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from agent.doors import Account

OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CLOSED: Final = 0o700
OPEN_TO_ALL: Final = 0o777
_OPEN_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_NAME: Final = 255
_NEW: Final = ".trueup-new"


class TaskTree:
    """What lies beneath the open folder *root*, which stays the caller's.

    All that is made belongs to *owner*; where that is None, since the user is known only inside an image, it is open to
    all beneath a closed folder. Paths are their steps, without `..`. OSError: ELOOP or ENOTDIR where a step is a link.
    """

    def __init__(self, root: int, owner: Account | None) -> None:
        self._root = root
        self._owner = owner

    def make_folder(self, path: Sequence[str]) -> None:
        """A folder and all above it; what is there stays as it is."""
        with self._entered(path):
            pass

    def write(self, path: Sequence[str], chunks: Iterable[bytes], mode: int) -> None:
        """A file, in the place of what was there; folders above it are made."""
        with self._entered(path[:-1]) as folder, _in_place(folder, path[-1]) as new:
            written = os.open(new, _OPEN_NEW, 0o600, dir_fd=folder)
            with os.fdopen(written, "wb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
                stream.flush()
                give(written, self._owner)
                os.fchmod(written, mode if self._owner is not None else _for_all(mode))

    def link(self, path: Sequence[str], target: str) -> None:
        """A symbolic link, in the place of what was there. Where it leads is the caller's to judge."""
        with self._entered(path[:-1]) as folder, _in_place(folder, path[-1]) as new:
            os.symlink(target, new, dir_fd=folder)
            if self._owner is not None and self._owner.uid != os.geteuid():
                os.chown(new, self._owner.uid, self._owner.gid, dir_fd=folder, follow_symlinks=False)

    def link_hard(self, path: Sequence[str], original: Sequence[str]) -> None:
        """A second name of the file *original*, which is another path."""
        with (
            self._entered(original[:-1]) as source,
            self._entered(path[:-1]) as folder,
            _in_place(folder, path[-1]) as new,
        ):
            # A rename between two names of one file does nothing, so a name it has already goes first.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path[-1], dir_fd=folder)
            os.link(original[-1], new, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)

    @contextlib.contextmanager
    def _entered(self, path: Sequence[str]) -> Iterator[int]:
        folder = os.dup(self._root)
        try:
            for part in path:
                entered = _enter(folder, part, self._owner)
                os.close(folder)
                folder = entered
            yield folder
        finally:
            os.close(folder)


def give(descriptor: int, owner: Account | None) -> None:
    """Hands an open file to *owner*, where that is another than the agent."""
    if owner is not None and owner.uid != os.geteuid():
        os.fchown(descriptor, owner.uid, owner.gid)


def _for_all(mode: int) -> int:
    """*mode* for a user that is not known yet: what the owner may read and run, all may."""
    return mode | 0o044 | (mode & 0o100) >> 3 | (mode & 0o100) >> 6


def _enter(folder: int, part: str, owner: Account | None) -> int:
    """The folder *part* of *folder*, open; made where absent."""
    made = True
    try:
        os.mkdir(part, CLOSED, dir_fd=folder)
    except FileExistsError:
        made = False
    entered = os.open(part, OPEN_FOLDER, dir_fd=folder)
    if made:
        try:
            give(entered, owner)
            os.fchmod(entered, OPEN_TO_ALL if owner is None else 0o755)
        except OSError:
            os.close(entered)
            raise
    return entered


@contextlib.contextmanager
def _in_place(folder: int, name: str) -> Iterator[str]:
    """The name under which something new is made, which then takes the place of *name*."""
    new = f".{name}{_NEW}"
    if len(os.fsencode(new)) > _LONGEST_NAME:
        new = _NEW
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)
    try:
        yield new
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=folder)
        raise
