"""The roof: puts the rooms together with real clock, store, network and sources, and drives their loops on threads."""

import os
import secrets
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final

from agent.drivers.docker_driver import DockerDriver
from agent.drivers.docker_engine import engine_address
from agent.drivers.docker_spec import Owner
from agent.drivers.process import ProcessDriver
from agent.node_agent import AgentSettings as NodeAgentSettings
from agent.node_agent import DriverFactory, NodeAgent
from api.agent_logs import AgentLogs
from api.app import create_app
from api.doors import ApiDeps
from cli.agent_settings import AgentSettings
from cli.failures import Failed, warn
from cli.policy import NodePolicies, node_policies
from cli.server_settings import GitSettings, ServerSettings
from cli.system import RandomIds, SystemClock
from cli.threads import LoopThreads
from cli.tokens import read_token
from metastore.membership import Membership, MembershipSettings
from metastore.retention import Retention
from metastore.store import SqlStore
from reconciler.dispatcher import Dispatcher, SideBySide
from reconciler.loop import ReconcileLoop
from reconciler.sync import SyncLoop
from trueup.agent_client import AgentClient
from trueup.models.commit import Committed
from trueup.models.source_error import SourceUnavailable
from trueup.serving import HttpServer, TlsFiles
from trueup.sources import git
from trueup.sources.spec_source import TreeSpecSource, directory_source, git_source

STOP_SECONDS: Final = 5.0
WATCH_CAP: Final = 64
_TOKEN_BYTES: Final = 32


class ControlPlane:
    """The server of one data folder: store, spec source, loops and HTTP, from `start` to `stop`."""

    def __init__(self, settings: ServerSettings, *, expected_nodes: int = 0) -> None:
        """Opens the store and the source; StoreError, Failed. *expected_nodes*: a new store waits for so many."""
        clock, ids = SystemClock(), RandomIds()
        self._closing = ExitStack()
        self._threads = LoopThreads(clock)
        self._stopping = threading.Event()
        self.store = SqlStore.open(_store_folder(settings), clock, ids)
        self._closing.callback(self.store.close)
        self.cluster_token = cluster_token(settings.token_file)
        self.membership = Membership(
            self.store,
            clock,
            ids,
            MembershipSettings(node_timeout=settings.node_timeout, expected_nodes=expected_nodes),
        )
        self._source = _source(settings, clock)
        self._closing.callback(self._source.close)
        agents = AgentClient(self.membership.secret_of, epoch=lambda: self.store.state.epoch)
        self._closing.callback(agents.close)
        side_by_side = SideBySide()
        self._closing.callback(side_by_side.close)

        def adopting() -> bool:
            return self.membership.adopting

        add = self._threads.add
        self._wake_source = add("source", SyncLoop(self._source, self.store, clock, adopting=adopting))
        wake_reconcile = add("reconcile", ReconcileLoop(self.store, clock, ids, adopting=adopting))
        wake_dispatch = add("dispatch", Dispatcher(self.store, agents, clock, run_all=side_by_side))
        add("nodes", self.membership)
        add("retention", Retention(self.store, clock, self.membership.forget))
        self.store.subscribe(_waker(wake_reconcile, wake_dispatch))
        self._http = HttpServer(
            create_app(self._deps(settings, clock)),
            settings.bind,
            stopping=self._stopping,
            on_stop=self.store.wake_all,
            watch_cap=WATCH_CAP,
            tls=_tls(settings.tls_cert, settings.tls_key),
        )

    @property
    def url(self) -> str:
        """Where it answers; the real port once started."""
        return self._http.url

    def start(self) -> None:
        """Listens, watches and decides from now on. CannotServe if the address cannot be bound."""
        self._http.start()
        self._source.start_watching(self._wake_source)
        self._threads.start()

    def stop(self) -> list[str]:
        """Ends it; nothing that runs is touched. Returns the loops that did not end in time."""
        self._http.stop()
        stuck = self._threads.stop(STOP_SECONDS)
        self._closing.close()
        return stuck

    def _deps(self, settings: ServerSettings, clock: SystemClock) -> ApiDeps:
        read_token_file = settings.read_token_file
        return ApiDeps(
            store=self.store,
            membership=self.membership,
            logs=AgentLogs(self.membership.secret_of),
            clock=clock,
            cluster_token=lambda: self.cluster_token,
            read_token=lambda: None if read_token_file is None else read_token(read_token_file),
            allowed_hosts=settings.allowed_hosts,
            source_status=lambda: self._source.status,
            watch_cap=WATCH_CAP,
            stopping=self._stopping,
        )


class Agent:
    """A node agent and the threads of its loops, from `start` to `stop`."""

    def __init__(
        self, settings: AgentSettings, *, cluster_token: Callable[[], str | None], is_up: bool
    ) -> None:
        """Opens the data folder and listens; FolderInUse, JournalUnusable, CannotServe, Failed."""
        self._policies = node_policies(
            settings.policy, enable_process=settings.enable_process, allow_root=is_up
        )
        self._threads = LoopThreads(SystemClock())
        self.node = build_node_agent(_node_settings(settings, self._policies, cluster_token), self._policies)
        self.node.connect({name: self._threads.add(name, loop) for name, loop in self.node.loops})

    @property
    def url(self) -> str:
        """Where it answers; empty if nowhere."""
        return "" if self.node.endpoint is None else self.node.endpoint.url

    @property
    def refuses_processes(self) -> bool:
        """Whether no job may run a program of this machine."""
        return not self._policies.process.enabled

    def start(self) -> None:
        """Takes up what runs, joins, and does as it is told from now on."""
        self._threads.start()

    def stop(self, *, stop_tasks_within: float | None = None) -> list[str]:
        """Ends the agent and returns what did not end in time.

        Tasks run on, unless *stop_tasks_within* says in how many seconds they are to end.
        """
        left = self._threads.stop(STOP_SECONDS)
        if stop_tasks_within is not None:
            left += self.node.stop_all(stop_tasks_within)
        self.node.close()
        return left


def build_node_agent(settings: NodeAgentSettings, policies: NodePolicies) -> NodeAgent:
    """The agent of a data folder, its endpoints served, no loop stepped yet."""
    address = engine_address(os.environ)
    drivers: dict[str, DriverFactory] = {
        "process": lambda data, _node_id, wake: ProcessDriver(data, wake, policy=policies.process),
        "docker": lambda _data, node_id, wake: DockerDriver(
            address, wake, owner=Owner(cluster="trueup", node=node_id), policy=policies.docker
        ),
    }
    return NodeAgent.build(settings, drivers, SystemClock(), RandomIds())


def _node_settings(
    settings: AgentSettings, policies: NodePolicies, cluster_token: Callable[[], str | None]
) -> NodeAgentSettings:
    return NodeAgentSettings(
        data=settings.data,
        servers=settings.servers,
        name=settings.name,
        region=settings.region,
        labels=settings.labels,
        cpu_cores=None if settings.cpu_millicores is None else settings.cpu_millicores / 1000,
        memory_bytes=settings.memory_bytes,
        bind=settings.bind,
        advertise=settings.advertise,
        cluster_token=cluster_token,
        secrets=settings.secrets,
        volumes=policies.volumes,
        tls=_tls(settings.tls_cert, settings.tls_key),
        tls_ca=settings.tls_ca,
    )


def cluster_token(file: Path) -> str:
    """The token in *file*, which is made if absent: 0600, and whole or not at all."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = file.with_name(f"{file.name}.{os.getpid()}.new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(f"{secrets.token_urlsafe(_TOKEN_BYTES)}\n")
            opened.flush()
            os.fsync(descriptor)
        try:
            # Of two that start at once, the second takes the first one's.
            os.link(fresh, file)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return read_token(file)


def _store_folder(settings: ServerSettings) -> Path:
    """The folder of the store's file; Failed for a store of another kind."""
    scheme, _, place = settings.store.partition("://")
    path = Path(place.removeprefix("/"))
    if scheme != "sqlite" or path.name != "trueup.db":
        raise Failed(
            f"--store {settings.store}: this release keeps its store in a file trueup.db; "
            "write sqlite:////FOLDER/trueup.db, or leave it out for trueup.db in --data"
        )
    return path.absolute().parent


def _source(settings: ServerSettings, clock: SystemClock) -> TreeSpecSource:
    if settings.git is None:
        return directory_source(
            settings.specs, clock, removal_settle=timedelta(seconds=settings.removal_settle.total_seconds())
        )
    try:
        return git_source(_git_settings(settings.git), settings.data, clock, environment=os.environ)
    except (ValueError, SourceUnavailable) as error:
        raise Failed(f"--git: {error}") from error


def _git_settings(settings: GitSettings) -> git.GitSettings:
    return git.GitSettings(
        url=settings.urls[0],
        ref=settings.ref,
        paths=settings.paths,
        token_file=settings.token_file,
        ssh_key=settings.ssh_key,
        known_hosts=settings.known_hosts,
        ca_file=settings.ca,
        poll=settings.poll,
    )


def _tls(certificate: Path | None, key: Path | None) -> TlsFiles | None:
    return None if certificate is None or key is None else TlsFiles(certificate=certificate, key=key)


def _waker(
    wake_reconcile: Callable[[], None], wake_dispatch: Callable[[], None]
) -> Callable[[Committed], None]:
    def wake(committed: Committed) -> None:
        if committed.outbox:
            wake_dispatch()
        if committed.jobs or committed.nodes or committed.room_freed:
            wake_reconcile()

    return wake


def warn_of_stuck(names: list[str]) -> None:
    """Says on stderr what did not end in time."""
    if names:
        warn(f"did not end in time: {', '.join(names)}")
