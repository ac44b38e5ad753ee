"""What the API is given: store, membership, logs, clock, tokens. The real ones are made by the roof."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from metastore.errors import HistoryCut as HistoryCut
from trueup import __version__
from trueup.models.clock import Clock
from trueup.models.evaluation import Evaluation, Event
from trueup.models.ids import AllocationId, NodeId
from trueup.models.log_order import ListenResponse, LogTaken
from trueup.models.node import Node, NodeUse
from trueup.models.revision import Revision, SourceStatus
from trueup.models.state import ClusterState
from trueup.models.wire import HeartbeatRequest, HeartbeatResponse, RegisterRequest, RegisterResponse

T_co = TypeVar("T_co", covariant=True)


class Entry(Protocol[T_co]):
    """One entry of a history: its number in order of arrival, the index of the change it came with, and itself."""

    @property
    def number(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def value(self) -> T_co: ...


class StateStore(Protocol):
    """The store, read. Entries of a history have a number in order of arrival, and the index they came with."""

    @property
    def state(self) -> ClusterState:
        """The newest committed state; it moves on while it is looked at."""
        ...

    def snapshot(self) -> ClusterState:
        """The newest committed state as of one index, unchanging."""
        ...

    def wait_newer(self, index: int, timeout_seconds: float) -> object:
        """Blocks until the index is greater than *index*, the time is over, or all were woken."""
        ...

    def not_writable(self) -> str:
        """Why nothing can be written now; empty while writes go through."""
        ...

    def events(
        self, *, after: int | None, limit: int, newest_first: bool = False, **filters: str
    ) -> Sequence[Entry[Event]]:
        """Entries behind number *after*, in order of arrival or the reverse, whose fields equal *filters*.

        HistoryCut if entries right behind *after* are gone.
        """
        ...

    def evaluations(
        self, *, after: int | None, limit: int, newest_first: bool = False, **filters: str
    ) -> Sequence[Entry[Evaluation]]:
        """As `events`."""
        ...

    def revisions(
        self, *, after: int | None, limit: int, newest_first: bool = False, **filters: str
    ) -> Sequence[Entry[Revision]]:
        """As `events`."""
        ...

    def events_newer(self, index: int) -> Sequence[Entry[Event]]:
        """All events of changes after *index*. HistoryCut if some of them are gone."""
        ...


class Membership(Protocol):
    """Who belongs to the cluster, and what agents say."""

    def register(
        self, request: RegisterRequest, *, joined: bool, secret: str | None, peer: str
    ) -> RegisterResponse:
        """Takes a node in. *joined*: it showed the cluster token; else *secret* must be its own.

        UnknownNode where neither holds, NameTaken where a living node has that id or name.
        """
        ...

    def heartbeat(self, request: HeartbeatRequest, *, secret: str) -> HeartbeatResponse:
        """Takes one beat of the node that *secret* belongs to. UnknownNode if it is nobody's."""
        ...


class LogSource(Protocol):
    """Where the output of tasks is read: on the node that ran them."""

    def logs(
        self, node: Node, allocation_id: AllocationId, params: Mapping[str, str]
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Opens the output of an allocation; the iterator yields it as it comes, b"" when there is nothing new.

        *params* are those of the contract's `logs` request, checked. LogsUnavailable if the node cannot be reached
        or has no such output.
        """
        ...


class BroughtLogs(Protocol):
    """Output that agents bring by themselves, since nobody reaches them (`api.log_relay.LogRelay`)."""

    def answer(
        self, request: HeartbeatRequest, answer: HeartbeatResponse, node: Node | None
    ) -> HeartbeatResponse:
        """*answer* to a beat, with what the node's agent is to bring."""
        ...

    def listen(self, node: Node, secret: str, *, peer_gone: Callable[[], bool]) -> ListenResponse:
        """Holds an agent until there is something to say to it. NoSuchOrder if *secret* is not the node's."""
        ...

    def take(self, order_id: str, secret: str, piece: bytes, *, at: int, is_last: bool) -> LogTaken:
        """Takes a piece in, which begins at byte *at*. NoSuchOrder; ValueError for a gap. A repeat does no harm."""
        ...

    def refuse(self, order_id: str, secret: str, refusal: "LogsUnavailable") -> None:
        """Takes in that there is no (more) output, and why. NoSuchOrder. A repeat does no harm."""
        ...


class NoSuchOrder(Exception):
    """Nobody waits for that output (any more), or it is not this agent's to bring."""


class LogsUnavailable(Exception):
    """A node gave no output; *status* is the HTTP status that says why (404, 502, 503, 504)."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiDeps:
    """All the app needs. Tokens are asked for on every request, so that a changed file counts at once.

    *read_token* None: readers need none, and then Host is checked against *allowed_hosts* (IP addresses and
    `localhost` always pass). *source_status*: how the spec source does right now; None: as the store has it, which
    misses successes since the last change. *notify_secret* None: `/notify` is off; else *nudge* makes the source look.
    *stopping* is the server's: what is parked waits on it. *node_use*: what a node's newest beat said is in use there.
    """

    store: StateStore
    membership: Membership
    logs: LogSource
    clock: Clock
    cluster_token: Callable[[], str]
    read_token: Callable[[], str | None] = lambda: None
    allowed_hosts: Sequence[str] = ()
    source_status: Callable[[], SourceStatus] | None = None
    watch_cap: int = 64
    stopping: threading.Event = field(default_factory=threading.Event)
    node_use: Callable[[NodeId], NodeUse | None] = lambda _node_id: None
    version: str = __version__
    notify_secret: Callable[[], str | None] = lambda: None
    nudge: Callable[[], None] = lambda: None
    brought_logs: BroughtLogs | None = None
