"""Threads for calls that may block, as `agent.doors.Workers`: in order for one key, side by side for
different ones.

A slow start or a check that hangs takes a thread, never the runner's, and only one of its own driver's. Threads are
made when they are needed and end with the agent; they are daemons, so that a call without an end does not keep the
process.
"""

import threading
from collections import deque
from collections.abc import Callable

import structlog

_log = structlog.stdlib.get_logger("trueup.agent")

Work = Callable[[], None]


class ThreadWorkers:
    """At most *limit* threads."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._lock = threading.Condition()
        self._waiting: dict[str, deque[Work]] = {}
        self._ready: deque[str] = deque()
        self._idle = 0
        self._threads = 0
        self._closed = False

    def submit(self, key: str, work: Work) -> None:
        """Has *work* done soon; after `close` it is dropped."""
        with self._lock:
            if self._closed:
                return
            queue = self._waiting.get(key)
            if queue is not None:
                queue.append(work)
                return
            self._waiting[key] = deque([work])
            self._ready.append(key)
            if self._idle >= len(self._ready):
                self._lock.notify()
            elif self._threads < self._limit:
                self._threads += 1
                number = self._threads
                threading.Thread(target=self._run, name=f"{self._name}-{number}", daemon=True).start()

    def close(self) -> None:
        """Drops what was not begun; what is under way ends by itself."""
        with self._lock:
            self._closed = True
            self._ready.clear()
            self._waiting.clear()
            self._lock.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._ready:
                    if self._closed:
                        return
                    self._idle += 1
                    self._lock.wait()
                    self._idle -= 1
                key = self._ready.popleft()
                work = self._waiting[key].popleft()
            try:
                work()
            except Exception:  # noqa: BLE001 - the thread goes on: others' work waits for it
                _log.exception("work failed", key=key)
            finally:
                self._done(key)

    def _done(self, key: str) -> None:
        with self._lock:
            queue = self._waiting.get(key)
            if queue:
                self._ready.append(key)
            else:
                self._waiting.pop(key, None)


class DriverPools:
    """Threads for each driver, at most *limit* each, as `agent.doors.DriverWorkers`."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._lock = threading.Lock()
        self._pools: dict[str, ThreadWorkers] = {}
        self._closed = False

    def of(self, driver: str) -> ThreadWorkers:
        """Those for calls of *driver*; of an empty name, for what concerns none."""
        with self._lock:
            pool = self._pools.get(driver)
            if pool is None:
                name = f"{self._name}-{driver}" if driver else self._name
                pool = self._pools[driver] = ThreadWorkers(name, self._limit)
                if self._closed:
                    pool.close()
            return pool

    def close(self) -> None:
        """Drops what was not begun; what is under way ends by itself."""
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
        for pool in pools:
            pool.close()


class InlineWorkers:
    """Does each work at once, on the caller's thread: for the simulator, where everything happens in one order."""

    def of(self, _driver: str) -> "InlineWorkers":
        """Itself, for every driver."""
        return self

    def submit(self, _key: str, work: Work) -> None:
        """Does *work*."""
        work()

    def close(self) -> None:
        """Has nothing to close."""
