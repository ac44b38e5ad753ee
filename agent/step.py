"""The next step of one allocation: what its tasks' records become, what to ask the drivers for, when to look again.

Pure: it asks no driver and reads no clock. It decides what concerns the allocation as a whole (may a task begin, has
its time come, how does it end, is it healthy) and leaves each task's own life to `agent.task_step`. Before an
instruction is carried out the record that goes with it is written to the journal: a repeat after a crash then means
the same start, never a second one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from agent.health import judge_health
from agent.image_health import all_checks
from agent.instructions import CheckView, Instruction, Moment, World
from agent.record import AllocationRecord, TaskRecord
from agent.roles import has_begun, mains_are_done, may_start, others_have_ended, role_of, runs_once
from agent.service_files import NO_FILES
from agent.task_step import TaskView, advance, take_in
from trueup.models.allocation import ClientStatus
from trueup.models.job import Task, restart_policy
from trueup.models.units import format_duration
from trueup.models.wire import Assignment

_CHECK_FAILED = "Check failed"
_CHECK_NOT_YET = "Check not passed yet"
_CHECK_PASSED = "Check passed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationStep:
    """The allocation's next record, at most one instruction a task, and when to look again (steady time).

    *unwanted_starts*: tasks whose start is under way although they are not to start any more, so that it need not go
    on waiting for what it fetches.
    """

    record: AllocationRecord
    instructions: tuple[Instruction, ...] = ()
    unwanted_starts: tuple[str, ...] = ()
    look_at: datetime | None = None


def new_record(assignment: Assignment) -> AllocationRecord:
    """The record of an allocation of which nothing was done yet."""
    return AllocationRecord(tasks={task.name: TaskRecord() for task in assignment.group.tasks})


def updated_in_place(record: AllocationRecord, assignment: Assignment) -> AllocationRecord:
    """*record* under a newer version of its assignment, which has the same tasks as tasks see them."""
    tasks = {task.name: record.tasks.get(task.name, TaskRecord()) for task in assignment.group.tasks}
    return replace(record, tasks=tasks)


def told_to_stop(record: AllocationRecord, reason: str, steady: datetime) -> AllocationRecord:
    """*record* once it is no longer wanted; the first reason stays."""
    if record.wanted == "stop":
        return record
    return replace(record, wanted="stop", reason=reason, stop_since=steady)


def taken_up(record: AllocationRecord) -> AllocationRecord:
    """*record* as a new agent takes it up: nothing starts before the control plane was heard."""
    tasks = {
        name: task if task.phase == "dead" else replace(task, must_hear=True)
        for name, task in record.tasks.items()
    }
    return replace(record, tasks=tasks)


def step_allocation(assignment: Assignment, record: AllocationRecord, world: World) -> AllocationStep:
    """Takes the answers in and decides what is next. A repeat without news asks for nothing new."""
    step = _Step(assignment, _out_of_contact(assignment, record, world.moment), world)
    step.take_in_answers()
    step.advance()
    return step.result()


def client_status(record: AllocationRecord) -> ClientStatus:
    """The contract's word for how far an allocation is: it never goes back from `running` to `pending`."""
    if record.outcome is not None:
        return record.outcome
    begun = any(task.first_running_since is not None for task in record.tasks.values())
    return "running" if begun else "pending"


class _Step:
    """One step, while its records change."""

    def __init__(self, assignment: Assignment, record: AllocationRecord, world: World) -> None:
        self._assignment = assignment
        self._group = assignment.group
        self._policy = restart_policy(assignment.job_type, assignment.group)
        self._record = record
        self._world = world
        self._tasks: dict[str, TaskRecord] = dict(record.tasks)
        self._instructions: dict[str, Instruction] = {}
        self._look_at: dict[str, datetime | None] = {}

    def take_in_answers(self) -> None:
        for task in self._group.tasks:
            for answer in self._world.answers.get(task.name, ()):
                self._tasks[task.name] = take_in(self._tasks[task.name], answer, self._view(task))
            self._note_check(task)

    def advance(self) -> None:
        """Lets each task go on until none has more to do: the end of one may be what another waits for."""
        settled = False
        while not settled:
            before = dict(self._tasks)
            for task in self._group.tasks:
                self._advance(task)
            settled = before == self._tasks

    def result(self) -> AllocationStep:
        record = replace(self._record, tasks=self._tasks)
        if record.outcome is None and all(task.phase == "dead" for task in self._tasks.values()):
            record = replace(record, outcome=_outcome(record))
        moment = self._world.moment
        verdict = judge_health(self._assignment, record, self._world.checks, moment.steady)
        record = replace(
            record, healthy=verdict.healthy, was_healthy=record.was_healthy or verdict.healthy is True
        )
        looks = (*self._look_at.values(), verdict.look_at, _contact_limit(self._assignment, record, moment))
        return AllocationStep(
            record=record,
            instructions=tuple(self._instructions[name] for name in sorted(self._instructions)),
            unwanted_starts=tuple(self._unwanted_starts()),
            look_at=_earliest(looks),
        )

    def _advance(self, task: Task) -> None:
        if self._is_left_out(task):
            self._tasks[task.name] = replace(self._tasks[task.name], phase="dead")
            return
        stepped = advance(self._tasks[task.name], self._view(task))
        self._tasks[task.name] = stepped.record
        self._look_at[task.name] = stepped.look_at
        if stepped.instruction is not None:
            self._instructions[task.name] = stepped.instruction

    def _is_left_out(self, task: Task) -> bool:
        """A poststop task cleans up after others: where none of them ever began, it is not run."""
        return (
            role_of(task) == "poststop"
            and self._tasks[task.name].phase == "pending"
            and others_have_ended(self._group, task, self._tasks)
            and not has_begun(self._group, self._tasks)
        )

    def _view(self, task: Task) -> TaskView:
        role = role_of(task)
        poststop = role == "poststop"
        ended = others_have_ended(self._group, task, self._tasks)
        may_begin = ended if poststop else may_start(self._group, task, self._tasks)
        return TaskView(
            task=task,
            moment=self._world.moment,
            policy=self._policy,
            runs_once=runs_once(task, self._assignment.job_type),
            is_poststop=poststop,
            may_start=may_begin and not self._world.must_wait,
            winding_down=self._winds_down(),
            may_end=ended,
            end_at=self._end_at(),
            busy=task.name in self._world.busy or task.name in self._instructions,
            checks=self._world.checks.get(task.name),
            halting=self._world.halting,
            services=self._world.services.get(task.name, NO_FILES),
            nothing_starts=self._world.nothing_starts,
            secrets=self._world.secrets,
            allocation_id=self._assignment.allocation.id,
        )

    def _unwanted_starts(self) -> Iterator[str]:
        for task in self._group.tasks:
            if task.name in self._world.busy and self._tasks[task.name].phase == "starting":
                view = self._view(task)
                if view.halting or (view.winding_down and not view.is_poststop):
                    yield task.name

    def _winds_down(self) -> bool:
        """It is not wanted, one of its tasks failed for good, or what it was for is done."""
        return (
            self._record.wanted == "stop"
            or any(task.failed for task in self._tasks.values())
            or mains_are_done(self._group, self._tasks)
        )

    def _end_at(self) -> datetime | None:
        """`shutdown_delay`: dialers learn first that it is gone from the service list."""
        since = self._record.stop_since
        return None if since is None else since + self._group.shutdown_delay

    def _note_check(self, task: Task) -> None:
        record = self._tasks[task.name]
        view = all_checks(record, self._world.checks.get(task.name))
        if record.phase == "running" and view is not None:
            self._tasks[task.name] = _with_check_event(
                record, view, self._world.moment, was_healthy=self._record.was_healthy
            )


def _with_check_event(
    record: TaskRecord, view: CheckView, moment: Moment, *, was_healthy: bool
) -> TaskRecord:
    """Before an allocation was healthy once, a check that does not pass is no failure yet: it may need its time."""
    newest = record.events[-1].type if record.events else ""
    failing = _CHECK_FAILED if was_healthy else _CHECK_NOT_YET
    if view.passing is False and newest not in {failing, _CHECK_FAILED}:
        return record.with_event(moment.now, failing, view.detail)
    if view.passing is True and newest in {_CHECK_FAILED, _CHECK_NOT_YET}:
        return record.with_event(moment.now, _CHECK_PASSED)
    return record


def _out_of_contact(assignment: Assignment, record: AllocationRecord, moment: Moment) -> AllocationRecord:
    """`disconnect.stop_after`: after that long without contact the node stops it by itself."""
    limit, stop_after = _contact_limit(assignment, record, moment), assignment.group.disconnect.stop_after
    if limit is None or stop_after is None or limit > moment.steady:
        return record
    reason = f"no contact with the control plane for {format_duration(stop_after)}"
    return replace(told_to_stop(record, reason, moment.steady), gave_up=True)


def _outcome(record: AllocationRecord) -> ClientStatus:
    """A batch task that was cut off for want of contact has done nothing that counts: it is lost, not complete."""
    if any(task.failed for task in record.tasks.values()):
        return "failed"
    return "lost" if record.gave_up else "complete"


def _contact_limit(assignment: Assignment, record: AllocationRecord, moment: Moment) -> datetime | None:
    stop_after = assignment.group.disconnect.stop_after
    if stop_after is None or moment.silent_since is None or record.wanted == "stop" or record.has_ended:
        return None
    return moment.silent_since + stop_after


def _earliest(points: Iterable[datetime | None]) -> datetime | None:
    return min((point for point in points if point is not None), default=None)


def live_tasks(record: AllocationRecord) -> Mapping[str, TaskRecord]:
    """The tasks a driver has something of that runs, as far as the record knows."""
    return {name: task for name, task in record.tasks.items() if task.phase in {"running", "stopping"}}
