"""What starts wait for before their driver can make them: image pulls. One for all who wait for the same.

Each takes one thread of workers of their own, and no more than a few of them are for one source, so that a slow
registry holds up neither other tasks nor the pulls from another.
"""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from agent.doors import DriverError, Fetch, Workers
from agent.instructions import StartFailed
from trueup.models.ids import AllocationId

SIDE_BY_SIDE: Final = 2
"""Fetches from one source at a time. The engine itself takes three layers at a time, whoever they are for."""

_UNWANTED: Final = StartFailed(message="it is not to start any more", temporary=True, event="Not started")
"""Temporary, as nothing is wrong with it: where only this agent's tasks are ended, the next starts it."""
_log = structlog.stdlib.get_logger("trueup.agent")

Done = Callable[[StartFailed | None], None]
"""Told how it came out: None once it is there. Called on any thread, returns at once."""
_Waiter = tuple[AllocationId, str]


@dataclass(slots=True)
class _Shared:
    fetch: Fetch
    lane: str
    waiters: dict[_Waiter, Done] = field(default_factory=dict)
    unwanted: bool = False


class SharedFetches:
    """Those under way. Thread-safe."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._shared: dict[str, _Shared] = {}
        self._lanes: Counter[str] = Counter()

    def begin(self, allocation_id: AllocationId, task: str, fetch: Fetch, done: Done) -> None:
        """Has *fetch* run, unless one of its key is under way already, and *done* told."""
        with self._lock:
            shared = self._shared.get(fetch.key)
            if shared is not None:
                shared.waiters[allocation_id, task] = done
                return
            shared = _Shared(fetch, self._free_lane(fetch.source), {(allocation_id, task): done})
            self._shared[fetch.key] = shared
            self._lanes[shared.lane] += 1
        self._workers.submit(shared.lane, lambda: self._run(shared))

    def give_up(self, allocation_id: AllocationId, task: str) -> None:
        """That task is not to start any more; what nobody waits for then is cancelled. Idempotent."""
        with self._lock:
            found = [one for one in self._shared.values() if (allocation_id, task) in one.waiters]
            told = [(one, one.waiters.pop((allocation_id, task))) for one in found]
            unwanted = [one for one in found if not one.waiters]
            for one in unwanted:
                one.unwanted = True
                del self._shared[one.fetch.key]
        for one in unwanted:
            one.fetch.cancel()
        for _, done in told:
            done(_UNWANTED)

    def _run(self, shared: _Shared) -> None:
        # One that nobody waits for was taken off the list: another of its key may be on it.
        failed = None if shared.unwanted else _fetched(shared.fetch)
        with self._lock:
            self._lanes[shared.lane] -= 1
            if not shared.unwanted:
                del self._shared[shared.fetch.key]
            waiters = list(shared.waiters.values())
        for done in waiters:
            done(failed)

    def _free_lane(self, source: str) -> str:
        """Workers do what is of one key one after another: the least used of the source's few."""
        return min((f"{source}#{number}" for number in range(SIDE_BY_SIDE)), key=lambda one: self._lanes[one])


def _fetched(fetch: Fetch) -> StartFailed | None:
    try:
        fetch.run()
    except DriverError as error:
        return StartFailed(message=str(error), temporary=error.temporary)
    except Exception as error:  # noqa: BLE001 - who waits is told, whatever it is
        _log.exception("fetch failed", what=fetch.shown)
        words = f"unexpected {type(error).__name__}; the agent's log says more"
        return StartFailed(message=words, temporary=True)
    return None
