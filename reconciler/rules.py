"""What one allocation is to its group, by an ordered list of rules: the first that holds decides.

Each rule stands under the sentence that justifies it. Rules look at one allocation, its node and the clock;
counts and budgets come after. Source: Nomad's `reconciler/filters.go`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """All a rule may look at."""

    allocation: Allocation
    node: Node | None
    job: Job
    group: TaskGroup
    digest: str
    type_when_placed: str
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the rules found; *due_at* is when time alone may change it."""

    allocation: Allocation
    standing: Standing
    reason: StopReason = "not needed"
    due_at: datetime | None = None
    events: tuple[RescheduleEvent, ...] = ()

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
    return Verdict(allocation=subject.allocation, standing="replace", reason="rescheduled")


def _lost(subject: Subject) -> Verdict | None:
    """What was lost with its node is replaced at once; a system job's waits for its node."""
    held, node = subject.allocation, subject.node
    gone = node is None or node.lost
    given_up = held.client_status == "lost" or _is_silent_too_long(subject)
    if not given_up and not gone:
        return None
    if subject.job.type in {"system", "sysbatch"} and not gone and (node is None or node.status != "ready"):
        return Verdict(allocation=held, standing="wait")
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
    recent = attempts_within(policy, held.reschedule_events, ended_at)
    if not policy.unlimited and recent >= policy.attempts:
        return Verdict(allocation=held, standing="wait")
    delay = reschedule_delay(policy, recent)
    due_at = ended_at + delay
    if due_at > subject.now:
        return Verdict(allocation=held, standing="wait", due_at=due_at)
    event = RescheduleEvent(at=subject.now, delay=delay, node_id=held.node_id)
    return Verdict(
        allocation=held,
        standing="replace",
        reason="rescheduled",
        events=(*held.reschedule_events, event)[-20:],
    )


def _silent(subject: Subject) -> Verdict | None:
    """On a silent node with `lost_after`, an allocation counts as wanted until it is lost."""
    held = subject.allocation
    if held.client_status != "unknown" and not _is_disconnected(subject):
        return None
    due_at = None if held.unknown_since is None else held.unknown_since + patience(subject.group)
    return Verdict(allocation=held, standing="wait", due_at=due_at)


def _is_silent_too_long(subject: Subject) -> bool:
    """Whether what runs on a silent node is given up: at once, or when its group's patience is over."""
    held, node = subject.allocation, subject.node
    if held.is_terminal or node is None:
        return False
    if held.client_status != "unknown":
        return node.status == "down"
    since = held.unknown_since
    return since is not None and subject.now >= since + patience(subject.group)


def _is_disconnected(subject: Subject) -> bool:
    return (
        subject.node is not None
        and subject.node.status == "disconnected"
        and not subject.allocation.is_terminal
    )


def _drained(subject: Subject) -> Verdict | None:
    """What runs on a draining node moves; batch runs on until it ends or the deadline."""
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


def attempts_within(policy: Reschedule, events: tuple[RescheduleEvent, ...], until: datetime) -> int:
    """How many earlier attempts count: those inside the interval, or for an unlimited policy those since it reset.

    An unlimited chain resets once it ran for longer than `max_delay`. Source: Nomad's `reschedule` block.
    """
    if not policy.unlimited:
        return sum(1 for event in events if event.at > until - policy.interval)
    if events and until - events[-1].at > policy.max_delay + events[-1].delay:
        return 0
    return len(events)


def reschedule_delay(policy: Reschedule, attempts: int) -> Duration:
    """How long a failed allocation waits before it is placed again.

    *attempts* counts the earlier ones that count, from 0. Exponential: `delay * 2**attempts`; fibonacci: delay
    times 1, 1, 2, 3, 5 …; both at most `max_delay`. ValueError if *attempts* is negative. Source: Nomad.
    """
    if attempts < 0:
        raise ValueError("attempts is negative")
    if policy.delay_function == "constant":
        return policy.delay
    factor = (
        2 ** min(attempts, 40) if policy.delay_function == "exponential" else _fibonacci(min(attempts, 60))
    )
    seconds = min(policy.delay.total_seconds() * factor, policy.max_delay.total_seconds())
    return Duration(seconds=seconds)


def _fibonacci(position: int) -> int:
    current, following = 1, 1
    for _ in range(position):
        current, following = following, current + following
    return current
