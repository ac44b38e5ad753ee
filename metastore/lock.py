"""One server per data folder: an advisory lock on `DATA/lock` that ends with the process, however it ends."""

import fcntl
import os
from pathlib import Path

from metastore.errors import FolderTaken


class DataLock:
    """Holds the folder's lock until `release`. The kernel gives it back when the process dies."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, folder: Path) -> "DataLock":
        """Takes the lock at once. FolderTaken names the process that has it."""
        path = folder / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise FolderTaken(
                f"{folder}: {who} is the server of this data folder; stop it first, or give this one --data of its own"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Gives the lock back; nothing happens if that was done before."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
