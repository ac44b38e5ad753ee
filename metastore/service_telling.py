"""Tells nodes the addresses of the services their tasks name: with the answers of heartbeats, and promptly.

What is told hangs on what a beat says the agent keeps, so an answer that was lost is told again. A change nudges the
agents it concerns to beat at once; those that cannot be nudged beat more often. A beat of a node without news costs
the comparison of two texts, and nothing is told before it is known which jobs are wanted: an unknown address is not
an absent one.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from metastore.service_book import ServiceBook, Table
from metastore.store import SqlStore
from trueup.models.agent_error import AgentUnreachable
from trueup.models.clock import Clock
from trueup.models.commit import Committed
from trueup.models.ids import AllocationId, NodeId
from trueup.models.node import Node
from trueup.models.service import ServiceNews
from trueup.models.state import ClusterState

NUDGE_AGAIN: Final = timedelta(seconds=10)
"""How long an agent that did not take a nudge is left alone: it beats faster meanwhile."""
UNTOLD_LOOK: Final = timedelta(milliseconds=200)
UNREACHABLE_BEAT_SECONDS: Final = 1.0

Submit = Callable[[Callable[[], None]], object]
"""Has a piece of work done soon, elsewhere: an agent that hangs holds up no other. It raises nothing."""


class Nudges(Protocol):
    """The network towards agents."""

    def nudge(self, node: Node) -> None:
        """Has the node beat at once. AgentUnreachable; a repeat does no harm."""
        ...


@dataclass(slots=True)
class _Noted:
    """What changed since it was last looked at, by name."""

    allocations: set[AllocationId] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)
    nodes: set[NodeId] = field(default_factory=set)


class ServiceTelling:
    """As a `Loop`: `step` nudges. Thread-safe."""

    def __init__(
        self,
        store: SqlStore,
        nudges: Nudges,
        clock: Clock,
        *,
        undecided: Callable[[], bool] = lambda: False,
        submit: Submit,
    ) -> None:
        """Reads all allocations once. While *undecided* nothing is told: what is wanted is not known yet."""
        self._store, self._nudges, self._clock = store, nudges, clock
        self._undecided, self._submit = undecided, submit
        self._log = structlog.stdlib.get_logger("trueup.services")
        self._lock = threading.Lock()
        self._noting = threading.Lock()
        self._stale: dict[NodeId, None] = {}
        self._told: dict[NodeId, Table] = {}
        self._silent_until: dict[NodeId, datetime] = {}
        self._under_way: set[NodeId] = set()
        self._book = ServiceBook(on_change=self._mark)
        self._noted = _Noted(allocations=set(store.state.allocations))
        store.subscribe(self._note)

    def news(self, node_id: NodeId, known: str) -> ServiceNews | None:
        """What the node is to be told, whose agent keeps the version *known*; None: nothing."""
        if self._undecided():
            return None
        with self._lock:
            self._take_in()
            self._stale.pop(node_id, None)
            table = self._book.table(node_id)
            if table is None:
                self._told.pop(node_id, None)
                return ServiceNews(version="") if known else None
            if table.version == known:
                return None
            told = self._told.get(node_id)
            self._told[node_id] = table
            if told is None or told.version != known or told.digests.keys() - table.digests.keys():
                lists = {name: self._book.list_of(name) for name in table.digests}
                return ServiceNews(version=table.version, lists=lists)
            return self._changes(told, table)

    def _changes(self, told: Table, table: Table) -> ServiceNews:
        lists, changes = {}, {}
        for name, digest in table.digests.items():
            before = told.digests.get(name)
            if before == digest:
                continue
            changed = None if before is None else self._book.changes_since(name, before)
            if changed is None:
                lists[name] = self._book.list_of(name)
            else:
                changes[name] = changed
        return ServiceNews(version=table.version, since=told.version, lists=lists, changes=changes)

    def beat_seconds(self, node_id: NodeId, usual: float) -> float:
        """How long the node may wait with its next beat: less where it reads services and takes no nudge."""
        with self._lock:
            if self._book.table(node_id) is None:
                return usual
            node = self._store.state.nodes.get(node_id)
            nudged = node is not None and node.endpoint and node_id not in self._silent_until
            return usual if nudged else min(usual, UNREACHABLE_BEAT_SECONDS)

    def step(self) -> datetime | None:
        """Nudges the nodes that have news waiting."""
        if self._undecided():
            return self._clock.now() + UNTOLD_LOOK
        now = self._clock.now()
        with self._lock:
            self._take_in()
            self._silent_until = {node: until for node, until in self._silent_until.items() if until > now}
            # A nudge under way may have come before the change: that node has another one afterwards.
            waiting = {node_id: None for node_id in self._stale if node_id in self._under_way}
            nodes = self._nudged([node_id for node_id in self._stale if node_id not in waiting])
            self._stale = waiting
            self._under_way |= {node.id for node in nodes}
        for node in nodes:
            self._submit(self._nudge_of(node))
        return now + UNTOLD_LOOK if waiting else None

    def _nudged(self, ids: Sequence[NodeId]) -> list[Node]:
        known = self._store.state.nodes
        found = [known.get(node_id) for node_id in ids if node_id not in self._silent_until]
        return [node for node in found if node is not None and node.status == "ready" and node.endpoint]

    def _nudge_of(self, node: Node) -> Callable[[], None]:
        def nudge() -> None:
            silent_until = None
            try:
                self._nudges.nudge(node)
            except AgentUnreachable as error:
                self._log.debug("nudge failed; the next heartbeat tells it", node=node.name, error=str(error))
                silent_until = self._clock.now() + NUDGE_AGAIN
            finally:
                with self._lock:
                    self._under_way.discard(node.id)
                    if silent_until is not None:
                        self._silent_until[node.id] = silent_until

        return nudge

    def _note(self, committed: Committed) -> None:
        with self._noting:
            self._noted.allocations |= committed.allocations
            self._noted.jobs |= committed.jobs
            self._noted.nodes |= committed.nodes

    def _take_in(self) -> None:
        with self._noting:
            noted = self._noted
            if not (noted.allocations or noted.jobs or noted.nodes):
                return
            self._noted = _Noted()
        state: ClusterState = self._store.state
        ids = noted.allocations
        for job in noted.jobs:
            ids |= self._book.guesses_of(job)
        for node_id in noted.nodes:
            ids |= {held.id for held in state.allocations_on_node(node_id)}
        self._book.look_at(ids, state)

    def _mark(self, node_id: NodeId) -> None:
        self._stale[node_id] = None
