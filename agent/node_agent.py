"""The agent put together: journal, drivers, runner, heartbeat, endpoints.

`NodeAgent.build` makes the real one; the simulator and tests make one by hand from doors of their own and step its
loops themselves. No thread is begun here but those of workers and of the HTTP server. Its end, graceful or not, ends
no task: only `stop_all` does.
"""

import contextlib
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from agent import age_key
from agent.accounts import SystemAccounts
from agent.age_key import open_age_key
from agent.artifacts.cache import ArtifactCache
from agent.artifacts.placing import PlacedArtifacts
from agent.artifacts.sources import ArtifactSources
from agent.calls import Calls
from agent.client import HttpControlPlane
from agent.condition import ConditionedMachine
from agent.contact import Standing
from agent.disk_room import DiskRoom
from agent.doors import (
    Accounts,
    Artifacts,
    ControlPlane,
    Driver,
    DriverWorkers,
    Folders,
    Prober,
    Secrets,
    Wake,
    Workers,
)
from agent.drivers.identity import folder_mark, machine_mark, read_boot_id, read_machine_id
from agent.endpoints import FOLLOWERS, READERS, AgentApp, EndpointDeps
from agent.environment import NodeFacts, VolumePolicy
from agent.fingerprint import Identification, Reserve, SystemMachine, address_of_machine
from agent.folder_room import Bounds
from agent.folders import DiskFolders
from agent.heartbeat import Heartbeat, Machine, Place
from agent.journal import Journal, open_journal
from agent.log_courier import LogCourier
from agent.logs import LogReader
from agent.probes import SocketProber
from agent.reports import Reports
from agent.runner import Runner
from agent.secret_policy import SecretPolicy
from agent.secrets_folder import SecretsFolder
from agent.task_output import TaskOutput
from agent.usage import MachineMeter, UseSampler
from agent.value_digests import ValueDigests, open_value_digests, throwaway_digests
from agent.workers import DriverPools, ThreadWorkers
from trueup.models.artifacts import ArtifactPolicy
from trueup.models.clock import Clock
from trueup.models.ids import AllocationId, IdSource, NodeId
from trueup.models.units import parse_cores
from trueup.serving import HttpServer, TlsFiles

DEFAULT_BIND: Final = ("127.0.0.1", 7431)
CALL_THREADS: Final = 32
"""Calls to one driver side by side: a slow start holds up no other task."""
PULL_THREADS: Final = 8
"""Image pulls side by side, whoever waits for them."""
DOWNLOAD_THREADS: Final = 16
"""Starts that wait side by side for what they fetch: a slow server holds up those alone that fetch as well."""
CHECK_THREADS: Final = 16
_STOP_LOOK_SECONDS: Final = 0.1
_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


class Loop(Protocol):
    """A level-triggered loop, stepped by a thread in production and by the simulator on a virtual clock."""

    def step(self) -> datetime | None: ...


DriverFactory = Callable[[Path, NodeId, Wake], Driver]
"""Makes a driver for a data folder and its node; it calls the wake it is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What the operator says. *cpu_cores* and *memory_bytes* None: what the machine has, without the *reserve*.

    *advertise* is the host others reach this node by; empty: the one the endpoints are bound to, which is also
    HOST_IP. *cluster_token* is asked for when it is needed.
    """

    data: Path
    servers: Sequence[str]
    name: str
    region: str = "global"
    labels: Mapping[str, str] = field(default_factory=dict)
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    reserve: Reserve = field(default_factory=Reserve)
    bounds: Bounds = field(default_factory=Bounds)
    bind: tuple[str, int] | None = DEFAULT_BIND
    advertise: str = ""
    cluster_token: Callable[[], str | None] = lambda: None
    machine_id: Callable[[], str] = read_machine_id
    secrets: Path | None = None
    age_key_file: Path | None = None
    secret_policy: SecretPolicy = field(default_factory=SecretPolicy)
    volumes: Mapping[str, VolumePolicy] = field(default_factory=dict)
    artifacts: ArtifactPolicy = field(default_factory=ArtifactPolicy)
    tls: TlsFiles | None = None
    tls_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDoors:
    """All an agent does to the world, for one that is made by hand. *jitter* draws from 0 to 1.

    *disk* None: it is never short of room. *bounds* is how much of what has ended stays there.
    """

    journal: Journal
    control_plane: ControlPlane
    drivers: Mapping[str, Driver]
    secrets: Secrets
    accounts: Accounts
    folders: Folders
    prober: Prober
    workers: DriverWorkers
    check_workers: DriverWorkers
    artifacts: Artifacts
    download_workers: Workers
    pull_workers: Workers
    machine: Machine
    clock: Clock
    boot_id: str
    machine_id: str = ""
    folder: str = ""
    secret_policy: SecretPolicy = field(default_factory=SecretPolicy)
    digests: ValueDigests = field(default_factory=throwaway_digests)
    disk: DiskRoom | None = None
    bounds: Bounds = field(default_factory=Bounds)
    jitter: Callable[[], float]


class NodeAgent:
    """One agent. `loops` are stepped by the caller, each by one thread; `connect` says how to wake them."""

    def __init__(
        self, doors: AgentDoors, node: NodeFacts, *, on_close: Sequence[Callable[[], None]] = ()
    ) -> None:
        """Puts an agent together from *doors*; nothing is started or asked yet.

        Drivers call `wake` of the `runner`; who makes them before it hands it on (see `build`).
        """
        self._journal = doors.journal
        self._clock = doors.clock
        self._on_close = on_close
        self.standing = Standing(doors.journal, doors.clock)
        self.reports = Reports()
        self.runner = Runner(
            journal=doors.journal,
            calls=Calls(
                drivers=doors.drivers,
                secrets=doors.secrets,
                accounts=doors.accounts,
                folders=doors.folders,
                artifacts=doors.artifacts,
                prober=doors.prober,
                node=node,
                secret_policy=doors.secret_policy,
                digests=doors.digests,
            ),
            workers=doors.workers,
            download_workers=doors.download_workers,
            pull_workers=doors.pull_workers,
            check_workers=doors.check_workers,
            standing=self.standing,
            reports=self.reports,
            boot_id=doors.boot_id,
            jitter=doors.jitter,
            disk=doors.disk,
            bounds=doors.bounds,
        )
        troubles = [lambda: doors.journal.trouble]
        if doors.disk is not None:
            troubles.append(doors.disk.trouble)
            doors.disk.on_short = self.runner.short_of_room
        self.heartbeat = Heartbeat(
            control_plane=doors.control_plane,
            journal=doors.journal,
            standing=self.standing,
            reports=self.reports,
            orders=self.runner,
            addresses=self.runner,
            found=self.runner,
            machine=ConditionedMachine(doors.machine, troubles),
            place=Place(boot_id=doors.boot_id, machine_id=doors.machine_id, folder=doors.folder),
            jitter=doors.jitter,
        )
        self.endpoint: HttpServer | None = None
        self.courier: LogCourier | None = None
        self._drivers = doors.drivers

    @staticmethod
    def build(
        settings: AgentSettings,
        drivers: Mapping[str, DriverFactory],
        clock: Clock,
        ids: IdSource,
    ) -> "NodeAgent":
        """The real agent of a data folder, with its endpoints served from here on.

        FolderInUse where another agent runs in that folder, JournalUnusable, AgeKeyUnusable, CannotServe.
        """
        return _build(settings, drivers, clock, ids)

    @property
    def loops(self) -> list[tuple[str, Loop]]:
        """What has to be stepped: by name, each its own."""
        return [("agent-runner", self.runner), ("agent-heartbeat", self.heartbeat)]

    def connect(self, wakes: Mapping[str, Callable[[], None]]) -> None:
        """Says how the loops are woken, by their names."""
        self.runner.on_wake = wakes["agent-runner"]
        self.heartbeat.on_wake = wakes["agent-heartbeat"]

    @property
    def node_id(self) -> NodeId:
        """The id of this node, which its data folder keeps."""
        return self._journal.identity.node_id

    @property
    def secret(self) -> str:
        """The node's own secret; empty until it has joined."""
        return self._journal.identity.node_secret

    def stop_all(self, timeout_seconds: float) -> list[str]:
        """Ends all tasks of this node by their `kill_signal` and `kill_timeout`; the next agent starts them again.

        To be called when no thread steps the loops any more. Returns the tasks that have not ended in time.
        """
        woken = threading.Event()
        self.runner.on_wake = woken.set
        self.runner.halt()
        deadline = self._clock.monotonic() + timeout_seconds
        while True:
            woken.clear()
            self.runner.step()
            if self.runner.is_quiet or self._clock.monotonic() >= deadline:
                return list(self.runner.running_tasks)
            woken.wait(_STOP_LOOK_SECONDS)

    def close(self) -> None:
        """Closes endpoints, drivers and journal, and lets go of the folder. Tasks run on."""
        if self.endpoint is not None:
            self.endpoint.stop()
        if self.courier is not None:
            self.courier.close()
        for hook in self._on_close:
            hook()
        for driver in self._drivers.values():
            driver.close()
        self._journal.close()


def begin_identity(journal: Journal, ids: IdSource, boot_id: str) -> NodeId:
    """Counts this start of the agent, and gives the node its id at the first one."""
    node_id = journal.identity.node_id or NodeId(ids.new_id())
    journal.change_identity(node_id=node_id, boot_id=boot_id)
    journal.count_start()
    return node_id


def _build(
    settings: AgentSettings, factories: Mapping[str, DriverFactory], clock: Clock, ids: IdSource
) -> NodeAgent:
    with contextlib.ExitStack() as opened:
        journal = open_journal(settings.data)
        opened.callback(journal.close)
        boot_id = read_boot_id()
        node_id = begin_identity(journal, ids, boot_id)
        relay = _WakeRelay()
        drivers: dict[str, Driver] = {}
        for name, factory in factories.items():
            drivers[name] = factory(settings.data, node_id, relay.wake)
            opened.callback(drivers[name].close)
        workers = DriverPools("agent-call", CALL_THREADS)
        check_workers = DriverPools("agent-check", CHECK_THREADS)
        download_workers = ThreadWorkers("agent-download", DOWNLOAD_THREADS)
        pull_workers = ThreadWorkers("agent-pull", PULL_THREADS)
        sources = ArtifactSources(settings.artifacts)
        artifacts = PlacedArtifacts(sources, ArtifactCache(settings.data / "artifacts", sources))
        endpoint = _Endpoint(settings)
        control_plane = HttpControlPlane(
            settings.servers,
            secret=lambda: journal.identity.node_secret,
            cluster_token=settings.cluster_token,
            tls_ca=settings.tls_ca,
        )
        hooks = (
            workers.close,
            check_workers.close,
            download_workers.close,
            pull_workers.close,
            artifacts.close,
            control_plane.close,
        )
        for hook in hooks:
            opened.callback(hook)
        age = open_age_key(
            settings.age_key_file or settings.data / age_key.FILE, is_wanted=settings.age_key_file is not None
        )
        secrets = SecretsFolder(settings.secrets, age)
        folders = DiskFolders(settings.data / "allocations")
        meter = MachineMeter(settings.data)
        sampler = UseSampler(meter, workers.of(""), clock)
        machine = SystemMachine(
            identification=_identification(settings),
            drivers=drivers,
            secrets=secrets,
            secret_policy=settings.secret_policy,
            age_recipient="" if age is None else age.recipient,
            workers=workers.of(""),
            clock=clock,
            data=settings.data,
            artifacts=settings.artifacts,
            endpoint=endpoint.url,
            use=sampler.latest,
        )
        doors = AgentDoors(
            journal=journal,
            control_plane=control_plane,
            drivers=drivers,
            secrets=secrets,
            secret_policy=settings.secret_policy,
            digests=open_value_digests(settings.data),
            accounts=SystemAccounts(),
            folders=folders,
            prober=SocketProber(),
            workers=workers,
            check_workers=check_workers,
            artifacts=artifacts,
            download_workers=download_workers,
            pull_workers=pull_workers,
            machine=machine,
            clock=clock,
            boot_id=boot_id,
            machine_id=machine_mark(settings.machine_id()),
            folder=folder_mark(settings.data),
            disk=DiskRoom(sampler.latest, meter.disk, settings.reserve.disk_bytes),
            bounds=settings.bounds,
            jitter=random.Random().random,  # noqa: S311 - it spreads retries, and hides nothing
        )
        node = NodeFacts(
            id=node_id,
            name=settings.name,
            region=settings.region,
            host_ip=endpoint.host,
            volumes=settings.volumes,
        )
        agent = NodeAgent(doors, node, on_close=hooks)
        relay.target = agent.runner.wake
        logs = LogReader(folders, clock)
        agent.endpoint = endpoint.serve(agent, journal, logs)
        agent.heartbeat.courier = agent.courier = LogCourier(
            door=control_plane,
            output=lambda stopping: TaskOutput(
                agent.runner, logs, stopping=stopping.is_set, wait=stopping.wait
            ),
            node_id=node_id,
            nudge=agent.heartbeat.nudge,
            clock=clock,
        )
        # From here on the agent closes it all.
        opened.pop_all()
        return agent


def _identification(settings: AgentSettings) -> Identification:
    return Identification(
        name=settings.name,
        region=settings.region,
        labels=settings.labels,
        volumes=tuple(sorted(settings.volumes)),
        cpu_millicores=None if settings.cpu_cores is None else parse_cores(settings.cpu_cores),
        memory_bytes=settings.memory_bytes,
        reserve=settings.reserve,
    )


class _WakeRelay:
    """Hands drivers' wakes on to the runner, which is made after them; what comes before is seen at its first step."""

    def __init__(self) -> None:
        self.target: Wake = _ignore

    def wake(self, allocation_id: AllocationId) -> None:
        self.target(allocation_id)


def _ignore(_allocation_id: AllocationId) -> None:
    return None


class _Endpoint:
    """The agent's HTTP API and how others reach it; none where *settings* bind nothing."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._server: HttpServer | None = None

    @property
    def host(self) -> str:
        """The host this node is reached by, which is what its tasks' ports are bound to."""
        bound = "127.0.0.1" if self._settings.bind is None else self._settings.bind[0]
        return self._settings.advertise or (address_of_machine() if bound in _WILDCARDS else bound)

    def url(self) -> str:
        if self._server is None:
            return ""
        scheme = "http" if self._settings.tls is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self._server.address[1]}"

    def serve(self, agent: NodeAgent, journal: Journal, logs: LogReader) -> HttpServer | None:
        if self._settings.bind is None:
            return None
        stopping = threading.Event()
        app = AgentApp(
            EndpointDeps(
                secret=lambda: journal.identity.node_secret,
                standing=agent.standing,
                orders=agent.runner,
                allocations=agent.runner,
                logs=logs,
                trouble=lambda: agent.heartbeat.trouble,
                nudge=agent.heartbeat.nudge,
                stopping=stopping,
            )
        )
        server = HttpServer(
            app, self._settings.bind, stopping=stopping, watch_cap=FOLLOWERS + READERS, tls=self._settings.tls
        )
        server.start()
        self._server = server
        return server
