"""The control plane put together: real clock, store, network and sources, its loops driven on threads."""

import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final

from agent.doors import SecretMissing
from agent.secrets_folder import SecretsFolder
from api.agent_logs import AgentLogs
from api.app import create_app
from api.doors import ApiDeps
from api.log_relay import LISTEN_CAP, LogRelay
from api.reach import Reach
from cli.failures import Failed
from cli.server_settings import GitSettings, ServerSettings
from cli.system import RandomIds, SystemClock
from cli.threads import STOP_SECONDS, LoopThreads
from cli.tokens import read_token
from metastore.membership import Membership, MembershipSettings
from metastore.retention import Retention
from metastore.service_telling import ServiceTelling
from metastore.store import SqlStore
from reconciler.dispatcher import NODES_AT_ONCE, Dispatcher, SideBySide
from reconciler.loop import ReconcileLoop
from reconciler.sync import SyncLoop
from trueup.agent_client import AgentClient
from trueup.models.commit import Committed
from trueup.models.node import Node
from trueup.models.source_error import SourceUnavailable
from trueup.notifications.loop import NoticeLoop
from trueup.serving import HttpServer, tls_files
from trueup.sources import git
from trueup.sources.spec_source import TreeSpecSource, directory_source, git_remotes_source

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
        self._reach = Reach(clock)
        self._log_relay = LogRelay(self.store.node_secret, self._reach, clock)
        agents = AgentClient(
            self.store.node_secret,
            epoch=lambda: self.store.state.epoch,
            on_try=self._tried,
        )
        self._closing.callback(agents.close)
        nudging = ThreadPoolExecutor(max_workers=NODES_AT_ONCE, thread_name_prefix="nudge")
        self._closing.callback(lambda: nudging.shutdown(wait=False, cancel_futures=True))

        def adopting() -> bool:
            return self.membership.adopting

        def undecided() -> bool:
            return adopting() or (self.membership.met_strangers and not sync.has_read)

        services = ServiceTelling(self.store, agents, clock, undecided=undecided, submit=nudging.submit)
        self.membership = Membership(
            self.store,
            clock,
            ids,
            MembershipSettings(node_timeout=settings.node_timeout, expected_nodes=expected_nodes),
            services=services,
        )
        self._source = _source(settings, clock)
        self._closing.callback(self._source.close)
        side_by_side = SideBySide()
        self._closing.callback(side_by_side.close)

        sync = SyncLoop(self._source, self.store, clock, adopting=adopting, atomic=settings.atomic)
        add = self._threads.add
        self._wake_source = add("source", sync)
        wake_reconcile = add("reconcile", ReconcileLoop(self.store, clock, ids, adopting=undecided))
        wake_dispatch = add("dispatch", Dispatcher(self.store, agents, clock, run_all=side_by_side))
        wake_services = add("services", services)
        add("nodes", self.membership)
        add("retention", Retention(self.store, clock, self.membership.forget))
        notices = NoticeLoop(
            self.store, clock, secret=_secrets(settings), allowed_hosts=settings.notification_hosts
        )
        notices.wake = add("notifications", notices)
        self.store.subscribe(_waker(wake_reconcile, wake_dispatch, wake_services))
        self._http = HttpServer(
            create_app(self._deps(settings, clock)),
            settings.bind,
            stopping=self._stopping,
            on_stop=self._wake_all,
            watch_cap=WATCH_CAP + LISTEN_CAP,
            tls=tls_files(settings.tls_cert, settings.tls_key),
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

    def _nudge(self) -> None:
        self._source.look_now()
        self._wake_source()

    def _tried(self, node: Node, reached: bool) -> None:
        self._reach.note(node, reached=reached)
        if not reached:
            self._log_relay.nudge(node)

    def _wake_all(self) -> None:
        self.store.wake_all()
        self._log_relay.close()

    def _deps(self, settings: ServerSettings, clock: SystemClock) -> ApiDeps:
        read_token_file, notify_file = settings.read_token_file, settings.notify_secret_file
        if notify_file is not None:
            read_token(notify_file)  # what is wrong with it is said at the start
        return ApiDeps(
            store=self.store,
            membership=self.membership,
            logs=AgentLogs(self.membership.secret_of, reach=self._reach, relay=self._log_relay),
            brought_logs=self._log_relay,
            clock=clock,
            cluster_token=lambda: self.cluster_token,
            read_token=lambda: None if read_token_file is None else read_token(read_token_file),
            allowed_hosts=settings.allowed_hosts,
            source_status=lambda: self._source.status,
            notify_secret=lambda: None if notify_file is None else read_token(notify_file),
            nudge=self._nudge,
            watch_cap=WATCH_CAP,
            stopping=self._stopping,
            node_use=self.membership.used,
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


def _secrets(settings: ServerSettings) -> Callable[[str], str]:
    """Values of secrets that webhooks name; LookupError says what is wrong with one."""
    folder = SecretsFolder(settings.secrets)

    def value(name: str) -> str:
        if settings.secrets is None:
            raise LookupError(
                f"secret {name} is missing: start the server with --secrets DIR, which holds it"
            )
        try:
            return folder.value(name)
        except SecretMissing as error:
            raise LookupError(str(error)) from None

    return value


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
    remotes = [_git_settings(settings.git, url) for url in settings.git.urls]
    try:
        return git_remotes_source(remotes, settings.data, clock, environment=os.environ)
    except (ValueError, SourceUnavailable) as error:
        raise Failed(f"--git: {error}") from error


def _git_settings(settings: GitSettings, url: str) -> git.GitSettings:
    return git.GitSettings(
        url=url,
        ref=settings.ref,
        paths=settings.paths,
        token_file=settings.token_file,
        ssh_key=settings.ssh_key,
        known_hosts=settings.known_hosts,
        ca_file=settings.ca,
        allowed_signers=settings.allowed_signers,
        poll=settings.poll,
    )


def _waker(
    wake_reconcile: Callable[[], None], wake_dispatch: Callable[[], None], wake_services: Callable[[], None]
) -> Callable[[Committed], None]:
    def wake(committed: Committed) -> None:
        if committed.outbox:
            wake_dispatch()
        if committed.allocations or committed.nodes:
            wake_services()
        if committed.jobs or committed.nodes or committed.room_freed:
            wake_reconcile()

    return wake
