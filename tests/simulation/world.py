"""One process that is a whole cluster: the real server and the real agents on a virtual clock, from one seed.

What is real: store (SQLite), membership, retention, sync, reconcile loop, dispatcher, what nodes are told of services;
the agents' journal, runner and heartbeat. What is made up: clock, network, spec source, and the machines' tasks. A seed
decides all of it, so a seed that fails fails again.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

from agent.doors import TaskLaunch
from agent.environment import NodeFacts
from agent.journal import Journal, open_journal
from agent.node_agent import AgentDoors, NodeAgent, begin_identity
from agent.workers import InlineWorkers
from metastore.membership import Membership, MembershipSettings
from metastore.retention import Retention
from metastore.service_telling import ServiceTelling
from metastore.store import SqlStore
from metastore.transaction import StoreTransaction
from reconciler.dispatcher import Dispatcher
from reconciler.doors import Loop
from reconciler.invariants import violations
from reconciler.loop import ReconcileLoop
from reconciler.sync import SyncLoop
from tests.builders import CountingIds
from tests.simulation.network import Network, ServerKilled, ToAgents, ToServer
from tests.simulation.source import SimulatedSource
from tests.unit.agent.fake_driver import Behaviour, FakeMachine
from tests.unit.agent.world import (
    CrashingDriver,
    CrashingJournal,
    FakeArtifacts,
    FakeProber,
    FixedMachine,
    FixedSecrets,
    Killed,
    MemoryFolders,
    OneAccount,
    VirtualClock,
)
from trueup.models.commit import Committed
from trueup.models.ids import AllocationId

NODES: Final = 3


@dataclass(slots=True)
class Process:
    """A process with its loops: which is due when. Killed, it is no more; what it kept on disk stays."""

    name: str
    loops: dict[str, Loop]
    due: dict[str, datetime | None]

    def wake(self, name: str, now: datetime) -> None:
        self.due[name] = now


@dataclass(slots=True)
class SimulatedNode:
    """A machine: its tasks and its disk outlive the agent."""

    name: str
    folder: Path
    machine: FakeMachine
    ids: CountingIds
    agent: NodeAgent | None = None
    process: Process | None = None
    journal: Journal | None = None
    driver: CrashingDriver | None = None


@dataclass(slots=True)
class Server:
    """A running control plane."""

    store: SqlStore
    membership: Membership
    process: Process


@dataclass(slots=True)
class Crashes:
    """Whether a process dies at the next door it reaches: seeded, and off while the world is to come to rest."""

    random: Random
    chance: float = 0.0

    def reach(self, _door: str) -> None:
        """A door of an agent."""
        if self.random.random() < self.chance:
            raise Killed

    def reach_server(self) -> None:
        """A door of the control plane."""
        if self.random.random() < self.chance / 2:
            raise ServerKilled


class CrashingStore(SqlStore):
    """A store before or after whose commit the server may be killed."""

    reach: Callable[[], None] = staticmethod(lambda: None)

    @contextmanager
    def transaction(self) -> Iterator[StoreTransaction]:
        with super().transaction() as tx:
            yield tx
            self.reach()
        self.reach()


class Simulation:
    """The world. `run` lets time pass with faults, `rest` without; every step is followed by the invariants."""

    def __init__(self, seed: int, folder: Path, pristine: Path) -> None:
        """*pristine* holds an empty store of this release, copied instead of migrated anew."""
        self.random = Random(seed)
        self.clock = VirtualClock()
        self.folder = folder
        self.crashes = Crashes(self.random)
        self.network = Network(self.random, self.clock)
        self.source = SimulatedSource(self.random, self.clock)
        self.server_ids = CountingIds(first=10**6)
        self.server: Server | None = None
        self.log: list[str] = []
        self._checked = -1
        shutil.copytree(pristine, folder / "server")
        self.nodes = [self._node(f"node-{number}") for number in range(NODES)]
        self.start_server()
        for node in self.nodes:
            self.start_agent(node)

    def start_server(self) -> None:
        """A control plane on the store that is there."""
        store = CrashingStore.open(self.folder / "server", self.clock, self.server_ids)
        assert isinstance(store, CrashingStore)
        store.reach = self.crashes.reach_server
        agents = ToAgents(self.network, self._agent_of, lambda: store.state.epoch)

        def adopting() -> bool:
            return membership.adopting

        services = ServiceTelling(store, agents, self.clock, undecided=adopting, submit=lambda nudge: nudge())
        membership = Membership(store, self.clock, self.server_ids, MembershipSettings(), services=services)

        loops: dict[str, Loop] = {
            "source": SyncLoop(self.source, store, self.clock, adopting=adopting),
            "reconcile": ReconcileLoop(store, self.clock, self.server_ids, adopting=adopting),
            "dispatch": Dispatcher(store, agents, self.clock),
            "services": services,
            "nodes": membership,
            "retention": Retention(store, self.clock, membership.forget),
        }
        process = Process("server", loops, dict.fromkeys(loops, self.clock.now()))

        def wake(committed: Committed) -> None:
            process.wake("reconcile", self.clock.now())
            process.wake("services", self.clock.now())
            if committed.outbox:
                process.wake("dispatch", self.clock.now())

        store.subscribe(wake)
        self.source.on_change = lambda: process.wake("source", self.clock.now())
        self.server = Server(store, membership, process)
        self._note("server starts")

    def kill_server(self) -> None:
        """kill -9: memory is gone; what was committed is there."""
        if self.server is not None:
            self._note("server dies")
            self.server.store.close()
            self.server = None

    def start_agent(self, node: SimulatedNode) -> None:
        """An agent on the machine's data folder."""
        node.journal = journal = open_journal(node.folder)
        node_id = begin_identity(journal, node.ids, node.machine.boot_id)
        relay: list[Callable[[AllocationId], None]] = []
        node.driver = CrashingDriver(node.machine, lambda key: relay[0](key), self.crashes.reach)  # noqa: PLW0108 - made later
        node.agent = agent = NodeAgent(
            AgentDoors(
                journal=CrashingJournal(journal, self.crashes.reach),  # type: ignore[arg-type] # as far as it is used
                control_plane=ToServer(
                    self.network, node.name, journal, lambda: self.server, self.kill_server
                ),
                drivers={"process": node.driver},
                secrets=FixedSecrets(),
                accounts=OneAccount(),
                folders=MemoryFolders(),
                prober=FakeProber(),
                workers=InlineWorkers(),
                check_workers=InlineWorkers(),
                artifacts=FakeArtifacts(),
                download_workers=InlineWorkers(),
                pull_workers=InlineWorkers(),
                machine=FixedMachine(name=node.name, endpoint=f"sim://{node.name}"),
                clock=self.clock,
                boot_id=node.machine.boot_id,
                jitter=self.random.random,
            ),
            NodeFacts(id=node_id, name=node.name, region="global", host_ip="127.0.0.1"),
        )
        relay.append(agent.runner.wake)
        loops: dict[str, Loop] = dict(agent.loops)
        process = Process(node.name, loops, dict.fromkeys(loops, self.clock.now()))
        agent.connect({name: lambda one=name: process.wake(one, self.clock.now()) for name in loops})  # type: ignore[misc]
        node.process = process
        self._note(f"agent {node.name} starts")

    def kill_agent(self, node: SimulatedNode) -> None:
        """kill -9: tasks run on."""
        if node.agent is None or node.driver is None or node.journal is None:
            return
        self._note(f"agent {node.name} dies")
        node.driver.close()
        node.journal.close()
        node.agent = node.process = None

    def reboot(self, node: SimulatedNode) -> None:
        """The machine goes down and comes back: agent and tasks are gone."""
        self.kill_agent(node)
        self._note(f"{node.name} reboots")
        node.machine.reboot()

    def run(self, seconds: float, between: Callable[[], None] = lambda: None) -> None:
        """Lets time pass, calling *between* after each step: who is due next is drawn among those that are."""
        end = self.clock.now() + timedelta(seconds=seconds)
        while True:
            now = self.clock.now()
            due = [
                (process, name)
                for process in self._processes()
                for name, at in process.due.items()
                if at is not None and at <= now
            ]
            if due:
                self._step(*self.random.choice(due))
                self.check()
                between()
                continue
            following = self._next_moment()
            if following is None or following > end:
                self.clock.move(max(end - now, timedelta()))
                return
            self.clock.move(max(following - now, timedelta(milliseconds=1)))
            self.network.deliver_late()
            for node in self.nodes:
                node.machine.settle()

    def check(self) -> None:
        """The invariants, of the store where it changed, and of the machines."""
        if self.server is not None and self._checked != (index := self.server.store.state.index):
            found = violations(self.server.store.state)
            assert not found, self.told(found)
            self._checked = index
        for node in self.nodes:
            assert not node.machine.overlaps, self.told([f"{node.name} runs twice: {node.machine.overlaps}"])

    def told(self, what: object) -> str:
        """What went wrong, under what happened before."""
        return "\n".join([*self.log[-60:], str(what)])

    def running(self) -> dict[AllocationId, str]:
        """What runs on the machines: allocation ids and nodes."""
        return {key[0]: node.name for node in self.nodes for key in node.machine.running()}

    def close(self) -> None:
        """Lets go of all files."""
        self.kill_server()
        for node in self.nodes:
            self.kill_agent(node)

    def _step(self, process: Process, name: str) -> None:
        process.due[name] = None
        try:
            following = process.loops[name].step()
        except (Killed, ServerKilled):
            self._died(process)
            return
        if process.due[name] is None and following is not None:
            # Real time goes on while a step is made; due times are rounded to what a clock can say.
            process.due[name] = max(following, self.clock.now() + timedelta(milliseconds=1))

    def _died(self, process: Process) -> None:
        self._note(f"{process.name} is killed in the middle of a step")
        for node in self.nodes:
            if node.process is process:
                self.kill_agent(node)
        if self.server is not None and self.server.process is process:
            self.kill_server()

    def _processes(self) -> list[Process]:
        found = [] if self.server is None else [self.server.process]
        return found + [node.process for node in self.nodes if node.process is not None]

    def _next_moment(self) -> datetime | None:
        moments: list[datetime | None] = [self.network.next_late()]
        moments += [at for process in self._processes() for at in process.due.values()]
        moments += [node.machine.step() for node in self.nodes]
        return min((moment for moment in moments if moment is not None), default=None)

    def _node(self, name: str) -> SimulatedNode:
        folder = self.folder / name
        folder.mkdir()
        machine = FakeMachine(self.clock, behave=self._behave)
        first = 10**3 * (1 + int(name.rpartition("-")[2]))
        return SimulatedNode(name=name, folder=folder, machine=machine, ids=CountingIds(first=first))

    def _behave(self, launch: TaskLaunch) -> Behaviour:
        if launch.job.startswith("batch"):
            return Behaviour(run_for=timedelta(seconds=self.random.uniform(1, 20)))
        if self.crashes.chance and self.random.random() < 0.1:
            return Behaviour(run_for=timedelta(seconds=self.random.uniform(0, 5)), exit_code=1)
        return Behaviour(ends_after=timedelta(seconds=self.random.uniform(0, 1)))

    def _agent_of(self, name: str) -> NodeAgent | None:
        return next((node.agent for node in self.nodes if node.name == name), None)

    def _note(self, what: str) -> None:
        self.log.append(f"{self.clock.now():%H:%M:%S.%f} {what}")
