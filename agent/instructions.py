"""What the step of an allocation is told, and what it asks for: plain values between `agent.step` and `agent.runner`.

An instruction is carried out by a driver, outside; its answer comes into a later step. Instructions repeat as long
as no answer came, so each is idempotent at the driver's door.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from agent.doors import TaskHandle, TaskStatus
from agent.record import HandleRecord
from agent.secret_changes import SeenSecret
from agent.service_files import ServiceFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start attempt *attempt* of the task, or find it started. *fetched*: what it had to wait for is there."""

    task: str
    attempt: int
    fetched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """Find out whether the newest start of the task had worked after all."""

    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Send the task a signal."""

    task: str
    handle: HandleRecord
    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """End the task and all it started."""

    task: str
    handle: HandleRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Remove what is left of an ended attempt, but its logs."""

    task: str
    handle: HandleRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """Write the task's files of these paths (with digests of what they will say) anew, then send it the signals.

    *secrets* are names of those that changed, and *paths* the files that have them.
    """

    task: str
    handle: HandleRecord
    files: Mapping[str, str]
    signals: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


Instruction = Start | Find | Signal | Kill | Remove | Renew


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A start worked, or an earlier one was found. *secrets* are digests of those it was given, by name."""

    handle: TaskHandle
    status: TaskStatus
    secrets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailed:
    """A start failed; *temporary*: the same attempt may work later, and may have worked. *event* names what failed."""

    message: str
    temporary: bool = False
    event: str = "Driver failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """Something to tell of a start that is under way still."""

    event: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFound:
    """Nothing of the newest start exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the driver sees of an attempt."""

    attempt: int
    status: TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What was left of an attempt is gone."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """Files of an attempt say what *files* and *secrets* are the digests of, and the task was told."""

    attempt: int
    files: Mapping[str, str]
    secrets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed:
    """A signal, kill, removal, renewal or search failed; it is tried again when it is due."""

    message: str


Answer = Started | StartFailed | Noted | NotFound | Observed | Removed | Renewed | CallFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckView:
    """What a running attempt's checks say: *passing* None until each was made once.

    *exhausted*: one failed `restart_after` times in a row.
    """

    attempt: int
    passing: bool | None = None
    detail: str = ""
    exhausted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a step happens, and what was heard until then.

    *now* is wall time, for people; *steady* is what is waited for: the wall clock at the agent's start plus the
    monotonic time since, so that no jump of the wall clock ends a task. *heard*: the control plane answered since
    the agent started; *silent_since* the steady time of its last answer. *jitter* is drawn from 0 to 1.
    """

    now: datetime
    steady: datetime
    boot_id: str
    heard: bool = True
    silent_since: datetime | None = None
    jitter: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a step of one allocation sees of the world beyond its record.

    *answers* are new since the last step, by task in order of arrival; *busy* the tasks a call is under way for;
    *must_wait* that the allocation it replaces has tasks on this node still; *halting* that this node's tasks are
    being ended without being unwanted (`trueup down`): they start again with the next agent. *services* are the files
    made of services, by task; a task that is not in it has none. *nothing_starts* is why no task may start on this node
    now (its journal cannot be written); empty: they may.
    """

    moment: Moment
    answers: Mapping[str, Sequence[Answer]] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    checks: Mapping[str, CheckView] = field(default_factory=dict)
    must_wait: bool = False
    halting: bool = False
    services: Mapping[str, ServiceFiles] = field(default_factory=dict)
    secrets: Mapping[str, SeenSecret] = field(default_factory=dict)
    nothing_starts: str = ""
