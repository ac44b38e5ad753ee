"""What drivers are asked unasked: how tasks do, which tasks there are, and what becomes of those without a record.

All of it is part of the runner's loop and runs on its thread; only the calls go to workers.
"""

import heapq
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from agent.calls import Calls
from agent.contact import Standing
from agent.doors import DriverWorkers, TaskHandle
from agent.held import Held
from agent.instructions import Answer
from agent.orphans import Orphans
from agent.record import TaskRecord
from agent.step import live_tasks
from trueup.models.ids import AllocationId

LOOK_AGAIN: Final = timedelta(seconds=5)
"""How long until a driver that could not say how a task does, or which tasks it has, is asked again."""

_log = structlog.stdlib.get_logger("trueup.agent")


class DriverWatch:
    """Looks, recovery, orphans. *hand_in* takes work for the loop's thread, *changed* names an allocation to step."""

    def __init__(
        self,
        *,
        calls: Calls,
        workers: DriverWorkers,
        standing: Standing,
        held: Mapping[AllocationId, Held],
        never_start: Collection[AllocationId],
        hand_in: Callable[[Callable[[], None]], None],
        changed: Callable[[AllocationId], None],
    ) -> None:
        """Asks every driver what it has, at the first `step`. *held* and *never_start* are the runner's own."""
        self._calls = calls
        self._workers = workers
        self._standing = standing
        self._held = held
        self._never_start = never_start
        self._hand_in = hand_in
        self._changed = changed
        self._numbers = itertools.count()
        self._looks: list[tuple[datetime, int, TaskHandle]] = []
        self._orphans = Orphans()
        self._halting = False
        self._recoveries = [(standing.steady, name) for name in sorted(calls.drivers)]
        self._recovering = set(calls.drivers)
        self._unheard = set(calls.drivers)
        self._on_heard: Callable[[], None] = lambda: None
        self._said: dict[str, str] = {}

    @property
    def is_quiet(self) -> bool:
        """Whether all drivers have said what they have, and nothing of it is without a record and not ended."""
        return not self._recovering and not self._orphans.are_left

    @property
    def have_recovered(self) -> bool:
        """Whether all drivers have said what they have."""
        return not self._recovering

    def has_orphans_of(self, allocation_id: AllocationId) -> bool:
        """Whether tasks of an allocation were found that has no record."""
        return self._orphans.has_any_of(allocation_id)

    @property
    def orphans(self) -> Sequence[AllocationId] | None:
        """Allocations of which only tasks are known; None until every driver was heard. From any thread."""
        return None if self._unheard else self._orphans.unknown

    def when_heard(self, listener: Callable[[], None]) -> None:
        """Calls *listener* once every driver was heard."""
        self._on_heard = listener

    def awaits(self, held: Held) -> bool:
        """Whether a driver has yet to be heard for the first time: a task to be started may be one that runs."""
        return bool(self._unheard) and any(
            task.driver in self._unheard for task in held.assignment.group.tasks
        )

    @property
    def next_at(self) -> datetime | None:
        """When there is something to ask, at the earliest (steady)."""
        points = [at for at, _ in self._recoveries]
        if self._looks:
            points.append(self._looks[0][0])
        if self._orphans.next_at is not None:
            points.append(self._orphans.next_at)
        return min(points, default=None)

    def step(self, steady: datetime) -> None:
        """Asks what is due."""
        while self._looks and self._looks[0][0] <= steady:
            handle = heapq.heappop(self._looks)[2]
            if self._is_live(handle):
                self._look(handle)
        due = [name for at, name in self._recoveries if at <= steady]
        self._recoveries = [one for one in self._recoveries if one[0] > steady]
        for name in due:
            self._recover(name)
        for handle, action in self._orphans.due(steady, may_end=self._halting or self._standing.obeys_stops):
            _log.info(
                "task without a record", allocation=handle.allocation_id, task=handle.task, action=action
            )
            self._end_leftover(handle, action)

    def halt(self) -> None:
        """Everything is to end, also what has no record. A driver that did not answer is asked a last time, now."""
        self._halting = True
        self._recoveries = [(self._standing.steady, name) for _, name in self._recoveries]
        self._orphans.hasten(self._standing.steady)

    def look_at(self, held: Held) -> None:
        """Asks how the tasks of an allocation do: at once, and after the next step those that it may show as running.

        Their calls may be under way, or answered but not yet taken into the record: what is known is older than this.
        """
        held.missed |= held.busy | held.record.tasks.keys()
        for handle in held.live_handles():
            held.missed -= {handle.task} - held.busy
            self._look(handle)

    def look_at_missed(self, held: Held) -> None:
        """Asks how those do that may have changed while a call was under way for them."""
        for handle in held.take_missed():
            self._look(handle)

    def look_later(self, at: datetime, held: Held) -> None:
        """Asks how they do at *at*."""
        for handle in held.live_handles():
            heapq.heappush(self._looks, (at, next(self._numbers), handle))

    def adopt_orphans(self, held: Held) -> None:
        """Takes over tasks of this allocation that run already although no record of it was left."""
        for handle in self._orphans.claim(held.id):
            if handle.task in held.record.tasks:
                self._adopt(held, handle)

    def end_orphans(self, allocation_id: AllocationId) -> None:
        """An allocation that is known by its tasks alone is to stop: they are not waited with."""
        self._orphans.hasten(self._standing.steady, allocation_id)

    def _look(self, handle: TaskHandle) -> None:
        def work() -> None:
            seen = self._calls.look(handle)
            self._hand_in(lambda: self._looked(handle, seen))

        self._workers.of(handle.driver).submit(f"{handle.allocation_id}/{handle.task}", work)

    def _looked(self, handle: TaskHandle, seen: Answer | None) -> None:
        if seen is not None:
            self._answered(handle, seen, was_busy=False)
        else:
            again = self._standing.steady + LOOK_AGAIN
            heapq.heappush(self._looks, (again, next(self._numbers), handle))

    def _is_live(self, handle: TaskHandle) -> bool:
        held = self._held.get(handle.allocation_id)
        task = None if held is None else live_tasks(held.record).get(handle.task)
        return task is not None and task.attempt == handle.attempt

    def _recover(self, name: str) -> None:
        driver = self._calls.drivers[name]

        def work() -> None:
            try:
                found = tuple(driver.recover())
            except Exception as error:  # noqa: BLE001 - an engine that is away, or a fault of its driver
                why = str(error) or type(error).__name__
                self._hand_in(lambda: self._not_recovered(name, why))
                return
            self._hand_in(lambda: self._recovered(name, found))

        self._workers.of(name).submit(f"driver {name}", work)

    def _not_recovered(self, name: str, why: str) -> None:
        if self._said.get(name) != why:
            # Once for each cause: it is asked every few seconds, and where it stays away that is a log of nothing else.
            self._said[name] = why
            _log.warning("driver does not say what runs", driver=name, why=why)
        if self._halting:
            # An engine that is away ends nothing now; what it has is found by the next agent.
            self._recovering.discard(name)
        else:
            self._recoveries.append((self._standing.steady + LOOK_AGAIN, name))
        self._heard(name)

    def _recovered(self, name: str, found: Sequence[TaskHandle]) -> None:
        self._recovering.discard(name)
        steady = self._standing.steady
        for handle in found:
            held = self._held.get(handle.allocation_id)
            task = None if held is None else held.record.tasks.get(handle.task)
            if held is None or task is None:
                known = handle.allocation_id in self._never_start or held is not None
                self._orphans.found(handle, steady, at_once=known)
            elif _is_taken_up(task, handle):
                self._adopt(held, handle)
            elif handle.attempt < task.attempt or (task.handle is None and task.phase in {"waiting", "dead"}):
                self._orphans.found(handle, steady, at_once=True)
        if self._halting:
            self._orphans.hasten(steady)
        self._heard(name)

    def _heard(self, name: str) -> None:
        if name in self._unheard:
            self._unheard.discard(name)
            for allocation_id, held in self._held.items():
                if any(task.phase == "pending" for task in held.record.tasks.values()):
                    self._changed(allocation_id)
            if not self._unheard:
                self._on_heard()

    def _adopt(self, held: Held, handle: TaskHandle) -> None:
        held.busy.add(handle.task)
        assignment = held.assignment

        def work() -> None:
            answer = self._calls.take_over(assignment, handle)
            self._hand_in(lambda: self._answered(handle, answer, was_busy=True))

        self._workers.of(handle.driver).submit(f"{handle.allocation_id}/{handle.task}", work)

    def _answered(self, handle: TaskHandle, answer: Answer, *, was_busy: bool) -> None:
        held = self._held.get(handle.allocation_id)
        if held is not None:
            held.answered(handle.task, answer, was_busy=was_busy)
            self._changed(handle.allocation_id)

    def _end_leftover(self, handle: TaskHandle, action: str) -> None:
        self._workers.of(handle.driver).submit(
            f"{handle.allocation_id}/{handle.task}", lambda: self._calls.end_leftover(handle, action)
        )


def _is_taken_up(task: TaskRecord, handle: TaskHandle) -> bool:
    """Whether what a driver found is a start whose answer the agent before did not live to write."""
    if task.phase == "starting":
        return handle.attempt == task.attempt
    return task.phase in {"pending", "waiting"} and handle.attempt > task.attempt
