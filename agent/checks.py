"""When a running task's checks are made, and what they say so far. No I/O: the runner has the checks made.

The first run of a check is at once, then one every `interval` after the last has answered, so that a target that hangs
is not asked by ever more at a time. A check that has passed is asked a second time, at once, before it counts as
failing: one late answer of a busy machine degrades no job, and what is down is down at the second look too. Cost
follows the checks that are due: a heap of due times, no walk over tasks.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agent.instructions import CheckView
from trueup.models.ids import AllocationId
from trueup.models.job import Check

DETAIL_LENGTH: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckKey:
    """One check of one attempt of a task; *number* is its place in the task's list."""

    allocation_id: AllocationId
    task: str
    attempt: int
    number: int


@dataclass(slots=True)
class _Checked:
    check: Check
    due_at: datetime
    answered: bool = False
    why_not: str | None = None
    failures: int = 0
    doubted: bool = False
    under_way: bool = False

    def doubts(self, why_not: str | None) -> bool:
        """Whether an answer is to be confirmed first: the first failure after a success."""
        return why_not is not None and self.answered and self.why_not is None and not self.doubted


@dataclass(slots=True)
class _Watched:
    attempt: int
    checks: Mapping[int, _Checked]


class CheckBoard:
    """All checks of this node's running tasks. Changed by one thread; views may be read by others."""

    def __init__(self) -> None:
        self._watched: dict[AllocationId, dict[str, _Watched]] = {}
        self._heap: list[tuple[datetime, int, CheckKey]] = []
        self._pushed = 0

    def watch(
        self, allocation_id: AllocationId, task: str, attempt: int, checks: Sequence[Check], steady: datetime
    ) -> None:
        """Has *checks* made of that attempt from now on. A repeat of the same changes nothing."""
        tasks = self._watched.setdefault(allocation_id, {})
        before = tasks.get(task)
        if before is not None and before.attempt == attempt:
            known = [one.check for _, one in sorted(before.checks.items())]
            if known == list(checks):
                return
        # Put in place whole: other threads read views meanwhile.
        tasks[task] = _Watched(
            attempt, {number: _Checked(check, steady) for number, check in enumerate(checks)}
        )
        for number in range(len(checks)):
            key = CheckKey(allocation_id=allocation_id, task=task, attempt=attempt, number=number)
            self._push(steady, key)

    def forget(self, allocation_id: AllocationId, task: str | None = None) -> None:
        """Makes no more checks of a task, or of the whole allocation."""
        tasks = self._watched.get(allocation_id)
        if tasks is None:
            return
        if task is None:
            tasks.clear()
        else:
            tasks.pop(task, None)
        if not tasks:
            del self._watched[allocation_id]

    def due(self, steady: datetime) -> Sequence[tuple[CheckKey, Check]]:
        """Takes out the checks to be made now."""
        found = []
        while self._heap and self._heap[0][0] <= steady:
            at, _, key = heapq.heappop(self._heap)
            checked = self._checked(key)
            # An entry of an earlier list of checks is met with a later one's due time, and dropped.
            if checked is not None and checked.due_at == at and not checked.under_way:
                checked.under_way = True
                found.append((key, checked.check))
        return found

    @property
    def next_at(self) -> datetime | None:
        """When the next check is due, at the earliest."""
        return self._heap[0][0] if self._heap else None

    def take(self, key: CheckKey, why_not: str | None, steady: datetime) -> bool:
        """Takes an answer in (None: it passed); whether it changes what the task's checks say."""
        checked = self._checked(key)
        if checked is None:
            return False
        checked.under_way, checked.doubted = False, checked.doubts(why_not)
        if checked.doubted:
            checked.due_at = steady
            self._push(steady, key)
            return False
        before = self.view(key.allocation_id, key.task)
        checked.answered = True
        checked.why_not = None if why_not is None else why_not[:DETAIL_LENGTH]
        checked.failures = 0 if why_not is None else checked.failures + 1
        checked.due_at = steady + checked.check.interval
        self._push(checked.due_at, key)
        return self.view(key.allocation_id, key.task) != before

    def view(self, allocation_id: AllocationId, task: str) -> CheckView | None:
        """What the checks of a task say; None where none are made."""
        watched = self._watched.get(allocation_id, {}).get(task)
        if watched is None or not watched.checks:
            return None
        return _view(watched)

    def views(self, allocation_id: AllocationId) -> Mapping[str, CheckView]:
        """What the checks of an allocation's tasks say, by task."""
        tasks = self._watched.get(allocation_id, {})
        return {name: _view(watched) for name, watched in list(tasks.items()) if watched.checks}

    def _push(self, at: datetime, key: CheckKey) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (at, self._pushed, key))

    def _checked(self, key: CheckKey) -> _Checked | None:
        watched = self._watched.get(key.allocation_id, {}).get(key.task)
        if watched is None or watched.attempt != key.attempt:
            return None
        return watched.checks.get(key.number)


def _view(watched: _Watched) -> CheckView:
    checks = [one for _, one in sorted(watched.checks.items())]
    failing = [one for one in checks if one.why_not is not None]
    passing: bool | None = None
    if all(one.answered for one in checks):
        passing = not failing
    return CheckView(
        attempt=watched.attempt,
        passing=passing,
        detail=_first_detail(failing, checks),
        exhausted=any(0 < one.check.restart_after <= one.failures for one in checks),
    )


def _first_detail(failing: Sequence[_Checked], checks: Sequence[_Checked]) -> str:
    if not failing:
        return ""
    first = failing[0]
    name = first.check.name or (
        first.check.type if len(checks) == 1 else f"{first.check.type} {first.check.path}"
    )
    return f"{name}: {first.why_not}"
