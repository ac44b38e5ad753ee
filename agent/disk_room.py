"""Whether the disk of the agent's data folder has room for anything new, or less than what is to be kept free.

A node whose disk runs full fails its tasks in odd ways, and the agent cannot write its list. So a part is kept free:
below it nothing new is placed here and what ended allocations left is removed; what runs goes on. Source: Nomad's
`reserved.disk`, the kubelet's `nodefs.available`.
"""

import threading
from collections.abc import Callable
from typing import Final

from trueup.models.node import NodeUse
from trueup.models.units import rounded_size

MOST_KEPT_FREE: Final = 1024**3
LEAST_SHARE: Final = 20
"""Kept free unless told otherwise: a twentieth of the disk, at most 1 GiB. Small disks stay of use, large ones lose
nothing to speak of, and either has room for the agent's list and some lines of everybody's output."""
_ENOUGH_SHARE: Final = 4
_NEWS_SHARE: Final = 8


class DiskRoom:
    """The state of the disk, with hysteresis. Thread-safe.

    It is short of room below what is kept free, and until a quarter more than that is free: a disk around the limit
    does not have nodes come and go. What is said changes only with every eighth of it, since saying it is a change of
    the node.
    """

    def __init__(
        self,
        latest: Callable[[], NodeUse | None],
        measure: Callable[[], tuple[int, int]],
        kept_free_bytes: int | None = None,
    ) -> None:
        """Looks once. *latest* says at once what is known, *measure* how large the disk is and what is free of it.

        *measure* may take its time; a disk of 0 bytes could not be asked. *kept_free_bytes* None: the default.
        """
        self.on_short: Callable[[], None] = lambda: None
        self._latest, self._measure, self._kept_free_bytes = latest, measure, kept_free_bytes
        self._lock = threading.Lock()
        self._said_free_bytes: int | None = None
        self._disk_bytes = 0
        self.wants_room()

    @property
    def is_short(self) -> bool:
        """Whether nothing new can be taken, as far as is known. Never waits."""
        return self._said_free_bytes is not None

    @property
    def disk_bytes(self) -> int:
        """How large the disk is; 0 where it could not be asked yet."""
        return self._disk_bytes

    def trouble(self) -> str:
        """Why nothing new can be taken; empty if it can. Never waits; tells `on_short` when it begins."""
        used = self._latest()
        if used is not None:
            self._judge(used.disk_bytes, used.disk_free_bytes)
        said = self._said_free_bytes
        if said is None:
            return ""
        kept = kept_free(self._disk_bytes, self._kept_free_bytes)
        return f"disk pressure: {rounded_size(said)} free, {rounded_size(kept)} is kept free"

    def wants_room(self) -> bool:
        """Whether it is short of room, measured now; may wait for the disk."""
        self._judge(*self._measure())
        return self.is_short

    def _judge(self, disk_bytes: int, free_bytes: int) -> None:
        if not disk_bytes:
            return
        with self._lock:
            before, self._disk_bytes = self._said_free_bytes, disk_bytes
            kept = kept_free(disk_bytes, self._kept_free_bytes)
            enough = kept if before is None else kept + kept // _ENOUGH_SHARE
            if free_bytes >= enough:
                self._said_free_bytes = None
            elif before is None or abs(free_bytes - before) >= kept // _NEWS_SHARE:
                self._said_free_bytes = free_bytes
            has_begun = before is None and self._said_free_bytes is not None
        if has_begun:
            self.on_short()


def kept_free(disk_bytes: int, told_bytes: int | None) -> int:
    """How much of a disk is kept free: what the operator says, but never more than there is; else the default."""
    default = min(disk_bytes // LEAST_SHARE, MOST_KEPT_FREE)
    return default if told_bytes is None else min(told_bytes, disk_bytes)
