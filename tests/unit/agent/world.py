"""A node with one agent in memory: virtual clock, fake machine, a control plane that is told what to answer.

`World.crash` drops the agent as kill -9 does: its memory is gone, journal and tasks stay; `World.start_agent` makes
the next one. `World.before` names doors at which the agent is killed (`Killed`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from agent.doors import (
    Account,
    FileContent,
    Probe,
    SecretMissing,
    TaskFolders,
    TaskHandle,
    TaskLaunch,
    TaskStatus,
    Unreachable,
    WantedArtifact,
)
from agent.environment import NodeFacts
from agent.folder_room import Bounds
from agent.heartbeat import Facts
from agent.journal import ChangeSet, Journal, open_journal
from agent.node_agent import AgentDoors, NodeAgent, begin_identity
from agent.value_digests import open_value_digests
from agent.workers import InlineWorkers
from tests.builders import NOON, CountingIds, a_group, a_node, an_allocation
from tests.unit.agent.fake_driver import FakeDriver, FakeMachine
from trueup.models.allocation import Allocation, TaskState
from trueup.models.ids import AllocationId
from trueup.models.job import Job, JobType, TaskGroup
from trueup.models.node import DriverState, NodeResources, NodeUse
from trueup.models.units import Bytes, Duration, Millicores
from trueup.models.wire import (
    AllocationUpdate,
    Assignment,
    HeartbeatRequest,
    HeartbeatResponse,
    RegisterRequest,
    RegisterResponse,
    StopOrder,
)


class VirtualClock:
    """A clock that moves when it is told to; the wall clock may jump by itself."""

    def __init__(self) -> None:
        self.wall = NOON
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def move(self, span: timedelta) -> None:
        self.wall += span
        self.seconds += span.total_seconds()


class Killed(BaseException):
    """kill -9 of the agent, at a call of a door."""


@dataclass
class FakeControlPlane:
    """Answers what it is told to; keeps what it heard."""

    reachable: bool = True
    epoch: int = 1
    index: int = 1
    adopting: bool = False
    refuses: BaseException | None = None
    answers: list[HeartbeatResponse] = field(default_factory=list)
    registrations: list[RegisterRequest] = field(default_factory=list)
    beats: list[HeartbeatRequest] = field(default_factory=list)
    updates: dict[AllocationId, AllocationUpdate] = field(default_factory=dict)

    def register(self, request: RegisterRequest) -> RegisterResponse:
        self._check()
        self.registrations.append(request)
        return RegisterResponse(
            node_secret="secret",
            cluster_id="c1",
            epoch=self.epoch,
            index=self.index,
            adopting=self.adopting,
            heartbeat_seconds=3,
            deadline_seconds=10,
        )

    def heartbeat(self, request: HeartbeatRequest) -> HeartbeatResponse:
        self._check()
        self.beats.append(request)
        for update in request.updates:
            self.updates[update.id] = update
        if self.answers:
            return self.answers.pop(0)
        return self.answer()

    def answer(self, **fields: Any) -> HeartbeatResponse:
        """A plain answer with these fields."""
        values = {
            "epoch": self.epoch,
            "index": self.index,
            "adopting": self.adopting,
            "heartbeat_seconds": 3,
            "deadline_seconds": 10,
        }
        return HeartbeatResponse(**(values | fields))

    def _check(self) -> None:
        if not self.reachable:
            raise Unreachable("no route")
        if self.refuses is not None:
            raise self.refuses


@dataclass
class FakeProber:
    """Says what it is told of every address."""

    why_not: str | None = None
    probes: list[Probe] = field(default_factory=list)

    def probe(self, probe: Probe) -> str | None:
        self.probes.append(probe)
        return self.why_not


@dataclass
class MemoryFolders:
    """Folders that are noted down only."""

    prepared: list[tuple[AllocationId, str, tuple[FileContent, ...]]] = field(default_factory=list)
    removed: list[AllocationId] = field(default_factory=list)
    each_bytes: int = 0

    def paths(self, allocation_id: AllocationId, task: str) -> TaskFolders:
        base = Path("/data") / allocation_id
        return TaskFolders(task=base / "tasks" / task, shared=base / "shared", logs=base / "logs")

    def prepare(
        self, allocation_id: AllocationId, task: str, owner: Account | None, files: Sequence[FileContent]
    ) -> None:
        self.prepared.append((allocation_id, task, tuple(files)))

    def remove(self, allocation_id: AllocationId) -> None:
        self.removed.append(allocation_id)

    def size_bytes(self, allocation_id: AllocationId) -> int:
        return self.each_bytes

    def all(self) -> Sequence[AllocationId]:
        made = {AllocationId(one) for one, _, _ in self.prepared}
        return sorted(made - set(self.removed))


@dataclass
class FakeArtifacts:
    """Artifacts that are there, or what is told instead; noted down only."""

    fails: list[Exception] = field(default_factory=list)
    provided: list[tuple[WantedArtifact, ...]] = field(default_factory=list)
    cleaned_up: int = 0

    def provide(
        self,
        wanted: Sequence[WantedArtifact],
        folders: TaskFolders,
        owner: Account | None,
        *,
        downloads: Callable[[str], None],
        is_unwanted: Callable[[], bool],
    ) -> None:
        for one in wanted:
            downloads(one.shown)
        if self.fails:
            raise self.fails.pop(0)
        self.provided.append(tuple(wanted))

    def clean_up(self) -> None:
        self.cleaned_up += 1


@dataclass
class FixedSecrets:
    """Secrets as given."""

    values: dict[str, str] = field(default_factory=dict)

    def names(self) -> Sequence[str]:
        return sorted(self.values)

    def value(self, name: str) -> str:
        if name not in self.values:
            raise SecretMissing(f"secret {name} is missing")
        return self.values[name]

    def decrypted(self, ciphertext: str) -> str:
        raise SecretMissing("this node has no age key")


class OneAccount:
    """Every user is the same one."""

    def account(self, user: str) -> Account:
        return Account(name=user or "agent", home="/home/agent", uid=1000, gid=1000)


@dataclass
class FixedMachine:
    """A machine of which only what is *used* changes."""

    name: str = "node-1"
    endpoint: str = ""
    used: NodeUse | None = None

    def facts(self) -> Facts:
        return Facts(
            name=self.name,
            region="global",
            endpoint=self.endpoint,
            resources=NodeResources(cpu_millicores=Millicores(4000), memory_bytes=Bytes(2**33)),
            attributes={},
            labels={},
            drivers={"process": DriverState()},
            volumes=(),
            secrets=(),
            used=self.used,
        )


class CrashingJournal:
    """A journal before or after whose commit the agent may be killed."""

    def __init__(self, journal: Journal, reach: Callable[[str], None]) -> None:
        self._journal = journal
        self._reach = reach

    def commit(self, changes: ChangeSet) -> None:
        if not changes.is_empty:
            self._reach("before commit")
        self._journal.commit(changes)
        if not changes.is_empty:
            self._reach("after commit")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


class CrashingDriver(FakeDriver):
    """A driver before or after whose calls the agent may be killed."""

    def __init__(
        self, machine: FakeMachine, wake: Callable[[AllocationId], None], reach: Callable[[str], None]
    ) -> None:
        super().__init__(machine, wake)
        self._reach = reach

    def start(self, launch: TaskLaunch) -> TaskHandle:
        self._reach("before start")
        handle = super().start(launch)
        self._reach("after start")
        return handle

    def status(self, handle: TaskHandle) -> TaskStatus:
        self._reach("before status")
        return super().status(handle)

    def signal(self, handle: TaskHandle, signal: str) -> None:
        self._reach("before signal")
        super().signal(handle, signal)
        self._reach("after signal")

    def kill(self, handle: TaskHandle) -> None:
        self._reach("before kill")
        super().kill(handle)
        self._reach("after kill")

    def remove(self, handle: TaskHandle) -> None:
        self._reach("before remove")
        super().remove(handle)
        self._reach("after remove")


class World:
    """All of it. `run` moves the clock from one due time to the next, as threads would."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.clock = VirtualClock()
        self.machine = FakeMachine(self.clock)
        self.facts = FixedMachine()
        self.bounds = Bounds()
        self.disk: Any = None
        self.control_plane = FakeControlPlane()
        self.prober = FakeProber()
        self.folders = MemoryFolders()
        self.artifacts = FakeArtifacts()
        self.secrets = FixedSecrets()
        self.reached: list[str] = []
        self.kill_at: int | None = None
        """The how-manieth door from now kills the agent (0: the next); None: none does."""
        self._journal: Journal | None = None
        self._due: dict[str, datetime | None] = {}
        self._ids = CountingIds()
        self.agent = self.start_agent()

    def start_agent(self) -> NodeAgent:
        """A new agent on the data folder."""
        self._journal = journal = open_journal(self.data)
        node_id = begin_identity(journal, self._ids, self.machine.boot_id)
        relay: list[Callable[[AllocationId], None]] = []
        driver = CrashingDriver(self.machine, lambda key: relay[0](key), self._reach)  # noqa: PLW0108 - made later
        self._driver = driver
        self.agent = NodeAgent(
            AgentDoors(
                journal=CrashingJournal(journal, self._reach),  # type: ignore[arg-type] # as far as it is used
                control_plane=self.control_plane,
                drivers={"process": driver},
                secrets=self.secrets,
                digests=open_value_digests(self.data),
                accounts=OneAccount(),
                folders=self.folders,
                prober=self.prober,
                workers=InlineWorkers(),
                check_workers=InlineWorkers(),
                artifacts=self.artifacts,
                download_workers=InlineWorkers(),
                pull_workers=InlineWorkers(),
                machine=self.facts,
                disk=self.disk,
                bounds=self.bounds,
                clock=self.clock,
                boot_id=self.machine.boot_id,
                jitter=lambda: 0.0,
            ),
            NodeFacts(id=node_id, name="node-1", region="global", host_ip="127.0.0.1"),
        )
        relay.append(self.agent.runner.wake)
        self._due = dict.fromkeys(("agent-runner", "agent-heartbeat"), self.clock.now())
        self.agent.connect({name: lambda one=name: self._wake(one) for name in self._due})  # type: ignore[misc]
        return self.agent

    def crash(self) -> None:
        """kill -9: what was in memory is gone."""
        self._driver.close()
        assert self._journal is not None
        self._journal.close()

    def step(self) -> bool:
        """Steps what is due now; whether anything was."""
        busy = False
        for name, loop in self.agent.loops:
            due = self._due[name]
            if due is not None and due <= self.clock.now():
                self._due[name] = None
                next_due = loop.step()
                woken = self._due[name]
                self._due[name] = next_due if woken is None else woken
                busy = True
        return busy

    def settle(self) -> None:
        """Steps until nothing is due now."""
        for _ in range(1000):
            self.machine.settle()
            if not self.step():
                return
        raise AssertionError("the loops never come to rest")

    def run(self, seconds: float) -> None:
        """Lets *seconds* pass, stopping at each due time."""
        end = self.clock.now() + timedelta(seconds=seconds)
        while True:
            self.settle()
            points = [point for point in (*self._due.values(), self.machine.step()) if point is not None]
            due = min(points, default=end)
            if due > end:
                break
            self.clock.move(max(due - self.clock.now(), timedelta()))
        self.clock.move(end - self.clock.now())
        self.settle()

    def assign(self, *assignments: Assignment) -> None:
        self.agent.runner.assign(assignments)

    def stop(self, *ids: str, reason: str = "not needed") -> None:
        self.agent.runner.stop([StopOrder(id=AllocationId(one), reason=reason) for one in ids])

    def held(self, allocation_id: str = "a1") -> Allocation:
        found = self.agent.runner.allocation(AllocationId(allocation_id))
        assert found is not None
        return found

    def task(self, allocation_id: str = "a1", task: str = "server") -> TaskState:
        return self.held(allocation_id).tasks[task]

    def told(self, allocation_id: str = "a1") -> AllocationUpdate:
        """The newest update the control plane heard."""
        return self.control_plane.updates[AllocationId(allocation_id)]

    def running(self) -> list[tuple[str, str]]:
        return [(str(key[0]), key[1]) for key in self.machine.running()]

    def _wake(self, name: str) -> None:
        self._due[name] = self.clock.now()

    def _reach(self, door: str) -> None:
        self.reached.append(door)
        if self.kill_at is not None:
            if self.kill_at == 0:
                self.kill_at = None
                raise Killed(door)
            self.kill_at -= 1


def an_assignment(
    allocation_id: str = "a1",
    *,
    group: TaskGroup | None = None,
    job_type: JobType = "service",
    min_healthy_time: float = 1,
    version: int = 1,
    **fields: Any,
) -> Assignment:
    """An assignment of a group of one sleeping task `server`."""
    of = group or a_group()
    job = Job(name="web", type=job_type, groups=(of,))
    fields.setdefault("client_status", "pending")
    allocation = an_allocation(job, a_node(), id=allocation_id, version=version, age=timedelta(), **fields)
    return Assignment(
        allocation=allocation,
        job_type=job_type,
        group=of,
        min_healthy_time=Duration(seconds=min_healthy_time),
    )
