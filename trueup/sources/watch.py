"""Watches folders and calls back when something in them may have changed. What changed, the reader finds out.

Events only hasten a look: where the kernel gives none (no inotify left, a network file system) readers look by
themselves, and after an overflow too.
"""

import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from watchdog.events import (
    EVENT_TYPE_CLOSED_NO_WRITE,
    EVENT_TYPE_MODIFIED,
    EVENT_TYPE_OPENED,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

_OURS: Final = frozenset({EVENT_TYPE_OPENED, EVENT_TYPE_CLOSED_NO_WRITE})
"""What reading makes, ours too: a reader woken by them would never rest."""
_REMOTE: Final = ("nfs", "cifs", "smb", "9p", "ceph", "gluster", "afs", "virtiofs", "fuse")
"""File systems where another machine may write, which no event here tells."""


class FolderWatch:
    """Watches folders with all in them, and single names, whose folder may hold much else.

    A folder's own name is watched, too, for it may be replaced as a whole. *wake* is called on a thread of the watch
    and must return at once. Where *matters* is False of a path, nobody is woken by a change of that file's content,
    nor by it being there.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        wake: Callable[[], None],
        *,
        names: Sequence[Path] = (),
        matters: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._folders = list(folders)
        self._names = [*folders, *names]
        self._wake = wake
        self._matters = matters
        self._observer: BaseObserver | None = None
        self._watched: list[tuple[int, int] | None] = []
        self._lock = threading.Lock()
        self._closed = False
        self._start()

    def is_complete(self) -> bool:
        """Whether every change is told. Watches again what was replaced since."""
        with self._lock:
            if not self._closed and self._watched != [_identity(folder) for folder in self._folders]:
                self._stop()
                self._start()
            return self._observer is not None and self._observer.is_alive() and None not in self._watched

    def renew(self) -> None:
        """Watches again, whatever it looks like: a folder made anew may have the number of the one that was removed."""
        with self._lock:
            if not self._closed:
                self._stop()
                self._start()

    def close(self) -> None:
        """Ends the watch; *wake* is not called any more."""
        with self._lock:
            self._closed = True
            self._stop()

    def _stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def _start(self) -> None:
        self._watched = [_identity(folder) for folder in self._folders]
        observer = Observer()
        handler = _Handler(self._wake, self._matters)
        try:
            for folder, identity in zip(self._folders, self._watched, strict=True):
                if identity is not None:
                    observer.schedule(handler, os.path.realpath(folder), recursive=True)
            for parent in sorted({name.parent for name in self._names}):
                only = frozenset(str(name) for name in self._names if name.parent == parent)
                if parent.is_dir():
                    observer.schedule(_Handler(self._wake, self._matters, only), str(parent), recursive=False)
            observer.start()
        except OSError:  # no watches or descriptors left
            observer.unschedule_all()
            return
        self._observer = observer


class _Handler(FileSystemEventHandler):
    """Wakes on every event, or on those of some names *only*."""

    def __init__(
        self,
        wake: Callable[[], None],
        matters: Callable[[str], bool],
        only: frozenset[str] | None = None,
    ) -> None:
        self._wake = wake
        self._matters = matters
        self._only = only

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _OURS or (event.is_directory and event.event_type == EVENT_TYPE_MODIFIED):
            return  # of a folder, that only says again what the event of a name in it said
        paths = {os.fsdecode(path) for path in (event.src_path, event.dest_path) if path}
        if self._only is not None and not self._only & paths:
            return
        if event.is_directory or any(self._matters(path) for path in paths):
            self._wake()


def _identity(folder: Path) -> tuple[int, int] | None:
    """Which folder it is, None if there is none or events would not tell all of it."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return None if is_remote(found.st_dev) else (found.st_dev, found.st_ino)


@lru_cache(maxsize=64)
def is_remote(device: int) -> bool:
    """Whether a device (as `os.stat` numbers it) is a file system of another machine, or of a program."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        mount, _, rest = line.partition(" - ")
        if mount.split(" ")[2] == wanted:
            return rest.split(" ")[0].startswith(_REMOTE)
    return False
