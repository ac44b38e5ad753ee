"""The loop that makes what runs on this node be what its assignments say.

Level-triggered: each round takes in what was heard (assignments, stops, answers of calls, wakes of drivers), steps the
allocations these name, writes their records to the journal in one commit, and only then has the calls made that the
steps asked for. So a kill -9 at any instant leaves a record from which the next agent goes on: a start that was
written but not made is made, one that was made but not answered is found.

While the journal cannot be written (a full disk) nothing starts, and the rest goes on from memory: signals, kills and
removals may be repeated without harm, and what fills the disk must be stoppable. All of it is written once that works.

Nothing walks over all allocations but the start of the agent: a wake names one, and timers are in a heap.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from agent.calls import Calls
from agent.checks import CheckBoard, CheckKey
from agent.contact import Standing
from agent.doors import DriverWorkers, Workers
from agent.driver_watch import DriverWatch
from agent.folder_room import AmpleDisk, Bounds, Disk, FolderRoom
from agent.folder_sweep import FolderSweep
from agent.held import Held
from agent.instructions import Answer, Instruction, Moment, World
from agent.journal import ChangeSet, Journal, JournalUnwritable
from agent.record import TaskRecord, rebased
from agent.reports import Reports
from agent.secret_watch import SecretWatch
from agent.service_lists import ServiceLists
from agent.step import (
    AllocationStep,
    live_tasks,
    new_record,
    step_allocation,
    taken_up,
    told_to_stop,
    updated_in_place,
)
from agent.telling import Telling
from agent.under_way import UnderWay
from agent.views import allocation_of
from trueup.models.allocation import Allocation
from trueup.models.ids import AllocationId
from trueup.models.job import Check
from trueup.models.service import ServiceNews
from trueup.models.wire import Assignment, StopOrder

ROUNDS: Final = 64
"""How many rounds one step makes at most, so that a task that ends at once for ever holds up nobody."""
WRITE_AGAIN: Final = timedelta(seconds=1)
"""How long until a journal that could not be written is tried again."""
_log = structlog.stdlib.get_logger("trueup.agent")


class Runner:
    """The loop. Those of its methods that have no underscore, but `step`, may be called from any thread."""

    def __init__(
        self,
        *,
        journal: Journal,
        calls: Calls,
        workers: DriverWorkers,
        download_workers: Workers,
        pull_workers: Workers,
        check_workers: DriverWorkers,
        standing: Standing,
        reports: Reports,
        boot_id: str,
        jitter: Callable[[], float],
        disk: Disk | None = None,
        bounds: Bounds | None = None,
        on_wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes up what the journal holds; nothing is started or asked before the first `step`.

        *disk* is the one that folders of allocations are on, *bounds* how much of what has ended stays there.
        """
        self.on_wake = on_wake
        self._journal = journal
        self._calls = calls
        self._workers = workers
        self._check_workers = check_workers
        self._under_way = UnderWay(
            calls=calls,
            workers=workers,
            download_workers=download_workers,
            pull_workers=pull_workers,
            answered=self._hand_in_answer,
        )
        self._standing = standing
        self._boot_id = boot_id
        self._jitter = jitter
        self._halting = False
        self._inbox: deque[Callable[[], None]] = deque()
        self._held: dict[AllocationId, Held] = {}
        self._tombstones: dict[AllocationId, str] = dict(journal.tombstones())
        self._unwritten: list[Callable[[], None]] = []
        self._dirty: dict[AllocationId, None] = {}
        self._waiters: dict[AllocationId, set[AllocationId]] = {}
        self._stop_after: dict[AllocationId, timedelta] = {}
        self._changes = ChangeSet()
        self._unwritable = ""
        self._heap: list[tuple[datetime, int, AllocationId]] = []
        self._numbers = itertools.count()
        self._checks = CheckBoard()
        self._telling = Telling(reports, self._checks)
        self._services = ServiceLists(journal)
        self._secrets = SecretWatch(
            secrets=calls.secrets,
            policy=calls.secret_policy,
            digests=calls.digests,
            workers=workers.of(""),
            standing=standing,
            hand_in=self._hand_in,
            changed=self._mark,
        )
        self._drivers = DriverWatch(
            calls=calls,
            workers=workers,
            standing=standing,
            held=self._held,
            never_start=self._tombstones.keys(),
            hand_in=self._hand_in,
            changed=self._mark,
        )
        self._sweep = FolderSweep(
            calls=calls,
            workers=workers.of(""),
            standing=standing,
            held=self._held,
            drivers=self._drivers,
            hand_in=self._hand_in,
        )
        self._room = FolderRoom(
            calls=calls,
            workers=workers.of(""),
            held=self._held,
            disk=disk or AmpleDisk(),
            bounds=bounds or Bounds(),
            hand_in=self._hand_in,
        )
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

    @property
    def orphans(self) -> Sequence[AllocationId] | None:
        """Allocations of which only tasks are known; None while a driver has not said yet what runs."""
        return self._drivers.orphans

    def when_found(self, listener: Callable[[], None]) -> None:
        """Calls *listener*, on the loop's thread, once every driver has said what runs."""
        self._drivers.when_heard(listener)

    @property
    def services_version(self) -> str:
        """The version of the services' addresses that are kept."""
        return self._services.version

    def tell_services(self, news: ServiceNews) -> None:
        """Takes addresses of services. Idempotent; changes to what is not kept are left to be told again."""
        self._hand_in(lambda: self._dirty.update(dict.fromkeys(self._services.take(news, self._changes))))

    def wake(self, allocation_id: AllocationId) -> None:
        """A driver says that this allocation may have changed."""
        self._hand_in(lambda: self._look_at(allocation_id))

    def when_written(self, listener: Callable[[], None]) -> None:
        """Calls *listener*, on the loop's thread, once all that was handed in before is in the journal."""
        self._hand_in(lambda: self._unwritten.append(listener))

    def short_of_room(self) -> None:
        """The disk of the folders has begun to be short of room."""
        self.on_wake()

    def heard(self) -> None:
        """The control plane was heard for the first time: what waited for that goes on."""
        self._hand_in(self._heard)

    def halt(self) -> None:
        """Ends all tasks gracefully without their being unwanted: the next agent starts them again."""
        self._hand_in(self._halt)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing runs here any more, as far as the drivers have said what runs."""
        return not self.running_tasks and not self._inbox and self._drivers.is_quiet

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
        has_tried = False
        for _ in range(ROUNDS):
            self._take_inbox()
            self._take_due()
            if not self._dirty and (self._changes.is_empty or (has_tried and self._unwritable)):
                break
            self._round()
            self._written()
            has_tried = True
        self._written()
        if self._dirty or self._inbox:
            return self._standing.wall(self._standing.steady)
        return self._next_at()

    # Taking up, and what comes in.

    def _take_up(self) -> None:
        steady = self._standing.steady
        for assignment, record in self._journal.held():
            held = Held(assignment, taken_up(rebased(record, steady)))
            self._held[assignment.allocation.id] = held
            self._note_limits(assignment)
            self._services.hold(assignment, record)
            self._secrets.hold(assignment, record)
            if not record.has_ended or any(task.handle is not None for task in record.tasks.values()):
                self._dirty[assignment.allocation.id] = None
            self._telling.publish(held, known=True)
            self._drivers.look_later(steady, held)
            for name, task in live_tasks(held.record).items():
                self._watch_checks(held, name, task)
            if held.record.has_ended:
                self._room.ended(steady)

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
            self._telling.never_started(allocation.id, self._tombstones[allocation.id])
        elif held is None:
            self._accept(assignment)
        elif allocation.desired_status != "run":
            self._stop(StopOrder(id=allocation.id, reason=allocation.reason))
        elif held.record.has_ended:
            self._telling.again(held)
        elif allocation.job_version > held.assignment.allocation.job_version:
            held.assignment = self._changes.assignments[allocation.id] = assignment
            held.record = self._changes.records[allocation.id] = updated_in_place(held.record, assignment)
            self._note_limits(assignment)
            self._services.hold(assignment, held.record)
            self._secrets.hold(assignment, held.record)
            for name, task in live_tasks(held.record).items():
                self._watch_checks(held, name, task)
            self._dirty[allocation.id] = None
            _log.info("allocation updated in place", allocation=allocation.id, version=allocation.job_version)

    def _accept(self, assignment: Assignment) -> None:
        allocation = assignment.allocation
        if allocation.desired_status != "run":
            self._stop(StopOrder(id=allocation.id, reason=allocation.reason))
            return
        held = Held(assignment, new_record(assignment))
        self._held[allocation.id] = held
        self._changes.assignments[allocation.id] = assignment
        self._changes.records[allocation.id] = held.record
        self._note_limits(assignment)
        self._services.hold(assignment, held.record)
        self._secrets.hold(assignment, held.record)
        self._drivers.adopt_orphans(held)
        self._dirty[allocation.id] = None
        _log.info("allocation accepted", allocation=allocation.id, name=allocation.name, job=allocation.job)

    def _stop(self, order: StopOrder) -> None:
        held = self._held.get(order.id)
        if held is None:
            if order.id not in self._tombstones:
                self._tombstones[order.id] = self._changes.tombstones[order.id] = order.reason
                self._drivers.end_orphans(order.id)
            self._telling.never_started(order.id, self._tombstones[order.id])
        elif held.record.has_ended:
            self._telling.again(held)
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
        # Not written yet, perhaps.
        self._changes.assignments.pop(allocation_id, None)
        self._changes.records.pop(allocation_id, None)
        self._changes.tombstones.pop(allocation_id, None)
        self._tombstones.pop(allocation_id, None)
        self._held.pop(allocation_id, None)
        self._stop_after.pop(allocation_id, None)
        self._services.let_go(allocation_id)
        self._secrets.let_go(allocation_id)
        self._waiters.pop(allocation_id, None)
        self._checks.forget(allocation_id)
        self._telling.forget(allocation_id)
        if held is not None:
            self._workers.of("").submit(str(allocation_id), lambda: self._calls.remove_folders(allocation_id))

    def _heard(self) -> None:
        self._sweep.heard()
        for allocation_id, held in self._held.items():
            if any(task.must_hear for task in held.record.tasks.values()):
                self._dirty[allocation_id] = None

    def _halt(self) -> None:
        self._halting = True
        self._drivers.halt()
        for allocation_id, held in self._held.items():
            if not held.record.has_ended:
                self._dirty[allocation_id] = None

    def _mark(self, allocation_id: AllocationId) -> None:
        self._dirty[allocation_id] = None

    def _look_at(self, allocation_id: AllocationId) -> None:
        held = self._held.get(allocation_id)
        if held is not None:
            self._drivers.look_at(held)

    def _written(self) -> None:
        if self._unwritable:
            return
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
        if not self._commit(changes):
            return
        self._dirty.clear()
        for held, step in stepped:
            self._settle(held, step)
        for held, step in stepped:
            for name in step.unwanted_starts:
                self._under_way.give_up(held.id, name)
            for instruction in step.instructions:
                self._have_done(held, instruction)

    def _commit(self, changes: ChangeSet) -> bool:
        """Writes *changes*; whether what the round stepped may be taken over.

        Where it cannot be written for the first time, all is stepped again, knowing that nothing may start. From
        then on it is taken over all the same, and *changes* are kept to be written.
        """
        try:
            self._journal.commit(changes)
        except JournalUnwritable as error:
            knew, self._unwritable = bool(self._unwritable), str(error)
            return knew
        self._changes = ChangeSet()
        if self._unwritable:
            self._unwritable = ""
            self._hand_in(self._go_on)
        return True

    def _go_on(self) -> None:
        """What waited for the journal goes on."""
        self._dirty.update((key, None) for key, held in self._held.items() if not held.record.has_ended)

    def _step_one(self, allocation_id: AllocationId, held: Held) -> AllocationStep:
        world = World(
            moment=self._moment(),
            answers={name: tuple(answers) for name, answers in held.answers.items()},
            busy=frozenset(held.busy),
            checks=self._checks.views(allocation_id),
            must_wait=self._must_wait(held),
            halting=self._halting,
            services=self._services.view(held.assignment),
            secrets=self._secrets.view(allocation_id),
            nothing_starts=self._unwritable,
        )
        return step_allocation(held.assignment, held.record, world)

    def _settle(self, held: Held, step: AllocationStep) -> None:
        """Takes a step's result over, once it is in the journal."""
        before, held.record = held.record, step.record
        held.answers.clear()
        allocation_id = held.id
        self._look_again(allocation_id, held, step.look_at)
        self._drivers.look_at_missed(held)
        for name, task in step.record.tasks.items():
            if task.phase == "running" and before.tasks[name] is not task:
                self._watch_checks(held, name, task)
            elif task.phase != "running" and before.tasks[name].phase == "running":
                self._checks.forget(allocation_id, name)
        self._telling.publish(held)
        if step.record.has_ended and not before.has_ended:
            self._services.let_go(allocation_id)
            self._secrets.let_go(allocation_id)
            self._room.ended(self._standing.steady)
            _log.info(
                "allocation ended",
                allocation=allocation_id,
                status=step.record.outcome,
                reason=step.record.reason,
            )
            for waiter in sorted(self._waiters.pop(allocation_id, ())):
                self._dirty[waiter] = None

    def _have_done(self, held: Held, instruction: Instruction) -> None:
        task = instruction.task
        held.busy.add(task)
        attempt = held.record.tasks[task].attempt
        self._under_way.begin(held.assignment, attempt, instruction, self._services.lists)

    def _hand_in_answer(
        self, allocation_id: AllocationId, task: str, answer: Answer | None, *, was_busy: bool = True
    ) -> None:
        self._hand_in(lambda: self._answered(allocation_id, task, answer, was_busy=was_busy))

    def _answered(
        self, allocation_id: AllocationId, task: str, answer: Answer | None, *, was_busy: bool
    ) -> None:
        held = self._held.get(allocation_id)
        if held is not None:
            held.answered(task, answer, was_busy=was_busy)
            self._dirty[allocation_id] = None

    def _must_wait(self, held: Held) -> bool:
        """Whether what gave way to it, or what that had replaced in turn, has not ended on this node yet.

        Or a driver has not said yet whether it has tasks of it: they would run twice.
        """
        allocation = held.assignment.allocation
        return self._drivers.awaits(held) or any(
            self._lingers(one, held.id) for one in (allocation.replaces, *allocation.preempts)
        )

    def _lingers(self, replaced: AllocationId | None, waiter: AllocationId) -> bool:
        """Whether *replaced*, or what it had replaced, still has tasks here; *waiter* is looked at when they end."""
        seen: set[AllocationId] = set()
        while replaced is not None and replaced in self._held and replaced not in seen:
            other = self._held[replaced]
            if not other.record.has_ended:
                self._waiters.setdefault(replaced, set()).add(waiter)
                return True
            seen.add(replaced)
            replaced = other.assignment.allocation.replaces
        return False

    # Checks.

    def _watch_checks(self, held: Held, name: str, task: TaskRecord) -> None:
        spec = held.assignment.group.task(name)
        if spec is not None and spec.checks and task.phase == "running":
            steady = self._standing.steady
            self._checks.watch(held.assignment.allocation.id, name, task.attempt, spec.checks, steady)

    def _make_check(self, key: CheckKey, check: Check) -> None:
        held = self._held.get(key.allocation_id)
        handle = None if held is None else held.handle(key.task)
        if held is None or handle is None:
            self._checks.forget(key.allocation_id, key.task)
            return
        assignment = held.assignment

        def work() -> None:
            why_not = self._calls.check(assignment, handle, check)
            self._hand_in(lambda: self._checked(key, why_not))

        # An engine that hangs holds up what is run in its containers, and no other check.
        workers = self._check_workers.of(handle.driver if check.type == "exec" else "")
        workers.submit(f"{key.allocation_id}/{key.task}/{key.number}", work)

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
        self._drivers.step(steady)
        self._sweep.step(steady)
        self._secrets.step(steady)
        self._room.step(steady)
        for key, check in self._checks.due(steady):
            self._make_check(key, check)

    def _look_again(self, allocation_id: AllocationId, held: Held, at: datetime | None) -> None:
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
            self._drivers.next_at,
            self._checks.next_at,
            self._sweep.next_at,
            self._secrets.next_at,
            self._room.next_at,
            self._standing.steady + WRITE_AGAIN if self._unwritable else None,
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

    def _note_limits(self, assignment: Assignment) -> None:
        stop_after = assignment.group.disconnect.stop_after
        if stop_after is not None:
            self._stop_after[assignment.allocation.id] = stop_after
        else:
            self._stop_after.pop(assignment.allocation.id, None)
        self._standing.keep_to(min(self._stop_after.values(), default=None))
