"""The folders of allocations on this machine, and the files written into them without following any link.

`ROOT/<allocation>/`: `tasks/<task>` (the task's own, its user's), `shared` (for all tasks of the allocation) and `logs`
(the agent's alone). What is written into a task's folder goes through `agent.task_tree`, which follows no link.
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
from agent.drivers.start_failure import is_temporary
from agent.task_tree import CLOSED, OPEN_FOLDER, OPEN_TO_ALL, TaskTree, give
from trueup.models.ids import AllocationId

_PASSABLE: Final = 0o711
_BLOCK: Final = 512


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
            shared = _made_folder(f"{base}/shared", CLOSED, None)
            try:
                if foreign or owner is None:
                    # Also where another of its tasks, of the agent's own user, came first.
                    os.fchmod(shared, OPEN_TO_ALL)
            finally:
                os.close(shared)
            folder = _made_folder(own, OPEN_TO_ALL if owner is None else CLOSED, owner)
            try:
                tree = TaskTree(folder, owner)
                for file in files:
                    tree.write(_parts(file.path), [file.content.encode()], file.mode)
            finally:
                os.close(folder)
        except OSError as error:
            raise FolderError(_in_words(error, own), temporary=is_temporary(error.errno or 0)) from error

    def remove(self, allocation_id: AllocationId) -> None:
        """Removes all of an allocation. FolderError if something is left."""
        path = f"{self._root}/{_name(allocation_id)}"
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise FolderError(_in_words(error, path)) from error

    def size_bytes(self, allocation_id: AllocationId) -> int:
        """What its files take of the disk; no link is followed, and what cannot be looked at counts as nothing."""
        path = f"{self._root}/{_name(allocation_id)}"
        found = 0
        for folder, _, files in os.walk(path):
            for name in files:
                with contextlib.suppress(OSError):
                    found += os.lstat(f"{folder}/{name}").st_blocks * _BLOCK
        return found

    def all(self) -> Sequence[AllocationId]:
        """Every allocation that has folders here. FolderError."""
        try:
            with os.scandir(self._root) as entries:
                found = [one.name for one in entries if one.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise FolderError(_in_words(error, self._root)) from error
        return [AllocationId(name) for name in sorted(found) if not name.startswith(".")]

    def _make_outer(self, base: str, *, foreign: bool) -> None:
        """Folders of the agent's own, through which a task of another user must be able to pass."""
        if not self._is_made:
            Path(self._root).mkdir(CLOSED, parents=True, exist_ok=True)
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
        os.mkdir(path, CLOSED)  # noqa: PTH102 - see DiskFolders
    except FileExistsError:
        return False
    return True


def _made_folder(path: str, mode: int, owner: Account | None) -> int:
    """An open folder that is no link, made with its rights and owner where it is absent."""
    made = _make(path)
    folder = os.open(path, OPEN_FOLDER)
    if made and (mode != CLOSED or owner is not None):
        try:
            give(folder, owner)
            os.fchmod(folder, mode)
        except OSError:
            os.close(folder)
            raise
    return folder


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
