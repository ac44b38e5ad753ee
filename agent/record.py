"""What the agent remembers of an allocation: plain values, written to the journal after each change.

A record says how far the agent got, never what a driver would say now. Points in time come in two kinds: those
people read (`…_at` of starts and ends, events) are wall time; those waited for are *steady* time, which a jump of
the wall clock does not move (see `agent.instructions.Moment`).
"""

from datetime import datetime
from typing import Final, Literal

import msgspec

from trueup.models.allocation import ClientStatus, TaskEvent
from trueup.models.codec import Model

Phase = Literal["pending", "starting", "running", "stopping", "waiting", "dead"]
"""`waiting`: it ended and starts again when its delay is over. `dead`: it has ended, or never ran, for good."""

Ending = Literal["", "stop", "restart", "limit", "halt", "renew"]
"""Why a task is being ended: with its allocation, to start again (checks failed), because it ran too long, because all
of this node's tasks are ended for now (`trueup down`), or to start again with a file that changed.
"""

MAX_EVENTS: Final = 10


class HandleRecord(Model, frozen=True, kw_only=True):
    """By what the driver finds the task of one attempt."""

    driver: str
    attempt: int
    data: str


class TaskRecord(Model, frozen=True, kw_only=True):
    """One task. *attempt* counts starts from 1: it is written before the start is made, so a repeat is the same.

    *must_hear*: nothing may be started before the control plane was heard. *boot_id* is that of the newest start.
    *unsure*: the newest start may have worked although it failed; *refused*: and its repeat failed for good, so it is
    looked for before it is given up. *failed*: it ended badly, for good. *due_at* is
    waited for since *waits_since*; *asked_since* is when the newest kill or search was asked for. *files* are digests
    of what its files from services said when it was last told, by path, *secrets* those of the secrets it watches, by
    name; they are renewed not before *renew_at*.
    *image_health* is what the check of its image says (`agent.image_health`).
    """

    phase: Phase = "pending"
    attempt: int = 0
    handle: HandleRecord | None = None
    boot_id: str = ""
    must_hear: bool = False
    unsure: bool = False
    refused: bool = False
    start_failures: int = 0
    ending: Ending = ""
    failed: bool = False

    restarts: int = 0
    restart_points: tuple[datetime, ...] = ()
    due_at: datetime | None = None
    waits_since: datetime | None = None
    running_since: datetime | None = None
    first_running_since: datetime | None = None
    signalled_since: datetime | None = None
    asked_since: datetime | None = None
    files: dict[str, str] = {}
    secrets: dict[str, str] = {}
    renew_at: datetime | None = None

    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    oom_killed: bool = False
    pid: int | None = None
    container_id: str = ""
    image: str = ""
    image_id: str = ""
    image_health: Literal["", "starting", "healthy", "unhealthy"] = ""
    events: tuple[TaskEvent, ...] = ()

    def with_event(self, at: datetime, kind: str, message: str = "") -> "TaskRecord":
        """The record with one more event; the newest ten are kept, and a repeat of the last one is not added."""
        if self.events and (self.events[-1].type, self.events[-1].message) == (kind, message):
            return self
        events = (*self.events, TaskEvent(at=at, type=kind, message=message))
        return msgspec.structs.replace(self, events=events[-MAX_EVENTS:])


class AllocationRecord(Model, frozen=True, kw_only=True):
    """One allocation. *outcome* is set once all its tasks have ended, and never changes again.

    *wanted* goes from `run` to `stop` and never back. *was_healthy*: it was healthy once, so that from then on not
    being so is news. *gave_up*: nobody ordered its end, the node gave up on it for want of contact.
    """

    wanted: Literal["run", "stop"] = "run"
    reason: str = ""
    stop_since: datetime | None = None
    tasks: dict[str, TaskRecord]
    healthy: bool | None = None
    was_healthy: bool = False
    gave_up: bool = False
    outcome: ClientStatus | None = None

    @property
    def has_ended(self) -> bool:
        """Whether all its tasks have ended, so that its room and ports are free."""
        return self.outcome is not None


def rebased(record: AllocationRecord, steady: datetime) -> AllocationRecord:
    """*record* as a new agent takes it up: no waited-for point lies further off than when it was written.

    Steady time begins anew with each agent, at the wall clock. Had that gone back meanwhile, points that were
    passed would be ahead again: they count from now.
    """
    tasks = {name: _rebased_task(task, steady) for name, task in record.tasks.items()}
    return msgspec.structs.replace(record, tasks=tasks, stop_since=_past(record.stop_since, steady))


def _rebased_task(task: TaskRecord, steady: datetime) -> TaskRecord:
    due_at = task.due_at
    if due_at is not None and task.waits_since is not None and task.waits_since > steady:
        due_at = steady + (due_at - task.waits_since)
    return msgspec.structs.replace(
        task,
        due_at=due_at,
        waits_since=_past(task.waits_since, steady),
        restart_points=tuple(min(point, steady) for point in task.restart_points),
        running_since=_past(task.running_since, steady),
        first_running_since=_past(task.first_running_since, steady),
        signalled_since=_past(task.signalled_since, steady),
        asked_since=_past(task.asked_since, steady),
        renew_at=None,
    )


def _past(point: datetime | None, steady: datetime) -> datetime | None:
    return None if point is None else min(point, steady)
