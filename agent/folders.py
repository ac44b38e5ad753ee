"""The folders of allocations on this machine, and the files written into them without following any link.

`ROOT/<allocation>/`: `tasks/<task>` (the task's own, its user's), `shared` (for all tasks of the allocation) and `logs`
(the agent's alone). A task may plant links between two of its starts, so every step of a path is opened relative to
the folder before it, never through a link, and a file is put in place by a rename, which writes through no link
either. Source: Nomad's CVE-2020-27195 and GO-2024-3073.
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.doors import Account, FileContent, FolderError, TaskFolders
from trueup.models.ids import AllocationId

_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CLOSED: Final = 0o700
_PASSABLE: Final = 0o711
_OPEN_TO_ALL: Final = 0o777


class DiskFolders:
    """Folders below *root*, which is made when it is needed.

    Paths are joined as texts here: every start of a task comes through, and pathlib was a third of what that cost.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root.absolute())
        self._is_made = False

    def paths(self, allocation_id: AllocationId, task: str) -> TaskFolders:
        """Where the folders are, or would be. FolderError for names that would lead elsewhere."""
        base = f"{self._root}/{_name(allocation_id)}"
        return TaskFolders(
            task=Path(f"{base}/tasks/{_name(task)}"), shared=Path(f"{base}/shared"), logs=Path(f"{base}/logs")
        )

    def prepare(
        self, allocation_id: AllocationId, task: str, owner: Account | None, files: Sequence[FileContent]
    ) -> None:
        """Makes the folders and writes the files. Idempotent; what a task wrote there stays."""
        base = f"{self._root}/{_name(allocation_id)}"
        own = f"{base}/tasks/{_name(task)}"
        foreign = owner is not None and owner.uid != os.geteuid()
        try:
            self._make_outer(base, foreign=foreign)
            shared = _made_folder(f"{base}/shared", _CLOSED, None)
            try:
                if foreign or owner is None:
                    # Also where another of its tasks, of the agent's own user, came first.
                    os.fchmod(shared, _OPEN_TO_ALL)
            finally:
                os.close(shared)
            folder = _made_folder(own, _OPEN_TO_ALL if owner is None else _CLOSED, owner)
            try:
                for file in files:
                    _write(folder, file, owner)
            finally:
                os.close(folder)
        except OSError as error:
            raise FolderError(_in_words(error, own)) from error

    def remove(self, allocation_id: AllocationId) -> None:
        """Removes all of an allocation. FolderError if something is left."""
        path = f"{self._root}/{_name(allocation_id)}"
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise FolderError(_in_words(error, path)) from error

    def _make_outer(self, base: str, *, foreign: bool) -> None:
        """Folders of the agent's own, through which a task of another user must be able to pass."""
        if not self._is_made:
            Path(self._root).mkdir(_CLOSED, parents=True, exist_ok=True)
            self._is_made = True
        _make(base)
        _make(f"{base}/tasks")
        _make(f"{base}/logs")
        if foreign:
            for path in (Path(self._root).parent, Path(self._root), Path(base), Path(base, "tasks")):
                mode = stat.S_IMODE(path.stat().st_mode)
                if mode & _PASSABLE != _PASSABLE:
                    path.chmod(mode | _PASSABLE)


def _make(path: str) -> bool:
    """Makes a closed folder; False if it was there."""
    try:
        os.mkdir(path, _CLOSED)  # noqa: PTH102 - see DiskFolders
    except FileExistsError:
        return False
    return True


def _made_folder(path: str, mode: int, owner: Account | None) -> int:
    """An open folder that is no link, made with its rights and owner where it is absent."""
    made = _make(path)
    folder = os.open(path, _OPEN_FOLDER)
    if made and (mode != _CLOSED or owner is not None):
        try:
            _give(folder, owner)
            os.fchmod(folder, mode)
        except OSError:
            os.close(folder)
            raise
    return folder


def _write(root: int, file: FileContent, owner: Account | None) -> None:
    *above, name = _parts(file.path)
    folder = os.dup(root)
    try:
        for part in above:
            entered = _enter(folder, part, owner)
            os.close(folder)
            folder = entered
        _put_in_place(folder, name, file, owner)
    finally:
        os.close(folder)


def _enter(folder: int, part: str, owner: Account | None) -> int:
    """The folder *part* of *folder*, open; made where absent."""
    made = True
    try:
        os.mkdir(part, _CLOSED, dir_fd=folder)
    except FileExistsError:
        made = False
    entered = os.open(part, _OPEN_FOLDER, dir_fd=folder)
    if made:
        try:
            _give(entered, owner)
            os.fchmod(entered, _OPEN_TO_ALL if owner is None else 0o755)
        except OSError:
            os.close(entered)
            raise
    return entered


def _put_in_place(folder: int, name: str, file: FileContent, owner: Account | None) -> None:
    new = f".{name}.trueup-new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)
    written = os.open(new, _OPEN_NEW, 0o600, dir_fd=folder)
    with os.fdopen(written, "wb") as stream:
        stream.write(file.content.encode())
        stream.flush()
        _give(written, owner)
        os.fchmod(written, file.mode if owner is not None else file.mode | 0o044)
    os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)


def _give(descriptor: int, owner: Account | None) -> None:
    if owner is not None and owner.uid != os.geteuid():
        os.fchown(descriptor, owner.uid, owner.gid)


def _parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if path.startswith("/") or not parts or ".." in parts or "\0" in path:
        raise FolderError(f"files: {path!r} must be a path beneath the task's folder, without ..")
    return parts


def _name(text: str) -> str:
    if not text or "/" in text or "\0" in text or text.startswith("."):
        raise FolderError(f"{text!r} is no name of an allocation or task")
    return text


def _in_words(error: OSError, path: str) -> str:
    where = error.filename if isinstance(error.filename, str) and error.filename else path
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return f"{path}: a step of the path to {where!r} is a link or no folder; it is not followed"
    return f"{path}: cannot write {where!r}: {error.strerror}"
