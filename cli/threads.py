"""Drives loops on threads: the one place where production waits.

Each loop has a thread that steps it when it is due or woken. A step that raises is logged and tried again after a
growing pause: level-triggered loops lose nothing by it, and no fault of one job may end the loop of all.
"""

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from reconciler.doors import Loop
from trueup.models.clock import Clock

STOP_SECONDS: Final = 5.0
"""How long a command that ends waits for the steps under way."""
RETRY_SECONDS: Final = 0.2
MAX_RETRY_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 10.0
"""The longest sleep without a look at the wall clock, which may jump: due times are wall-clock times."""


class LoopThreads:
    """Loops on threads of their own, from `start` to `stop`."""

    def __init__(self, clock: Clock, *, longest_pause_seconds: float = MAX_RETRY_SECONDS) -> None:
        """*longest_pause_seconds* is what a loop whose steps keep failing waits at most until the next."""
        self._clock = clock
        self._longest_pause_seconds = longest_pause_seconds
        self._log = structlog.stdlib.get_logger("trueup")
        self._stopping = threading.Event()
        self._drivers: dict[str, _Driver] = {}

    def add(self, name: str, loop: Loop) -> Callable[[], None]:
        """Adds a loop, before `start`; what is returned wakes it, from any thread, and may be called too often."""
        driver = _Driver(
            name=name,
            loop=loop,
            clock=self._clock,
            stopping=self._stopping,
            log=self._log,
            longest_pause_seconds=self._longest_pause_seconds,
        )
        self._drivers[name] = driver
        return driver.wake

    def wake(self, name: str) -> None:
        """Wakes the loop of that name."""
        self._drivers[name].wake()

    def start(self) -> None:
        """Starts a thread for each loop; each steps at once."""
        for driver in self._drivers.values():
            driver.thread.start()

    def stop(self, timeout_seconds: float) -> list[str]:
        """Lets every loop end its step and returns the names of those that did not within *timeout_seconds*.

        Threads are daemons, so a stuck step does not keep the process.
        """
        self._stopping.set()
        for driver in self._drivers.values():
            driver.wake()
        deadline = self._clock.monotonic() + timeout_seconds
        for driver in self._drivers.values():
            if driver.thread.ident is not None:
                driver.thread.join(max(0.0, deadline - self._clock.monotonic()))
        return [name for name, driver in self._drivers.items() if driver.thread.is_alive()]


class _Driver:
    def __init__(
        self,
        *,
        name: str,
        loop: Loop,
        clock: Clock,
        stopping: threading.Event,
        log: structlog.stdlib.BoundLogger,
        longest_pause_seconds: float,
    ) -> None:
        self._name = name
        self._loop = loop
        self._clock = clock
        self._stopping = stopping
        self._log = log
        self._longest_pause_seconds = longest_pause_seconds
        self._woken = threading.Event()
        self._failures = 0
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def wake(self) -> None:
        self._woken.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            # Cleared before the step: a wake that comes during it is seen after it.
            self._woken.clear()
            try:
                due_at = self._loop.step()
            except Exception:  # noqa: BLE001 - whatever it is, it is logged and the loop goes on
                self._pause_after_failure()
                continue
            self._failures = 0
            self._wait_until(due_at)

    def _pause_after_failure(self) -> None:
        pause_seconds = min(self._longest_pause_seconds, RETRY_SECONDS * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        self._log.exception("step failed", loop=self._name, retry_in_seconds=pause_seconds)
        # Not ended by a wake: what wakes often would turn the pause into a busy loop of failures.
        self._stopping.wait(pause_seconds)

    def _wait_until(self, due_at: datetime | None) -> None:
        if due_at is None:
            self._woken.wait()
            return
        # By either clock, whichever says so first: a wall clock that is set back must not silence heartbeats, and a
        # step that comes too early does nothing.
        end = self._clock.monotonic() + (due_at - self._clock.now()).total_seconds()
        while not self._woken.is_set():
            by_wall = (due_at - self._clock.now()).total_seconds()
            left_seconds = min(by_wall, end - self._clock.monotonic())
            if left_seconds <= 0:
                return
            self._woken.wait(min(left_seconds, LOOK_SECONDS))
