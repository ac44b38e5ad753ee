"""Removes what ended allocations left, the longest ended first: where it is too much, or the disk is short of room.

What ended is kept for its output, until the control plane says that it is forgotten (`retention.allocations`). Two
bounds hold before that: a job that fails all day, or a disk that others fill, must not end in a node that takes
nothing. The record stays; only folders go. Part of the runner's loop and on its thread; only calls go to workers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from agent.calls import Calls
from agent.doors import Workers
from agent.held import Held
from trueup.models.ids import AllocationId

LOOK_AFTER: Final = timedelta(seconds=60)
"""How long after an end the bounds are looked at: many ends are one look."""
SHORT_AGAIN: Final = timedelta(seconds=30)
MOST_ENDED: Final = 500
_SHARE_OF_DISK: Final = 10

_log = structlog.stdlib.get_logger("trueup.agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much of what has ended stays at most. *size_bytes* None: a tenth of the disk."""

    count: int = MOST_ENDED
    size_bytes: int | None = None


class Disk(Protocol):
    """The disk the folders are on (`agent.disk_room.DiskRoom`)."""

    @property
    def is_short(self) -> bool:
        """Whether room is wanted, as far as is known."""
        ...

    @property
    def disk_bytes(self) -> int:
        """How large it is; 0: unknown."""
        ...

    def wants_room(self) -> bool:
        """The same as `is_short`, measured now; may wait."""
        ...


@dataclass(slots=True)
class AmpleDisk:
    """A disk that is never short of room: for an agent that keeps nothing on one."""

    is_short: bool = False
    disk_bytes: int = 0

    def wants_room(self) -> bool:
        """No."""
        return self.is_short


class FolderRoom:
    """Keeps to the bounds."""

    def __init__(
        self,
        *,
        calls: Calls,
        workers: Workers,
        held: Mapping[AllocationId, Held],
        disk: Disk,
        bounds: Bounds,
        hand_in: Callable[[Callable[[], None]], None],
    ) -> None:
        """*held* is the runner's own; *hand_in* takes work for its thread."""
        self._calls, self._workers, self._held, self._hand_in = calls, workers, held, hand_in
        self._disk, self._bounds = disk, bounds
        self._due_at: datetime | None = None
        self._short_at: datetime | None = None
        self._is_under_way = False
        self._emptied: set[AllocationId] = set()
        self._sizes: dict[AllocationId, int] = {}

    @property
    def next_at(self) -> datetime | None:
        """When there is something to look at (steady)."""
        if self._is_under_way:
            return None
        points = [self._due_at, self._short_at if self._disk.is_short else None]
        return min((point for point in points if point is not None), default=None)

    def ended(self, steady: datetime) -> None:
        """An allocation has ended, or those of an earlier agent were taken up."""
        if self._due_at is None:
            self._due_at = steady + LOOK_AFTER

    def step(self, steady: datetime) -> None:
        """Looks if that is due: at once when the disk begins to be short of room."""
        if not self._disk.is_short:
            self._short_at = None
        elif self._short_at is None:
            self._short_at = steady
        next_at = self.next_at
        if next_at is None or next_at > steady:
            return
        self._due_at, self._is_under_way = None, True
        if self._short_at is not None:
            self._short_at = steady + SHORT_AGAIN
        oldest_first = self._ended()
        self._workers.submit("folders", lambda: self._make_room(oldest_first))

    def _ended(self) -> Sequence[AllocationId]:
        """What has ended and left no task with its driver, the longest ended first."""
        found = []
        for key, held in self._held.items():
            tasks = held.record.tasks.values()
            if (
                held.record.has_ended
                and key not in self._emptied
                and all(task.handle is None for task in tasks)
            ):
                ends = [task.finished_at for task in tasks if task.finished_at is not None]
                found.append((max(ends, default=held.assignment.allocation.created_at), key))
        self._emptied &= self._held.keys()
        self._sizes = {key: size for key, size in self._sizes.items() if key in self._held}
        return [key for _, key in sorted(found)]

    def _make_room(self, oldest_first: Sequence[AllocationId]) -> None:
        """On a worker."""
        known = dict(self._sizes)
        sizes = {key: known[key] if key in known else self._calls.folder_bytes(key) for key in oldest_first}
        most = self._bounds.size_bytes
        if most is None:
            most = self._disk.disk_bytes // _SHARE_OF_DISK or None
        count, total = len(sizes), sum(sizes.values())
        emptied = []
        for key in oldest_first:
            if (
                count <= self._bounds.count
                and (most is None or total <= most)
                and not self._disk.wants_room()
            ):
                break
            self._calls.remove_folders(key)
            count, total = count - 1, total - sizes[key]
            emptied.append(key)
        self._hand_in(lambda: self._made(sizes, emptied))

    def _made(self, sizes: Mapping[AllocationId, int], emptied: Sequence[AllocationId]) -> None:
        self._is_under_way = False
        self._sizes |= sizes
        self._emptied |= set(emptied)
        for key in emptied:
            _log.info("folders of an ended allocation removed for room", allocation=key, bytes=sizes[key])
