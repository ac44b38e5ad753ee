"""Requests that wait for something newer: blocking reads, event streams, followed logs.

Each holds a thread, so their number is capped, and each looks now and then whether its client is still there.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Final

from api.problems import Problem, gone
from trueup.models.clock import Clock

DEFAULT_WAIT: Final = timedelta(seconds=30)
MAX_WAIT: Final = timedelta(minutes=10)
_LOOK_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 5


class Watchers:
    """The cap on requests that wait."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self._lock = threading.Lock()
        self._count = 0

    @property
    def count(self) -> int:
        """How many wait now."""
        return self._count

    @contextmanager
    def one(self) -> Iterator[None]:
        """Counts a waiting request. 503 with `Retry-After` when there are *cap* already."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """Counts one in, as `one` does, for those that end elsewhere."""
        with self._lock:
            if self._count >= self.cap:
                raise Problem(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"{self.cap} requests wait already, which is the cap; ask without waiting, or later",
                    retry_after=str(_RETRY_SECONDS),
                )
            self._count += 1

    def leave(self) -> None:
        """Counts one out."""
        with self._lock:
            self._count -= 1


class Waiter:
    """Waits on the store until its index is newer, the server stops, or the client hung up."""

    def __init__(
        self,
        *,
        index: Callable[[], int],
        wait_newer: Callable[[int, float], object],
        clock: Clock,
        stopping: threading.Event,
    ) -> None:
        self._index = index
        self._wait_newer = wait_newer
        self._clock = clock
        self._stopping = stopping

    def until_newer(self, than: int, *, at_most: timedelta, peer_gone: Callable[[], bool]) -> bool:
        """Blocks until the store's index is greater than *than*; False if that did not come to pass."""
        deadline = self._clock.monotonic() + at_most.total_seconds()
        while self._index() <= than:
            left = deadline - self._clock.monotonic()
            if left <= 0 or self._stopping.is_set() or peer_gone():
                return False
            self._wait_newer(than, min(left, _LOOK_SECONDS))
        return True

    def check_index(self, index: int) -> None:
        """410 if *index* is ahead of the store: it was given out in another epoch."""
        if index > self._index():
            raise gone(
                f"index {index} is ahead of this store, which was made anew or restored since; begin without it"
            )
