"""The artifacts that starts wait for, on workers of their own: a download of minutes holds up no start, stop or check.

A start whose artifacts are in place goes on as any other. What is fetched for a task that is not to start any more is
given up; the runner says so as often as it sees it.
"""

import threading
from collections.abc import Callable
from typing import Final

from agent.calls import Calls
from agent.doors import Workers
from agent.instructions import Noted, StartFailed
from trueup.models.ids import AllocationId
from trueup.models.wire import Assignment

DOWNLOADING: Final = "Downloading artifacts"


def has_artifacts(assignment: Assignment, task: str) -> bool:
    """Whether the start of that task has to wait for what it fetches."""
    found = assignment.group.task(task)
    return found is not None and bool(found.artifacts)


class Fetches:
    """Those under way. Thread-safe."""

    def __init__(self, calls: Calls, workers: Workers) -> None:
        self._calls = calls
        self._workers = workers
        self._given_up: dict[tuple[AllocationId, str], threading.Event] = {}

    def begin(
        self,
        assignment: Assignment,
        task: str,
        *,
        start: Callable[[], None],
        failed: Callable[[StartFailed], None],
        noted: Callable[[Noted], None],
    ) -> None:
        """Has the artifacts of *task* put in place, and then *start* called, or *failed* with why it cannot be.

        *noted* is told of each download that is waited for. All are called on a worker, and return at once.
        """
        key = (assignment.allocation.id, task)
        given_up = self._given_up[key] = threading.Event()

        def work() -> None:
            why_not = self._calls.fetch(
                assignment,
                task,
                downloads=lambda source: noted(Noted(event=DOWNLOADING, message=source)),
                is_unwanted=given_up.is_set,
            )
            self._given_up.pop(key, None)
            if why_not is None:
                start()
            else:
                failed(why_not)

        self._workers.submit(f"{key[0]}/{task}", work)

    def give_up(self, allocation_id: AllocationId, task: str) -> None:
        """That task is not to start any more. Idempotent; without effect where nothing is fetched for it."""
        given_up = self._given_up.get((allocation_id, task))
        if given_up is not None:
            given_up.set()
