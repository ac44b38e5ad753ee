"""What one allocation is to its group, by an ordered list of rules: the first that holds decides.

Each rule stands under the sentence that justifies it. Rules look at one allocation, its node and the clock;
counts and budgets come after. Source: Nomad's `reconciler/filters.go`.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from reconciler.changes import Stop
from trueup.models.allocation import Allocation, RescheduleEvent, StopReason
from trueup.models.job import Job, Reschedule, TaskGroup, reschedule_policy
from trueup.models.node import Node
from trueup.models.silence import patience
from trueup.models.units import Duration

Standing = Literal["leaving", "foreign", "done", "rerun", "replace", "wait", "migrate", "keep"]
"""leaving: told to stop already, counted nowhere. foreign: of another job type, to be stopped. done: finished,
counts for ever. rerun: finished in an older form. replace: gone, a new one is due. wait: counts, a new one may be
due later. migrate: runs, but its node is drained. keep: runs, or will."""

_EVENTS_KEPT: Final = 20
"""How many earlier attempts an allocation remembers at least."""


class Subject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All a rule may look at."""

    allocation: Allocation
    node: Node | None
    job: Job
    group: TaskGroup
    digest: str
    type_when_placed: str
    now: datetime


class Verdict(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the rules found; *due_at* is when time alone may change it.

    *ends_anyway*: what is to be replaced ends also if its replacement finds no room.
    """

    allocation: Allocation
    standing: Standing
    reason: StopReason = "not needed"
    due_at: datetime | None = None
    events: tuple[RescheduleEvent, ...] = ()
    ends_anyway: bool = False

    @property
    def stop(self) -> Stop:
        """The stop that this verdict calls for."""
        return Stop(allocation=self.allocation, reason=self.reason)


Rule = Callable[[Subject], Verdict | None]


def judge(subject: Subject) -> Verdict:
    """What the allocation is to its group."""
    for rule in RULES:
        verdict = rule(subject)
        if verdict is not None:
            return verdict
    return Verdict(
        allocation=subject.allocation, standing="keep", events=subject.allocation.reschedule_events
    )


def _told_to_stop(subject: Subject) -> Verdict | None:
    """What is told to stop is wanted no more, and takes no name, however long it lingers."""
    if subject.allocation.desired_status == "run":
        return None
    return Verdict(allocation=subject.allocation, standing="leaving")


def _of_another_type(subject: Subject) -> Verdict | None:
    """A job whose type changed is another job: what the old one left is ended."""
    if subject.type_when_placed == subject.job.type:
        return None
    return Verdict(allocation=subject.allocation, standing="foreign", reason="job removed")


def _finished_batch(subject: Subject) -> Verdict | None:
    """A finished batch allocation counts for ever, and runs again only for what its tasks see."""
    held = subject.allocation
    if held.client_status != "complete" or subject.job.type not in {"batch", "sysbatch"}:
        return None
    if held.digest == subject.digest or held.run is not None:
        return Verdict(allocation=held, standing="done")
    return Verdict(allocation=held, standing="rerun", reason="updating")


def _ended_service(subject: Subject) -> Verdict | None:
    """A service that ended by itself is wanted all the same."""
    if subject.allocation.client_status != "complete":
        return None
    held = subject.allocation
    return Verdict(allocation=held, standing="replace", reason="rescheduled", events=held.reschedule_events)


def _lost(subject: Subject) -> Verdict | None:
    """What was lost with its node is replaced at once; what had ended before goes by its own rules."""
    held, node = subject.allocation, subject.node
    gone = (node is None or node.lost) and not held.is_terminal
    if held.client_status == "lost" and (due_at := _ended_by_its_agent(subject)) is not None:
        return Verdict(allocation=held, standing="wait", due_at=due_at)
    if held.client_status != "lost" and not gone and not _is_silent_too_long(subject):
        return None
    return Verdict(allocation=held, standing="replace", reason="lost", events=held.reschedule_events)


def _failed(subject: Subject) -> Verdict | None:
    """A failed allocation is placed again when its policy says so, else it stays, and its job is Degraded."""
    held = subject.allocation
    if held.client_status != "failed":
        return None
    if held.digest != subject.digest and held.run is None:
        # A new version does not wait for the old one's backoff.
        return Verdict(allocation=held, standing="replace", reason="updating")
    policy = reschedule_policy(subject.job.type, subject.group)
    ended_at = ended(held)
    if is_exhausted(policy, held.reschedule_events, ended_at):
        return Verdict(allocation=held, standing="wait")
    delay = reschedule_delay(policy, held.reschedule_events, ended_at)
    due_at = ended_at + delay
    if due_at > subject.now:
        return Verdict(allocation=held, standing="wait", due_at=due_at)
    event = RescheduleEvent(at=subject.now, delay=delay, node_id=held.node_id)
    return Verdict(
        allocation=held,
        standing="replace",
        reason="rescheduled",
        events=(*held.reschedule_events, event)[-max(_EVENTS_KEPT, policy.attempts) :],
    )


def _silent(subject: Subject) -> Verdict | None:
    """On a silent node with `lost_after`, an allocation counts as wanted until it is lost."""
    since = _silent_since(subject)
    if since is None:
        return None
    return Verdict(allocation=subject.allocation, standing="wait", due_at=since + patience(subject.group))


def _is_silent_too_long(subject: Subject) -> bool:
    """Whether what runs on a silent node is given up: at once, or when its group's patience is over."""
    since = _silent_since(subject)
    if since is None:
        return False
    is_down = subject.node is not None and subject.node.status == "down"
    if (
        is_down
        and subject.allocation.client_status != "unknown"
        and subject.group.disconnect.stop_after is None
    ):
        return True
    return subject.now >= since + patience(subject.group)


def _silent_since(subject: Subject) -> datetime | None:
    """Since when nobody has heard of what runs; None: it is heard of, or has ended.

    Where nobody noted it, a node that is down is so since its status changed, one that is disconnected since now.
    """
    held, node = subject.allocation, subject.node
    if held.is_terminal or node is None:
        return None
    if held.client_status == "unknown" or node.status == "disconnected":
        return held.unknown_since or subject.now
    return node.status_changed_at if node.status == "down" else None


def _ended_by_its_agent(subject: Subject) -> datetime | None:
    """Until when a lost allocation may still run: with `stop_after` its agent ends it after that long without contact.

    None: it has ended, or nobody will end it.
    """
    held, node = subject.allocation, subject.node
    since = held.unknown_since or held.lost_at
    if subject.group.disconnect.stop_after is None or since is None or node is None or node.lost:
        return None
    due_at = since + patience(subject.group)
    return due_at if due_at > subject.now else None


def _drained(subject: Subject) -> Verdict | None:
    """What runs on a draining node moves; batch runs on until it ends or the deadline. Then all of it ends."""
    drain = None if subject.node is None else subject.node.drain
    if drain is None or subject.job.type in {"system", "sysbatch"}:
        return None
    overdue = subject.now >= drain.deadline_at
    if subject.job.type == "batch" and not overdue:
        return Verdict(allocation=subject.allocation, standing="keep", due_at=drain.deadline_at)
    return Verdict(
        allocation=subject.allocation,
        standing="replace" if overdue else "migrate",
        reason="migrating",
        due_at=None if overdue else drain.deadline_at,
        events=subject.allocation.reschedule_events,
        ends_anyway=overdue,
    )


RULES: Final[tuple[Rule, ...]] = (
    _told_to_stop,
    _of_another_type,
    _finished_batch,
    _ended_service,
    _lost,
    _failed,
    _silent,
    _drained,
)


def ended(allocation: Allocation) -> datetime:
    """When its latest task ended; when it was last modified if no task says so."""
    return max(
        (task.finished_at for task in allocation.tasks.values() if task.finished_at is not None),
        default=allocation.modified_at,
    )


def is_exhausted(policy: Reschedule, events: Sequence[RescheduleEvent], until: datetime) -> bool:
    """Whether a limited policy has no attempt left: those within its interval before *until* count."""
    recent = sum(1 for event in events if event.at > until - policy.interval)
    return not policy.unlimited and recent >= policy.attempts


def reschedule_delay(policy: Reschedule, events: Sequence[RescheduleEvent], ended_at: datetime) -> Duration:
    """How long what failed at *ended_at*, after the attempts in *events*, waits before it is placed again.

    Exponential: twice the last delay; fibonacci: the sum of the last two; both at most `max_delay`. A series that
    would go beyond it begins anew if the last attempt ran for longer than that. Source: Nomad's `NextDelay`.
    """
    if policy.delay_function == "constant":
        return policy.delay
    series: list[timedelta] = []
    for event in events:
        series.append(event.delay or min(_following(policy, series), policy.max_delay))
    following = _following(policy, series)
    if not events or following <= policy.max_delay:
        return Duration(seconds=following.total_seconds())
    return policy.delay if ended_at - events[-1].at > policy.max_delay else policy.max_delay


def _following(policy: Reschedule, series: Sequence[timedelta]) -> timedelta:
    """What follows the delays of *series*, without a limit. After a series began anew, fibonacci does so too."""
    if not series:
        return policy.delay
    if policy.delay_function == "exponential":
        return series[-1] * 2
    if len(series) == 1 or (series[-2] == policy.max_delay and series[-1] == policy.delay):
        return policy.delay
    return series[-2] + series[-1]
