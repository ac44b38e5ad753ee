"""The folder of one attempt of one process task: what runs, and how it ended.

`DATA/tasks/ALLOCATION/TASK/ATTEMPT/` is the launch's one identity on this machine. Its files are written by the shim
(`shim/records.py`); none holds an argument or a variable of the task, since these may be secrets.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from agent.doors import DriverError, TaskHandle
from agent.drivers.identity import ProcessIdentity
from agent.drivers.shim import records
from agent.drivers.shim.watcher import CONTROL
from trueup.models.codec import Model, from_json
from trueup.models.ids import AllocationId

T = TypeVar("T")
_ABSENT: Final = (FileNotFoundError, NotADirectoryError)


class RunRecord(Model, frozen=True, kw_only=True):
    """`state.json`: the task's process and its shim.

    *rebuilt*: the agent wrote it, from what it found running after the shim's own was lost.
    """

    boot_id: str
    pid: int
    start_ticks: int
    shim_pid: int
    shim_start_ticks: int
    started_at: float
    cgroups: tuple[str, ...] = ()
    rebuilt: bool = False

    @property
    def main(self) -> ProcessIdentity:
        """The task's main process."""
        return ProcessIdentity(boot_id=self.boot_id, pid=self.pid, start_ticks=self.start_ticks)

    @property
    def shim(self) -> ProcessIdentity:
        """The shim that watches it."""
        return ProcessIdentity(boot_id=self.boot_id, pid=self.shim_pid, start_ticks=self.shim_start_ticks)


class EndRecord(Model, frozen=True, kw_only=True):
    """`exit.json`: how the task ended. *step* says which one failed, if its program never started."""

    exit_code: int | None = None
    signal: int | None = None
    oom_killed: bool = False
    pid: int | None = None
    started_at: float = 0
    finished_at: float = 0
    step: str = ""
    errno: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFolder:
    """Where one attempt is on record."""

    tasks: Path
    allocation_id: AllocationId
    task: str
    attempt: int

    @property
    def path(self) -> Path:
        return self.tasks / self.allocation_id / self.task / str(self.attempt)

    @property
    def control(self) -> str:
        """The name of the shim's socket in it."""
        return CONTROL

    def make(self) -> None:
        """Makes the folder, for the agent's user alone. Idempotent. DriverError where the disk has no room."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise DriverError(
                f"cannot keep records of the task in {self.path}: {error.strerror}", temporary=True
            ) from None

    def run(self) -> RunRecord | None:
        """What runs or ran, or None if nothing was started, or a loss of power took the record."""
        return self._read(records.STATE, RunRecord)

    def end(self) -> EndRecord | None:
        """How it ended, or None if it has not, or nobody was there to see."""
        return self._read(records.EXIT, EndRecord)

    def is_being_started(self) -> bool:
        """Whether a shim has it, though nothing is on record: one that an agent asked for which died meanwhile."""
        try:
            reserved = os.open(self.path / records.RESERVED, os.O_RDONLY | os.O_CLOEXEC)
        except _ABSENT:
            return False
        except OSError as error:
            raise _unreadable(error) from None
        try:
            fcntl.flock(reserved, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(reserved)
        return False

    def crash(self) -> str:
        """What a shim that broke down left to say."""
        with contextlib.suppress(OSError):
            return self.path.joinpath(records.CRASH).read_text("utf-8")
        return ""

    def write_run(self, run: RunRecord) -> None:
        """Records what runs, where the shim's own record was lost. DriverError where the disk has no room."""
        self.make()
        try:
            with self._opened() as folder:
                records.write_state(folder, msgspec.structs.asdict(run))
        except OSError as error:
            raise DriverError(f"cannot write in {self.path}: {error.strerror}", temporary=True) from None

    def write_end(self, end: EndRecord) -> None:
        """Records an end in the shim's stead."""
        with self._opened() as folder:
            records.write_exit(folder, msgspec.structs.asdict(end))

    def remove(self) -> None:
        """Removes it, and the folders above it that this leaves empty."""
        shutil.rmtree(self.path, ignore_errors=True)
        for above in (self.path.parent, self.path.parent.parent):
            try:
                above.rmdir()
            except OSError:
                return

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield folder
        finally:
            os.close(folder)

    def _read(self, name: str, kind: type[T]) -> T | None:
        """What a file says; None where it is not there, or not whole. DriverError where that cannot be known."""
        try:
            return from_json(self.path.joinpath(name).read_bytes(), kind)
        except (*_ABSENT, msgspec.MsgspecError):
            return None
        except OSError as error:
            raise _unreadable(error) from None


def _unreadable(error: OSError) -> DriverError:
    """An error is no absence: a task whose record could not be read may run."""
    return DriverError(f"a task's record cannot be read: {error.filename}: {error.strerror}", temporary=True)


def folder_of(tasks: Path, handle: TaskHandle) -> TaskFolder:
    """The folder of a handle. DriverError for names that would lead elsewhere."""
    for name in (handle.allocation_id, handle.task):
        if not name or "/" in name or "\0" in name or name.startswith("."):
            raise DriverError(f"{name!r} is no name of an allocation or task")
    return TaskFolder(
        tasks=tasks, allocation_id=handle.allocation_id, task=handle.task, attempt=handle.attempt
    )


def all_folders(tasks: Path) -> Iterator[TaskFolder]:
    """Every attempt on record, by allocation, task and attempt. One that is removed meanwhile is left out."""
    for allocation in _folders_in(tasks):
        for task in _folders_in(allocation):
            for attempt in _folders_in(task):
                if attempt.name.isdigit():
                    yield TaskFolder(
                        tasks=tasks,
                        allocation_id=AllocationId(allocation.name),
                        task=task.name,
                        attempt=int(attempt.name),
                    )


def _folders_in(path: Path) -> list[Path]:
    """Not by glob, which gives up as a whole where one folder vanishes under it."""
    try:
        with os.scandir(path) as entries:
            return sorted(Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False))
    except _ABSENT:
        return []


def moment(seconds: float) -> datetime:
    """A time as a shim writes it."""
    return datetime.fromtimestamp(seconds, UTC)
