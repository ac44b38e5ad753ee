"""The loop that makes what runs on this node be what its assignments say.

Level-triggered: each round takes in what was heard (assignments, stops, answers of calls, wakes of drivers), steps the
allocations these name, writes their records to the journal in one commit, and only then has the calls made that the
steps asked for. So a kill -9 at any instant leaves a record from which the next agent goes on: a start that was
written but not made is made, one that was made but not answered is found.

Nothing walks over all allocations but the start of the agent: a wake names one, and timers are in a heap.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from agent.calls import Calls, handle_of
from agent.checks import CheckBoard, CheckKey
from agent.contact import Standing
from agent.doors import TaskHandle, Workers
from agent.instructions import Answer, Instruction, Moment, World
from agent.journal import ChangeSet, Journal
from agent.orphans import Orphans
from agent.record import AllocationRecord, TaskRecord, rebased
from agent.reports import Reports
from agent.step import (
    AllocationStep,
    live_tasks,
    new_record,
    step_allocation,
    taken_up,
    told_to_stop,
    updated_in_place,
)
from agent.views import allocation_of, holding_of, update_of
from trueup.models.allocation import Allocation
from trueup.models.ids import AllocationId
from trueup.models.job import Check
from trueup.models.wire import AllocationUpdate, Assignment, StopOrder

ROUNDS: Final = 64
"""How many rounds one step makes at most, so that a task that ends at once for ever holds up nobody."""
LOOK_AGAIN: Final = timedelta(seconds=5)
"""How long until a driver that could not say how a task does, or which tasks it has, is asked again."""

_log = structlog.stdlib.get_logger("trueup.agent")


@dataclass(slots=True)
class _Held:
    """One allocation of this node, and what is under way for it. Values are swapped whole, so any thread may read.

    *told* is what the control plane knows or will be told of it, in the version *told_version*.
    """

    assignment: Assignment
    record: AllocationRecord
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    look_at: datetime | None = None
    told: AllocationUpdate | None = None
    told_version: int = -1


class Runner:
    """The loop. Those of its methods that have no underscore, but `step`, may be called from any thread."""

    def __init__(
        self,
        *,
        journal: Journal,
        calls: Calls,
        workers: Workers,
        check_workers: Workers,
        standing: Standing,
        reports: Reports,
        boot_id: str,
        jitter: Callable[[], float],
        on_wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes up what the journal holds; nothing is started or asked before the first `step`."""
        self.on_wake = on_wake
        self._journal = journal
        self._calls = calls
        self._workers = workers
        self._check_workers = check_workers
        self._standing = standing
        self._reports = reports
        self._boot_id = boot_id
        self._jitter = jitter
        self._halting = False
        self._inbox: deque[Callable[[], None]] = deque()
        self._held: dict[AllocationId, _Held] = {}
        self._tombstones: dict[AllocationId, str] = dict(journal.tombstones())
        self._unwritten: list[Callable[[], None]] = []
        self._dirty: dict[AllocationId, None] = {}
        self._waiters: dict[AllocationId, set[AllocationId]] = {}
        self._stop_after: dict[AllocationId, timedelta] = {}
        self._changes = ChangeSet()
        self._heap: list[tuple[datetime, int, AllocationId]] = []
        self._looks: list[tuple[datetime, int, TaskHandle]] = []
        self._recoveries: list[tuple[datetime, str]] = []
        self._recovering: set[str] = set()
        self._numbers = itertools.count()
        self._checks = CheckBoard()
        self._orphans = Orphans()
        self._take_up()
        standing.when_heard(self.heard)

    def assign(self, assignments: Iterable[Assignment]) -> None:
        """Takes allocations to run. Idempotent; an older version than held, or one told to stop, starts nothing."""
        for assignment in assignments:
            self._hand_in(lambda one=assignment: self._assign(one))  # type: ignore[misc] # bound now, not when called

    def stop(self, orders: Iterable[StopOrder]) -> None:
        """Takes orders to end allocations. Idempotent; an unknown id never starts from now on."""
        for order in orders:
            self._hand_in(lambda one=order: self._stop(one))  # type: ignore[misc] # as above

    def forget(self, ids: Iterable[AllocationId]) -> None:
        """Drops what has ended and will never be started again, with its logs."""
        for allocation_id in ids:
            self._hand_in(lambda one=allocation_id: self._forget(one))  # type: ignore[misc] # as above

    def wake(self, allocation_id: AllocationId) -> None:
        """A driver says that this allocation may have changed."""
        self._hand_in(lambda: self._look_at(allocation_id))

    def when_written(self, listener: Callable[[], None]) -> None:
        """Calls *listener*, on the loop's thread, once all that was handed in before is in the journal."""
        self._hand_in(lambda: self._unwritten.append(listener))

    def heard(self) -> None:
        """The control plane was heard for the first time: what waited for that goes on."""
        self._hand_in(self._heard)

    def halt(self) -> None:
        """Ends all tasks gracefully without their being unwanted: the next agent starts them again."""
        self._hand_in(self._halt)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing runs here any more, as far as the drivers have said what runs."""
        return not (self.running_tasks or self._inbox or self._recovering or self._orphans.are_left)

    @property
    def running_tasks(self) -> Sequence[str]:
        """`allocation/task` of every task that runs or is being started or ended."""
        return [
            f"{held.assignment.allocation.name}/{name}"
            for held in list(self._held.values())
            for name, task in sorted(held.record.tasks.items())
            if task.phase in {"running", "stopping"} or name in held.busy
        ]

    def allocation(self, allocation_id: AllocationId) -> Allocation | None:
        """One allocation as it is on this node, or None."""
        held = self._held.get(allocation_id)
        if held is None:
            return None
        return allocation_of(held.assignment, held.record, self._checks.views(allocation_id))

    def allocations(self) -> Sequence[Allocation]:
        """Every allocation of this node, by name and id."""
        found = (self.allocation(key) for key in list(self._held))
        return sorted((one for one in found if one is not None), key=lambda one: (one.name, one.id))

    def step(self) -> datetime | None:
        """Does what is due, and returns when to look again (wall clock). What the journal refuses is tried again."""
        for _ in range(ROUNDS):
            self._take_inbox()
            self._take_due()
            if not self._dirty and self._changes.is_empty:
                break
            self._round()
            self._written()
        self._written()
        if self._dirty or self._inbox:
            return self._standing.wall(self._standing.steady)
        return self._next_at()

    # Taking up, and what comes in.

    def _take_up(self) -> None:
        steady = self._standing.steady
        for assignment, record in self._journal.held():
            held = _Held(assignment, taken_up(rebased(record, steady)))
            self._held[assignment.allocation.id] = held
            self._note_limits(assignment)
            if not record.has_ended or any(task.handle is not None for task in record.tasks.values()):
                self._dirty[assignment.allocation.id] = None
            self._publish(held, known=True)
            for name, task in live_tasks(held.record).items():
                self._watch_checks(held, name, task)
                self._look_later(steady, self._handle(held, name, task))
        self._recoveries = [(steady, name) for name in sorted(self._calls.drivers)]
        self._recovering = set(self._calls.drivers)

    def _hand_in(self, item: Callable[[], None]) -> None:
        self._inbox.append(item)
        self.on_wake()

    def _take_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _assign(self, assignment: Assignment) -> None:
        allocation = assignment.allocation
        held = self._held.get(allocation.id)
        if allocation.id in self._tombstones:
            self._tell_of_tombstone(allocation.id)
        elif held is None:
            self._accept(assignment)
        elif allocation.desired_status != "run":
            self._stop(StopOrder(id=allocation.id, reason=allocation.reason))
        elif held.record.has_ended:
            self._tell_again(held)
        elif allocation.job_version > held.assignment.allocation.job_version:
            held.assignment = self._changes.assignments[allocation.id] = assignment
            held.record = self._changes.records[allocation.id] = updated_in_place(held.record, assignment)
            self._note_limits(assignment)
            for name, task in live_tasks(held.record).items():
                self._watch_checks(held, name, task)
            self._dirty[allocation.id] = None
            _log.info("allocation updated in place", allocation=allocation.id, version=allocation.job_version)

    def _accept(self, assignment: Assignment) -> None:
        allocation = assignment.allocation
        if allocation.desired_status != "run":
            self._stop(StopOrder(id=allocation.id, reason=allocation.reason))
            return
        held = _Held(assignment, new_record(assignment))
        self._held[allocation.id] = held
        self._changes.assignments[allocation.id] = assignment
        self._changes.records[allocation.id] = held.record
        self._note_limits(assignment)
        self._adopt_orphans(held)
        self._dirty[allocation.id] = None
        _log.info("allocation accepted", allocation=allocation.id, name=allocation.name, job=allocation.job)

    def _stop(self, order: StopOrder) -> None:
        held = self._held.get(order.id)
        if held is None:
            if order.id not in self._tombstones:
                self._tombstones[order.id] = self._changes.tombstones[order.id] = order.reason
            self._tell_of_tombstone(order.id)
        elif held.record.has_ended:
            self._tell_again(held)
        elif held.record.wanted == "run":
            held.record = told_to_stop(held.record, order.reason, self._standing.steady)
            self._changes.records[order.id] = held.record
            self._dirty[order.id] = None
            _log.info("allocation is to stop", allocation=order.id, reason=order.reason)

    def _forget(self, allocation_id: AllocationId) -> None:
        held = self._held.get(allocation_id)
        if held is not None and not held.record.has_ended:
            return
        if held is None and allocation_id not in self._tombstones:
            return
        self._changes.forgotten.add(allocation_id)
        self._tombstones.pop(allocation_id, None)
        self._held.pop(allocation_id, None)
        self._stop_after.pop(allocation_id, None)
        self._waiters.pop(allocation_id, None)
        self._checks.forget(allocation_id)
        self._reports.drop(allocation_id)
        if held is not None:
            self._workers.submit(str(allocation_id), lambda: self._calls.remove_folders(allocation_id))

    def _heard(self) -> None:
        for allocation_id, held in self._held.items():
            if any(task.must_hear for task in held.record.tasks.values()):
                self._dirty[allocation_id] = None

    def _halt(self) -> None:
        self._halting = True
        self._orphans.hasten(self._standing.steady)
        for allocation_id, held in self._held.items():
            if not held.record.has_ended:
                self._dirty[allocation_id] = None

    def _written(self) -> None:
        listeners, self._unwritten = self._unwritten, []
        for listener in listeners:
            listener()

    # One round: step, commit, act.

    def _round(self) -> None:
        taken = [(key, self._held[key]) for key in self._dirty if key in self._held]
        stepped = [(held, self._step_one(key, held)) for key, held in taken]
        changes = self._changes
        for (key, held), (_, step) in zip(taken, stepped, strict=True):
            if step.record != held.record or key in changes.records:
                changes.records[key] = step.record
        # Raises where it cannot be written: then nothing was taken off the lists, and the next step does it again.
        self._journal.commit(changes)
        self._changes = ChangeSet()
        self._dirty.clear()
        for held, step in stepped:
            self._settle(held, step)
        for held, step in stepped:
            for instruction in step.instructions:
                self._have_done(held, instruction)

    def _step_one(self, allocation_id: AllocationId, held: _Held) -> AllocationStep:
        world = World(
            moment=self._moment(),
            answers={name: tuple(answers) for name, answers in held.answers.items()},
            busy=frozenset(held.busy),
            checks=self._checks.views(allocation_id),
            must_wait=self._must_wait(held),
            halting=self._halting,
        )
        return step_allocation(held.assignment, held.record, world)

    def _settle(self, held: _Held, step: AllocationStep) -> None:
        """Takes a step's result over, once it is in the journal."""
        before, held.record = held.record, step.record
        held.answers.clear()
        allocation_id = held.assignment.allocation.id
        self._look_again(allocation_id, held, step.look_at)
        for name, task in step.record.tasks.items():
            if task.phase == "running" and before.tasks[name] is not task:
                self._watch_checks(held, name, task)
            elif task.phase != "running" and before.tasks[name].phase == "running":
                self._checks.forget(allocation_id, name)
        self._publish(held)
        if step.record.has_ended and not before.has_ended:
            _log.info(
                "allocation ended",
                allocation=allocation_id,
                status=step.record.outcome,
                reason=step.record.reason,
            )
            for waiter in sorted(self._waiters.pop(allocation_id, ())):
                self._dirty[waiter] = None

    def _have_done(self, held: _Held, instruction: Instruction) -> None:
        allocation_id, task = held.assignment.allocation.id, instruction.task
        held.busy.add(task)
        assignment, attempt = held.assignment, held.record.tasks[task].attempt

        def work() -> None:
            answer = self._calls.carry_out(assignment, attempt, instruction)
            self._hand_in(lambda: self._answered(allocation_id, task, answer, was_busy=True))

        self._workers.submit(f"{allocation_id}/{task}", work)

    def _answered(
        self, allocation_id: AllocationId, task: str, answer: Answer | None, *, was_busy: bool
    ) -> None:
        held = self._held.get(allocation_id)
        if held is None:
            return
        if was_busy:
            held.busy.discard(task)
        if answer is not None:
            held.answers.setdefault(task, []).append(answer)
        self._dirty[allocation_id] = None

    def _must_wait(self, held: _Held) -> bool:
        """Whether what it replaces, or what that replaced in turn, has not ended on this node yet."""
        replaced = held.assignment.allocation.replaces
        seen: set[AllocationId] = set()
        while replaced is not None and replaced in self._held and replaced not in seen:
            other = self._held[replaced]
            if not other.record.has_ended:
                self._waiters.setdefault(replaced, set()).add(held.assignment.allocation.id)
                return True
            seen.add(replaced)
            replaced = other.assignment.allocation.replaces
        return False

    # Drivers: looks, recovery, orphans.

    def _look_at(self, allocation_id: AllocationId) -> None:
        held = self._held.get(allocation_id)
        if held is None:
            return
        for name, task in live_tasks(held.record).items():
            self._look(self._handle(held, name, task))

    def _look(self, handle: TaskHandle) -> None:
        def work() -> None:
            seen = self._calls.look(handle)
            self._hand_in(lambda: self._looked(handle, seen))

        self._workers.submit(f"{handle.allocation_id}/{handle.task}", work)

    def _looked(self, handle: TaskHandle, seen: Answer | None) -> None:
        if seen is None:
            self._look_later(self._standing.steady + LOOK_AGAIN, handle)
        else:
            self._answered(handle.allocation_id, handle.task, seen, was_busy=False)

    def _is_live(self, handle: TaskHandle) -> bool:
        held = self._held.get(handle.allocation_id)
        task = None if held is None else live_tasks(held.record).get(handle.task)
        return task is not None and task.attempt == handle.attempt

    def _look_later(self, at: datetime, handle: TaskHandle) -> None:
        heapq.heappush(self._looks, (at, next(self._numbers), handle))

    def _recover(self, name: str) -> None:
        driver = self._calls.drivers[name]

        def work() -> None:
            try:
                found = tuple(driver.recover())
            except Exception as error:  # noqa: BLE001 - an engine that is away, or a fault of its driver
                _log.warning(
                    "driver does not say what runs", driver=name, why=str(error) or type(error).__name__
                )
                self._hand_in(lambda: self._not_recovered(name))
                return
            self._hand_in(lambda: self._recovered(name, found))

        self._workers.submit(f"driver {name}", work)

    def _not_recovered(self, name: str) -> None:
        if self._halting:
            # An engine that is away ends nothing now; what it has is found by the next agent.
            self._recovering.discard(name)
        else:
            self._recoveries.append((self._standing.steady + LOOK_AGAIN, name))

    def _recovered(self, name: str, found: Sequence[TaskHandle]) -> None:
        self._recovering.discard(name)
        for handle in found:
            held = self._held.get(handle.allocation_id)
            task = None if held is None else held.record.tasks.get(handle.task)
            if held is None or task is None:
                known = handle.allocation_id in self._tombstones or held is not None
                self._orphans.found(handle, self._standing.steady, at_once=known)
            elif _is_taken_up(task, handle):
                self._adopt(held, handle)
            elif handle.attempt < task.attempt or (task.handle is None and task.phase in {"waiting", "dead"}):
                self._orphans.found(handle, self._standing.steady, at_once=True)
        if self._halting:
            self._orphans.hasten(self._standing.steady)

    def _adopt_orphans(self, held: _Held) -> None:
        """Takes over tasks of this allocation that run already although no record of it was left."""
        for handle in self._orphans.claim(held.assignment.allocation.id):
            if handle.task in held.record.tasks:
                self._adopt(held, handle)

    def _adopt(self, held: _Held, handle: TaskHandle) -> None:
        held.busy.add(handle.task)
        allocation_id = handle.allocation_id

        def work() -> None:
            answer = self._calls.adopt(handle)
            self._hand_in(lambda: self._answered(allocation_id, handle.task, answer, was_busy=True))

        self._workers.submit(f"{allocation_id}/{handle.task}", work)

    # Checks.

    def _watch_checks(self, held: _Held, name: str, task: TaskRecord) -> None:
        spec = held.assignment.group.task(name)
        if spec is not None and spec.checks and task.phase == "running":
            steady = self._standing.steady
            self._checks.watch(held.assignment.allocation.id, name, task.attempt, spec.checks, steady)

    def _make_check(self, key: CheckKey, check: Check) -> None:
        held = self._held.get(key.allocation_id)
        task = None if held is None else held.record.tasks.get(key.task)
        if held is None or task is None or task.handle is None:
            self._checks.forget(key.allocation_id, key.task)
            return
        assignment, handle = held.assignment, self._handle(held, key.task, task)

        def work() -> None:
            why_not = self._calls.check(assignment, handle, check)
            self._hand_in(lambda: self._checked(key, why_not))

        self._check_workers.submit(f"{key.allocation_id}/{key.task}/{key.number}", work)

    def _checked(self, key: CheckKey, why_not: str | None) -> None:
        if self._checks.take(key, why_not, self._standing.steady):
            self._dirty[key.allocation_id] = None

    # Time.

    def _take_due(self) -> None:
        steady = self._standing.steady
        while self._heap and self._heap[0][0] <= steady:
            at, _, allocation_id = heapq.heappop(self._heap)
            held = self._held.get(allocation_id)
            if held is not None and held.look_at == at:
                held.look_at = None
                self._dirty[allocation_id] = None
        while self._looks and self._looks[0][0] <= steady:
            handle = heapq.heappop(self._looks)[2]
            if self._is_live(handle):
                self._look(handle)
        due, self._recoveries = _parted(self._recoveries, steady)
        for _, name in due:
            self._recover(name)
        for key, check in self._checks.due(steady):
            self._make_check(key, check)
        for handle, action in self._orphans.due(steady, may_end=self._halting or self._standing.obeys_stops):
            _log.info(
                "task without a record", allocation=handle.allocation_id, task=handle.task, action=action
            )
            self._end_leftover(handle, action)

    def _end_leftover(self, handle: TaskHandle, action: str) -> None:
        self._workers.submit(
            f"{handle.allocation_id}/{handle.task}", lambda: self._calls.end_leftover(handle, action)
        )

    def _look_again(self, allocation_id: AllocationId, held: _Held, at: datetime | None) -> None:
        if at is not None and at != held.look_at:
            heapq.heappush(self._heap, (at, next(self._numbers), allocation_id))
        held.look_at = at

    def _next_at(self) -> datetime | None:
        while self._heap:
            at, _, allocation_id = self._heap[0]
            held = self._held.get(allocation_id)
            if held is not None and held.look_at == at:
                break
            heapq.heappop(self._heap)
        points = [
            self._heap[0][0] if self._heap else None,
            self._looks[0][0] if self._looks else None,
            min((at for at, _ in self._recoveries), default=None),
            self._checks.next_at,
            self._orphans.next_at,
        ]
        soonest = min((point for point in points if point is not None), default=None)
        return None if soonest is None else self._standing.wall(soonest)

    def _moment(self) -> Moment:
        contact = self._standing.contact
        steady = self._standing.steady
        return Moment(
            now=self._standing.wall(steady),
            steady=steady,
            boot_id=self._boot_id,
            heard=contact.heard,
            silent_since=contact.silent_since,
            jitter=self._jitter(),
        )

    # Telling.

    def _publish(self, held: _Held, *, known: bool = False) -> None:
        """Has the control plane told what is new of an allocation; *known*: it will be told by the registration."""
        allocation = held.assignment.allocation
        views = self._checks.views(allocation.id)
        update = update_of(held.assignment, held.record, views)
        # That an allocation it has just assigned is pending is no news to the control plane.
        known = known or (held.told is None and update.client_status == "pending")
        if update == held.told and allocation.job_version == held.told_version:
            return
        news = None if known or update == held.told else update
        held.told, held.told_version = update, allocation.job_version
        self._reports.put(holding_of(held.assignment, held.record, views), allocation.resources, news)

    def _tell_again(self, held: _Held) -> None:
        """An order for what has ended shows that its end was not heard."""
        self._reports.tell(
            update_of(held.assignment, held.record, self._checks.views(held.assignment.allocation.id))
        )

    def _tell_of_tombstone(self, allocation_id: AllocationId) -> None:
        reason = self._tombstones[allocation_id]
        self._reports.tell(AllocationUpdate(id=allocation_id, client_status="complete", reason=reason))

    def _note_limits(self, assignment: Assignment) -> None:
        stop_after = assignment.group.disconnect.stop_after
        if stop_after is not None:
            self._stop_after[assignment.allocation.id] = stop_after
        else:
            self._stop_after.pop(assignment.allocation.id, None)
        self._standing.keep_to(min(self._stop_after.values(), default=None))

    @staticmethod
    def _handle(held: _Held, name: str, task: TaskRecord) -> TaskHandle:
        if task.handle is None:
            raise ValueError(f"a task that is {task.phase} has no handle")
        return handle_of(held.assignment.allocation.id, name, task.handle)


def _is_taken_up(task: TaskRecord, handle: TaskHandle) -> bool:
    """Whether what a driver found is a start whose answer the agent before did not live to write."""
    if task.phase == "starting":
        return handle.attempt == task.attempt
    return task.phase in {"pending", "waiting"} and handle.attempt > task.attempt


def _parted(
    recoveries: Sequence[tuple[datetime, str]], steady: datetime
) -> tuple[list[tuple[datetime, str]], list[tuple[datetime, str]]]:
    due = [one for one in recoveries if one[0] <= steady]
    return due, [one for one in recoveries if one[0] > steady]
