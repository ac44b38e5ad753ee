"""How much of this machine is in use, measured apart: a disk that hangs may hold up a worker, never a heartbeat."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil
import structlog

from agent.doors import Workers
from trueup.models.clock import Clock
from trueup.models.node import NodeUse
from trueup.models.units import Bytes, Millicores

MEASURE_AGAIN_SECONDS: Final = 5.0
STALE_SECONDS: Final = 60.0
"""A measurement that old is none any more: the newest one hangs."""

_log = structlog.stdlib.get_logger("trueup.agent")


class UseSampler:
    """The newest measurement, and another one under way where that is old. Thread-safe, never waits."""

    def __init__(self, measure: Callable[[], NodeUse], workers: Workers, clock: Clock) -> None:
        self._measure, self._workers, self._clock = measure, workers, clock
        self._lock = threading.Lock()
        self._newest: NodeUse | None = None
        self._measured_at = self._asked_at = float("-inf")
        self._is_under_way = False

    def latest(self) -> NodeUse | None:
        """What is in use; None before the first measurement, and while there is none that is not stale."""
        now = self._clock.monotonic()
        with self._lock:
            is_due = not self._is_under_way and now - self._asked_at >= MEASURE_AGAIN_SECONDS
            if is_due:
                self._is_under_way, self._asked_at = True, now
        if is_due:
            self._workers.submit("usage", self._take)
        with self._lock:
            return self._newest if now - self._measured_at < STALE_SECONDS else None

    def _take(self) -> None:
        found: NodeUse | None = None
        try:
            found = self._measure()
        except Exception:  # noqa: BLE001 - whatever it is, the next one may do
            _log.exception("what is in use cannot be measured")
        with self._lock:
            self._is_under_way = False
            if found is not None:
                self._newest, self._measured_at = found, self._clock.monotonic()


class MachineMeter:
    """Measures this machine and the disk of *folder*: processors since the last measurement."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._busy, self._total = _processor_times()

    def __call__(self) -> NodeUse:
        """How it is now. A disk that cannot be asked counts as none."""
        memory = psutil.virtual_memory()
        disk, free = self.disk()
        return NodeUse(
            cpu_millicores=Millicores(self._processors()),
            memory_bytes=Bytes(memory.total - memory.available),
            disk_bytes=Bytes(disk),
            disk_free_bytes=Bytes(free),
        )

    def _processors(self) -> int:
        busy, total = _processor_times()
        share = (busy - self._busy) / (total - self._total) if total > self._total else 0.0
        self._busy, self._total = busy, total
        return round(min(max(share, 0.0), 1.0) * (psutil.cpu_count() or 1) * 1000)

    def disk(self) -> tuple[int, int]:
        """How large the folder's disk is, and what is free of it; 0 and 0 where it cannot be asked."""
        try:
            found = shutil.disk_usage(self._folder)
        except OSError:
            return 0, 0
        return found.total, found.free


def _processor_times() -> tuple[float, float]:
    """Seconds all processors were busy since the start of the machine, and those there were.

    Guests are in the time of users already. `psutil.cpu_percent` remembers by thread, and workers are many.
    """
    times = psutil.cpu_times()
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total
