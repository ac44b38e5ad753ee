"""A machine whose tasks are rows in memory, and a driver for it: for the simulator and for tests of the agent.

The machine outlives the driver object, as real tasks outlive the agent: a new `FakeDriver` on the same machine finds
what an earlier one started. Everything is deterministic given the clock; nothing happens between calls, so who moves
the clock calls `FakeMachine.settle` (or steps it as a loop).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.doors import DriverError, TaskHandle, TaskLaunch, TaskStatus, Wake
from trueup.models.clock import Clock
from trueup.models.ids import AllocationId
from trueup.models.node import DriverState
from trueup.models.units import Duration

Key = tuple[AllocationId, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a task behaves. *run_for* None: until it is told to end. *ends_after* a signal, unless it is ignored."""

    run_for: timedelta | None = None
    exit_code: int = 0
    ignores_signals: bool = False
    ends_after: timedelta = timedelta()
    fails: DriverError | None = None


@dataclass(slots=True)
class FakeTask:
    """One attempt of a task on the machine."""

    launch: TaskLaunch
    pid: int
    started_at: datetime
    behaviour: Behaviour
    ends_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None

    @property
    def runs(self) -> bool:
        return self.finished_at is None


@dataclass(slots=True)
class FakeMachine:
    """What runs, and everything that ever started, in order. *behave* says how a launch will go."""

    clock: Clock
    behave: Callable[[TaskLaunch], Behaviour] = lambda _launch: Behaviour()
    tasks: dict[Key, FakeTask] = field(default_factory=dict)
    started: list[Key] = field(default_factory=list)
    overlaps: list[Key] = field(default_factory=list)
    """Attempts that began while another attempt of the same task still ran: must stay empty."""
    signals: list[tuple[str, str, str]] = field(default_factory=list)
    wakes: list[Wake] = field(default_factory=list)
    boot_id: str = "boot-1"
    _next_pid: int = 100

    def step(self) -> datetime | None:
        """Ends what is due; returns when the next task ends by itself."""
        self.settle()
        return min((task.ends_at for task in self.tasks.values() if task.runs and task.ends_at), default=None)

    def settle(self) -> None:
        """Ends what is due by the clock."""
        now = self.clock.now()
        for key, task in list(self.tasks.items()):
            if task.runs and task.ends_at is not None and task.ends_at <= now:
                self._end(key, task)

    def kill_task(self, allocation_id: AllocationId, task: str) -> None:
        """Somebody kills the running task by hand."""
        for key, found in list(self.tasks.items()):
            if key[:2] == (allocation_id, task) and found.runs:
                found.signal = 9
                self._end(key, found)

    def reboot(self) -> None:
        """Everything that ran is gone without a trace of its end."""
        number = int(self.boot_id.rpartition("-")[2]) + 1
        self.boot_id = f"boot-{number}"
        for key in [key for key, task in self.tasks.items() if task.runs]:
            del self.tasks[key]

    def running(self) -> list[Key]:
        """What runs, sorted."""
        return sorted(key for key, task in self.tasks.items() if task.runs)

    def start(self, launch: TaskLaunch) -> None:
        """Starts an attempt, or finds it."""
        key = (launch.allocation_id, launch.task, launch.attempt)
        if key in self.tasks:
            return
        behaviour = self.behave(launch)
        if behaviour.fails is not None:
            raise behaviour.fails
        if any(other[:2] == key[:2] and task.runs for other, task in self.tasks.items()):
            self.overlaps.append(key)
        now = self.clock.now()
        self._next_pid += 1
        self.tasks[key] = FakeTask(
            launch=launch,
            pid=self._next_pid,
            started_at=now,
            behaviour=behaviour,
            ends_at=None if behaviour.run_for is None else now + behaviour.run_for,
        )
        self.started.append(key)
        self.settle()

    def signal(self, key: Key, signal: str) -> None:
        """Has a task end after its time, unless it ignores signals."""
        task = self.tasks.get(key)
        if task is None or not task.runs:
            return
        self.signals.append((str(key[0]), key[1], signal))
        if signal == "SIGKILL":
            task.signal = 9
            self._end(key, task)
        elif not task.behaviour.ignores_signals:
            task.signal = 15
            task.ends_at = self.clock.now() + task.behaviour.ends_after
            self.settle()

    def _end(self, key: Key, task: FakeTask) -> None:
        task.finished_at = self.clock.now()
        if task.signal is None:
            task.exit_code = task.behaviour.exit_code
        for wake in list(self.wakes):
            wake(key[0])


class FakeDriver:
    """A driver of a `FakeMachine`. *name* is the driver it stands for."""

    def __init__(self, machine: FakeMachine, wake: Wake, *, name: str = "process") -> None:
        self._machine = machine
        self._wake = wake
        self._name = name
        machine.wakes.append(wake)

    @property
    def name(self) -> str:
        return self._name

    def fingerprint(self) -> DriverState | None:
        return DriverState()

    def start(self, launch: TaskLaunch) -> TaskHandle:
        self._machine.start(launch)
        return TaskHandle(
            driver=self._name,
            allocation_id=launch.allocation_id,
            task=launch.task,
            attempt=launch.attempt,
            data="",
        )

    def status(self, handle: TaskHandle) -> TaskStatus:
        self._machine.settle()
        task = self._machine.tasks.get(_key(handle))
        if task is None:
            return TaskStatus(state="gone")
        return TaskStatus(
            state="running" if task.runs else "exited",
            pid=task.pid,
            started_at=task.started_at,
            finished_at=task.finished_at,
            exit_code=task.exit_code,
            signal=task.signal,
        )

    def signal(self, handle: TaskHandle, signal: str) -> None:
        self._machine.signal(_key(handle), signal)

    def kill(self, handle: TaskHandle) -> None:
        self._machine.signal(_key(handle), "SIGKILL")

    def remove(self, handle: TaskHandle) -> None:
        task = self._machine.tasks.get(_key(handle))
        if task is not None and task.runs:
            raise DriverError("it still runs", temporary=True)
        self._machine.tasks.pop(_key(handle), None)

    def recover(self) -> Sequence[TaskHandle]:
        return [
            TaskHandle(driver=self._name, allocation_id=key[0], task=key[1], attempt=key[2], data="")
            for key in sorted(self._machine.tasks)
        ]

    def execute(self, handle: TaskHandle, command: Sequence[str], timeout: Duration) -> tuple[int, str]:
        task = self._machine.tasks.get(_key(handle))
        if task is None or not task.runs:
            raise DriverError("it has ended")
        return (0, "") if command[:1] == ("true",) else (1, "not well")

    def close(self) -> None:
        """The agent ends, or its object dies: nothing wakes it any more."""
        if self._wake in self._machine.wakes:
            self._machine.wakes.remove(self._wake)


def _key(handle: TaskHandle) -> Key:
    return (handle.allocation_id, handle.task, handle.attempt)
