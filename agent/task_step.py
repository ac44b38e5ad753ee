"""The next step of one task: what an answer makes of its record, and what to ask for next. Pure.

Phases go `pending` → `starting` → `running` → (`stopping` →) `waiting` → `starting` … → `dead`, and never back from
`dead`. What the allocation as a whole decides (may it start, must it end) comes in as a TaskView; see `agent.step`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from agent.doors import TaskHandle, TaskStatus
from agent.instructions import (
    Answer,
    CallFailed,
    CheckView,
    Find,
    Instruction,
    Kill,
    Moment,
    Noted,
    NotFound,
    Observed,
    Remove,
    Removed,
    Renew,
    Renewed,
    Signal,
    Start,
    Started,
    StartFailed,
)
from agent.record import Ending, HandleRecord, TaskRecord
from agent.restarts import NoMore, decide_restart
from agent.secret_changes import SeenSecret, secret_renewal, unknown
from agent.service_files import NO_FILES, ServiceFiles, renewal
from trueup.models.ids import AllocationId
from trueup.models.job import Restart, Task
from trueup.models.units import format_duration

CALL_AGAIN: Final = timedelta(seconds=2)
"""How long until a kill or search that did not do it is repeated."""
REMOVE_AGAIN: Final = timedelta(seconds=30)
MAX_START_DELAY: Final = timedelta(seconds=30)
"""The longest wait between tries of a start that fails for a passing reason."""
LISTENS_AFTER: Final = timedelta(seconds=1)
"""How long after its start a task is told of no file that changed: before it listens to a signal that ends it."""
RENEW_PAUSE: Final = timedelta(milliseconds=250)
"""The least between two renewals: the many changes of a rollout are few signals."""
POSTSTOP_LIMIT: Final = timedelta(minutes=5)
"""How long a poststop task may run unless it says so itself: it must not hold its allocation's room for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """What a task's step needs beyond its record.

    *winding_down*: the allocation ends; *may_end*: it is this task's turn to; *end_at*: not before then. *halting*:
    tasks are ended, to start again with the next agent. *services*: how its files from services have to be.
    *nothing_starts*: why no task of this node may start now; empty: it may. *secrets*: what was seen of those that the
    allocation watches, which is *allocation_id*.
    """

    task: Task
    moment: Moment
    policy: Restart
    runs_once: bool
    is_poststop: bool
    may_start: bool
    winding_down: bool
    may_end: bool
    end_at: datetime | None
    busy: bool
    checks: CheckView | None
    halting: bool = False
    services: ServiceFiles = NO_FILES
    nothing_starts: str = ""
    secrets: Mapping[str, SeenSecret] = field(default_factory=dict)
    allocation_id: AllocationId


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStep:
    """The task's next record, what to ask for, and when to look again (steady time; None: only for an answer)."""

    record: TaskRecord
    instruction: Instruction | None = None
    look_at: datetime | None = None


def take_in(record: TaskRecord, answer: Answer, view: TaskView) -> TaskRecord:
    """The record after *answer*. An answer about another attempt, or to a question no longer open, changes nothing."""
    match answer:
        case Started(handle=handle, status=status) if _is_news(record, handle):
            started = _running(record, handle, status, view.moment)
            return _take_status(replace(started, secrets=dict(answer.secrets)), status, view)
        case StartFailed() if record.phase == "starting":
            return _start_failed(record, answer, view)
        case Noted() if record.phase == "starting":
            return _noted(record, answer, view.moment)
        case NotFound() if record.phase == "starting":
            return replace(record, unsure=False, refused=False, asked_since=None)
        case Observed(attempt=attempt, status=status) if attempt == record.attempt:
            return _take_status(record, status, view)
        case Removed(attempt=attempt) if record.handle is not None and record.handle.attempt == attempt:
            return replace(record, handle=None)
        case Renewed(attempt=attempt, files=files, secrets=secrets) if attempt == record.attempt:
            return replace(record, files={**record.files, **files}, secrets={**record.secrets, **secrets})
        case CallFailed(message=message):
            noted = record.with_event(view.moment.now, "Driver failure", message)
            # Of a running task nothing is asked but renewals.
            again = view.moment.steady + CALL_AGAIN if record.phase == "running" else record.renew_at
            return replace(noted, renew_at=again)
    return record


def advance(record: TaskRecord, view: TaskView) -> TaskStep:
    """What to ask for now, and when to look again if nothing is heard."""
    match record.phase:
        case "pending":
            return _advance_pending(record, view)
        case "starting":
            return _advance_starting(record, view)
        case "running":
            return _advance_running(record, view)
        case "stopping":
            return _advance_stopping(record, view)
        case "waiting":
            return _advance_waiting(record, view)
        case "dead":
            return _advance_dead(record, view)


def _is_news(record: TaskRecord, handle: TaskHandle) -> bool:
    if record.phase == "starting":
        return handle.attempt >= record.attempt
    return record.phase in {"pending", "waiting"} and handle.attempt > record.attempt


def _running(record: TaskRecord, handle: TaskHandle, status: TaskStatus, moment: Moment) -> TaskRecord:
    started = replace(
        record,
        phase="running",
        attempt=handle.attempt,
        handle=HandleRecord(driver=handle.driver, attempt=handle.attempt, data=handle.data),
        boot_id=record.boot_id or moment.boot_id,
        unsure=False,
        refused=False,
        start_failures=0,
        ending="",
        due_at=None,
        waits_since=None,
        signalled_since=None,
        asked_since=None,
        running_since=moment.steady,
        first_running_since=record.first_running_since or moment.steady,
        started_at=status.started_at or moment.now,
        finished_at=None,
        exit_code=None,
        signal=None,
        oom_killed=False,
        pid=status.pid,
        container_id=status.container_id,
        image=status.image,
        image_id=status.image_id,
        image_health="",
    )
    return started.with_event(started.started_at or moment.now, "Started")


def _take_status(record: TaskRecord, status: TaskStatus, view: TaskView) -> TaskRecord:
    if record.phase not in {"running", "stopping"}:
        return record
    if status.state != "running":
        return _ended(record, status, view)
    if status.container_id and record.pid is not None and status.pid not in {None, record.pid}:
        # A container that was restarted by hand: its end was over before anybody could see it.
        return _ended(record, TaskStatus(state="gone", error="another hand started it again"), view)
    return replace(
        record,
        must_hear=False,
        pid=status.pid,
        container_id=status.container_id,
        image=status.image,
        image_id=status.image_id,
        image_health=status.health,
        started_at=status.started_at or record.started_at,
    )


def _noted(record: TaskRecord, answer: Noted, moment: Moment) -> TaskRecord:
    """A start that is tried again and again tells the same each time: once is enough beside its newest failure."""
    if any((event.type, event.message) == (answer.event, answer.message) for event in record.events[-2:]):
        return record
    return record.with_event(moment.now, answer.event, answer.message)


def _start_failed(record: TaskRecord, answer: StartFailed, view: TaskView) -> TaskRecord:
    moment = view.moment
    noted = record.with_event(moment.now, answer.event, answer.message)
    if answer.temporary:
        # Spread, since what is short (descriptors, an engine) fails many at once, and would again.
        delay = min(timedelta(seconds=0.5 * 2**record.start_failures), MAX_START_DELAY) * (
            1 + moment.jitter / 4
        )
        failures = min(record.start_failures + 1, 10)
        return replace(
            noted,
            unsure=True,
            start_failures=failures,
            waits_since=moment.steady,
            due_at=moment.steady + delay,
        )
    if record.unsure:
        return replace(noted, refused=True, asked_since=None)
    ended = replace(
        noted, unsure=False, finished_at=moment.now, exit_code=None, signal=None, running_since=None
    )
    if view.winding_down and not view.is_poststop:
        return _dead(ended, failed=False)
    return _dead(ended, failed=False) if view.is_poststop else _restart_or_fail(ended, view)


def _ended(record: TaskRecord, status: TaskStatus, view: TaskView) -> TaskRecord:
    moment = view.moment
    ended = replace(
        record,
        running_since=None,
        pid=None,
        finished_at=status.finished_at or moment.now,
        exit_code=status.exit_code,
        signal=status.signal,
        oom_killed=status.oom_killed,
        due_at=None,
        waits_since=None,
    ).with_event(moment.now, "Terminated", _end_in_words(record, status, view))
    if record.ending == "limit":
        return _dead(ended, failed=not view.is_poststop)
    if view.winding_down:
        return _dead(ended, failed=False)
    if record.ending == "renew":
        again = replace(ended, phase="waiting", waits_since=moment.steady, due_at=moment.steady)
        return again.with_event(moment.now, "Restarting", "what it was given changed")
    if record.ending == "halt":
        again = replace(
            ended, phase="waiting", must_hear=True, waits_since=moment.steady, due_at=moment.steady
        )
        return again.with_event(
            moment.now, "Stopped", "all tasks of this node were; it starts with the next agent"
        )
    succeeded = status.state == "exited" and status.exit_code == 0 and not status.oom_killed
    if succeeded and view.runs_once and record.ending != "restart":
        return _dead(ended, failed=False)
    rebooted = bool(record.boot_id) and record.boot_id != moment.boot_id
    if why := "the machine was restarted" if rebooted else status.interrupted:
        again = replace(ended, phase="waiting", waits_since=moment.steady, due_at=moment.steady)
        return again.with_event(moment.now, "Restarting", why)
    return _restart_or_fail(ended, view)


def _restart_or_fail(record: TaskRecord, view: TaskView) -> TaskRecord:
    moment = view.moment
    decision = decide_restart(view.policy, record.restart_points, moment.steady, moment.jitter)
    if isinstance(decision, NoMore):
        return _dead(record.with_event(moment.now, "Not restarting", decision.message), failed=True)
    return replace(
        record,
        phase="waiting",
        restarts=record.restarts + 1,
        restart_points=decision.earlier,
        waits_since=moment.steady,
        due_at=decision.at,
    ).with_event(moment.now, "Restarting", decision.message)


def _dead(record: TaskRecord, *, failed: bool) -> TaskRecord:
    return replace(
        record,
        phase="dead",
        failed=failed,
        unsure=False,
        refused=False,
        must_hear=False,
        due_at=None,
        waits_since=None,
    )


def _advance_pending(record: TaskRecord, view: TaskView) -> TaskStep:
    if view.winding_down and not view.is_poststop and not view.busy:
        return TaskStep(record=_dead(record, failed=False))
    # Busy before its first start: a driver has found it running, and says now how it does.
    if view.busy or view.halting or not view.may_start:
        return TaskStep(record=record)
    return _begin(record, view)


def _advance_waiting(record: TaskRecord, view: TaskView) -> TaskStep:
    if view.winding_down:
        return TaskStep(record=_dead(record, failed=False))
    if view.busy:
        return TaskStep(record=record)
    if record.handle is not None:
        # Asked for once: the next start copes with what a failed removal left.
        remove = Remove(task=view.task.name, handle=record.handle)
        return TaskStep(record=replace(record, handle=None), instruction=remove, look_at=record.due_at)
    if view.halting:
        return TaskStep(record=record)
    if record.due_at is not None and record.due_at > view.moment.steady:
        return TaskStep(record=record, look_at=record.due_at)
    return _begin(record, view)


def _begin(record: TaskRecord, view: TaskView) -> TaskStep:
    """Takes the next attempt's number; the start itself is asked for once that is written (same step)."""
    if record.must_hear and not view.moment.heard:
        return TaskStep(record=record)
    if why := _why_wait(view):
        return TaskStep(record=record.with_event(view.moment.now, "Waiting", why))
    begun = replace(
        record,
        phase="starting",
        attempt=record.attempt + 1,
        handle=None,
        boot_id=view.moment.boot_id,
        must_hear=False,
        unsure=False,
        refused=False,
        start_failures=0,
        ending="",
        due_at=None,
        waits_since=None,
        asked_since=None,
        files=dict(view.services.digests),
        renew_at=None,
    )
    return _ask_to_start(begun, view)


def _why_wait(view: TaskView) -> str:
    """Why a task whose turn it is does not start yet; empty if it may.

    Never before its start is on record, and never with a list that is not known: a proxy without any upstream is
    worse than one that comes a bit later.
    """
    if view.nothing_starts:
        return view.nothing_starts
    names = ", ".join(view.services.unknown)
    return f"to be told the healthy addresses of {names}" if names else ""


def _advance_starting(record: TaskRecord, view: TaskView) -> TaskStep:
    if view.busy:
        return TaskStep(record=record)
    if view.winding_down and not view.is_poststop:
        return _search(record, view) if record.unsure else TaskStep(record=_dead(record, failed=False))
    if view.halting:
        return _search(record, view) if record.unsure else TaskStep(record=record)
    if record.due_at is not None and record.due_at > view.moment.steady:
        return TaskStep(record=record, look_at=record.due_at)
    if record.must_hear and not view.moment.heard:
        return TaskStep(record=record)
    if record.boot_id != view.moment.boot_id:
        # What an earlier boot began is void; with a number of its own, nothing of it can be taken for the new one.
        return _begin(record, view)
    if record.refused:
        return _search(record, view)
    if why := _why_wait(view):
        return TaskStep(record=record.with_event(view.moment.now, "Waiting", why))
    return _ask_to_start(record, view)


def _search(record: TaskRecord, view: TaskView) -> TaskStep:
    """A start that failed may have worked: nothing is called ended before that is known."""
    steady = view.moment.steady
    if record.asked_since is not None and record.asked_since + CALL_AGAIN > steady:
        return TaskStep(record=record, look_at=record.asked_since + CALL_AGAIN)
    searched = replace(record, asked_since=steady)
    return TaskStep(record=searched, instruction=Find(task=view.task.name), look_at=steady + CALL_AGAIN)


def _ask_to_start(record: TaskRecord, view: TaskView) -> TaskStep:
    asked = replace(record, must_hear=False, due_at=None, waits_since=None)
    return TaskStep(record=asked, instruction=Start(task=view.task.name, attempt=record.attempt))


def _advance_running(record: TaskRecord, view: TaskView) -> TaskStep:
    steady = view.moment.steady
    if view.winding_down and not view.is_poststop:
        if not view.may_end:
            return _keep_told(record, view, None)
        if view.end_at is not None and view.end_at > steady:
            return _keep_told(record, view, view.end_at)
        return _begin_end(record, view, "stop", "")
    if view.halting:
        return _begin_end(record, view, "halt", "")
    if view.checks is not None and view.checks.exhausted and view.checks.attempt == record.attempt:
        return _begin_end(record, view, "restart", f"checks failed: {view.checks.detail}")
    limit = _longest_run(view)
    if limit is None or record.first_running_since is None:
        return _keep_told(record, view, None)
    if record.first_running_since + limit > steady:
        return _keep_told(record, view, record.first_running_since + limit)
    return _begin_end(record, view, "limit", f"it ran for its limit of {format_duration(limit)}")


def _longest_run(view: TaskView) -> timedelta | None:
    return view.task.max_run_duration or (POSTSTOP_LIMIT if view.is_poststop else None)


def _keep_told(record: TaskRecord, view: TaskView, look_at: datetime | None) -> TaskStep:
    """Has a task that runs on, at least until *look_at*, told what changed of what it was given."""
    step = _keep_told_of_services(record, view, look_at)
    if step.instruction is not None or not view.secrets:
        return step
    return _keep_told_of_secrets(step.record, view, step.look_at)


def _keep_told_of_services(record: TaskRecord, view: TaskView, look_at: datetime | None) -> TaskStep:
    due = renewal(view.task, record.files, view.services)
    if due is None or view.busy:
        return TaskStep(record=record, look_at=look_at)
    steady = view.moment.steady
    renew_at = record.renew_at or (record.running_since or steady) + LISTENS_AFTER
    if renew_at > steady:
        return TaskStep(record=record, look_at=min(renew_at, look_at or renew_at))
    if due.restart and not view.winding_down:
        return _begin_end(record, view, "renew", f"{', '.join(due.files)} changed")
    asked = replace(record, renew_at=steady + RENEW_PAUSE)
    instruction = Renew(task=view.task.name, handle=_handle(record), files=due.files, signals=due.signals)
    return TaskStep(record=asked, instruction=instruction, look_at=look_at)


def _keep_told_of_secrets(record: TaskRecord, view: TaskView, look_at: datetime | None) -> TaskStep:
    taken = unknown(view.task, record.secrets, view.secrets)
    if taken:
        record = replace(record, secrets={**record.secrets, **taken})
    due = secret_renewal(view.task, record.secrets, view.secrets, view.allocation_id)
    if due is None or view.busy:
        return TaskStep(record=record, look_at=look_at)
    steady = view.moment.steady
    renew_at = max(due.at, record.renew_at or (record.running_since or steady) + LISTENS_AFTER)
    if renew_at > steady:
        return TaskStep(record=record, look_at=min(renew_at, look_at or renew_at))
    if due.restart and not view.winding_down:
        return _begin_end(record, view, "renew", f"secret {', '.join(due.names)} changed")
    asked = replace(record, renew_at=steady + RENEW_PAUSE)
    instruction = Renew(
        task=view.task.name,
        handle=_handle(record),
        files={},
        signals=due.signals,
        secrets=due.names,
        paths=due.paths,
    )
    return TaskStep(record=asked, instruction=instruction, look_at=look_at)


def _begin_end(record: TaskRecord, view: TaskView, ending: Ending, why: str) -> TaskStep:
    if view.busy:
        return TaskStep(record=record)
    moment, task = view.moment, view.task
    ends = replace(record, phase="stopping", ending=ending, signalled_since=moment.steady, due_at=None)
    words = f"with {task.kill_signal}" + (f": {why}" if why else "")
    ends = ends.with_event(moment.now, "Stopping", words)
    return TaskStep(
        record=ends,
        instruction=Signal(task=task.name, handle=_handle(record), signal=task.kill_signal),
        look_at=moment.steady + task.kill_timeout,
    )


def _advance_stopping(record: TaskRecord, view: TaskView) -> TaskStep:
    moment, task = view.moment, view.task
    if view.winding_down and record.ending in {"restart", "halt", "renew"}:
        record = replace(record, ending="stop")
    elif view.halting and record.ending in {"restart", "renew"}:
        record = replace(record, ending="halt")
    since = record.signalled_since or moment.steady
    due_at = since + task.kill_timeout if record.asked_since is None else record.asked_since + CALL_AGAIN
    if due_at > moment.steady:
        return TaskStep(record=record, look_at=due_at)
    if view.busy:
        return TaskStep(record=record)
    words = f"still running after {format_duration(task.kill_timeout)}"
    if record.asked_since is not None:
        words = "still running although it was killed"
    killed = replace(record, asked_since=moment.steady).with_event(moment.now, "Killing", words)
    return TaskStep(
        record=killed,
        instruction=Kill(task=task.name, handle=_handle(record)),
        look_at=moment.steady + CALL_AGAIN,
    )


def _advance_dead(record: TaskRecord, view: TaskView) -> TaskStep:
    if record.handle is None or view.busy:
        return TaskStep(record=record)
    steady = view.moment.steady
    if record.due_at is not None and record.due_at > steady:
        return TaskStep(record=record, look_at=record.due_at)
    asked = replace(record, due_at=steady + REMOVE_AGAIN)
    return TaskStep(
        record=asked, instruction=Remove(task=view.task.name, handle=record.handle), look_at=asked.due_at
    )


def _handle(record: TaskRecord) -> HandleRecord:
    if record.handle is None:
        raise ValueError(f"a task that is {record.phase} has no handle")
    return record.handle


def _end_in_words(record: TaskRecord, status: TaskStatus, view: TaskView) -> str:
    """How it ended, after why this agent ended it where the way of its end says nothing of that."""
    limit = _longest_run(view)
    if record.ending != "limit" or limit is None:
        return _status_in_words(status)
    what = "max_run_duration" if view.task.max_run_duration else "a poststop task may"
    return f"it ran longer than {what} ({format_duration(limit)}): {_status_in_words(status)}"


def _status_in_words(status: TaskStatus) -> str:
    if status.state == "gone":
        words = "no trace is left of it, nor of how it ended"
    elif status.oom_killed:
        words = "OOM killed"
    elif status.signal is not None:
        words = f"by signal {status.signal}"
    else:
        words = f"exit code {status.exit_code}"
    return f"{words}: {status.error}" if status.error else words
