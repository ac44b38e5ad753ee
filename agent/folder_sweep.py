"""Removes folders of allocations that nothing here knows any more: neither a record nor a task that runs.

A record's folders go when it is forgotten; those of a journal that was lost, or of an agent that was killed just then,
stay behind. Part of the runner's loop and on its thread; only the calls go to workers.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from agent.calls import Calls
from agent.contact import Standing
from agent.doors import Workers
from agent.driver_watch import DriverWatch
from agent.held import Held
from trueup.models.ids import AllocationId

FIRST_AFTER: Final = timedelta(seconds=60)
"""How long after the control plane was first heard: what it wants here is back by then, also without a record."""
AGAIN_AFTER: Final = timedelta(hours=1)

_log = structlog.stdlib.get_logger("trueup.agent")


class FolderSweep:
    """Sweeps now and then, never while a driver has yet to say what runs."""

    def __init__(
        self,
        *,
        calls: Calls,
        workers: Workers,
        standing: Standing,
        held: Mapping[AllocationId, Held],
        drivers: DriverWatch,
        hand_in: Callable[[Callable[[], None]], None],
    ) -> None:
        """Does nothing before `heard`."""
        self._calls = calls
        self._workers = workers
        self._standing = standing
        self._held = held
        self._drivers = drivers
        self._hand_in = hand_in
        self._due_at: datetime | None = None

    @property
    def next_at(self) -> datetime | None:
        """When the next sweep is due (steady)."""
        return self._due_at

    def heard(self) -> None:
        """The control plane was heard for the first time."""
        self._due_at = self._standing.steady + FIRST_AFTER

    def step(self, steady: datetime) -> None:
        """Sweeps if that is due."""
        if self._due_at is None or self._due_at > steady:
            return
        if not self._drivers.have_recovered or not self._standing.obeys_stops:
            self._due_at = steady + FIRST_AFTER
            return
        self._due_at = steady + AGAIN_AFTER

        def work() -> None:
            found = self._calls.all_folders()
            self._hand_in(lambda: self._sweep(found))

        self._workers.submit("folders", work)

    def _sweep(self, found: Sequence[AllocationId]) -> None:
        for one in found:
            if one not in self._held and not self._drivers.has_orphans_of(one):
                _log.info("folders without a record removed", allocation=one)
                self._workers.submit(str(one), lambda gone=one: self._calls.remove_folders(gone))  # type: ignore[misc]
