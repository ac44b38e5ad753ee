"""Pushes to agents what the outbox holds, batched per node, many nodes at once.

Pushes only make things fast: what is lost here is mended by the next heartbeat. So nothing is pushed to a node
that is not ready, and a node that did not answer is left alone for a while.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from reconciler.changes import earliest
from reconciler.doors import Agents, AgentUnreachable, OutboxEntry, Store
from trueup.models.allocation import Allocation
from trueup.models.assignment import assignment_of
from trueup.models.clock import Clock
from trueup.models.ids import AllocationId, NodeId
from trueup.models.node import Node
from trueup.models.state import ClusterState
from trueup.models.wire import Assignment, StopOrder

PAUSE_FIRST: Final = timedelta(seconds=0.25)
PAUSE_MOST: Final = timedelta(seconds=30)
NODES_AT_ONCE: Final = 16

RunAll = Callable[[Sequence[Callable[[], None]]], None]
"""Does several pieces of work, side by side where it can, and returns when all are done. They raise nothing."""


def one_by_one(work: Sequence[Callable[[], None]]) -> None:
    """In order, in the caller's thread."""
    for piece in work:
        piece()


class SideBySide:
    """On threads, which stay for the next time."""

    def __init__(self, most: int = NODES_AT_ONCE) -> None:
        self._pool = ThreadPoolExecutor(max_workers=most, thread_name_prefix="push")

    def __call__(self, work: Sequence[Callable[[], None]]) -> None:
        if len(work) == 1:
            work[0]()
            return
        for done in [self._pool.submit(piece) for piece in work]:
            done.result()

    def close(self) -> None:
        """Lets go of the threads; work under way is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class _Pause:
    failures: int
    until: datetime


class Dispatcher:
    """Steps when a commit made pushes due, or when a node's pause is over."""

    def __init__(self, store: Store, agents: Agents, clock: Clock, *, run_all: RunAll = one_by_one) -> None:
        self._store, self._agents, self._clock, self._run_all = store, agents, clock, run_all
        self._pauses: dict[NodeId, _Pause] = {}
        self._log = structlog.stdlib.get_logger("trueup.dispatch")

    def step(self) -> datetime | None:
        """Pushes all that is due, and takes it off the outbox."""
        now = self._clock.now()
        by_node: dict[NodeId, list[OutboxEntry]] = {}
        for entry in self._store.outbox():
            by_node.setdefault(entry.node_id, []).append(entry)
        for node_id in [known for known in self._pauses if known not in by_node]:
            del self._pauses[node_id]
        work: list[Callable[[], None]] = []
        for node_id, entries in by_node.items():
            node = self._store.state.nodes.get(node_id)
            pause = self._pauses.get(node_id)
            if node is None or node.status != "ready" or not node.endpoint:
                self._store.pushed([entry.number for entry in entries])
            elif pause is None or pause.until <= now:
                work.append(self._push_to(node, entries))
        if work:
            self._run_all(work)
        return earliest([pause.until for pause in self._pauses.values()])

    def _push_to(self, node: Node, entries: Sequence[OutboxEntry]) -> Callable[[], None]:
        def push() -> None:
            state = self._store.state
            stops = _stops(state, _ids(entries, "stop"))
            starts = _starts(state, _ids(entries, "start"))
            try:
                # Stops first: an allocation may wait for the room of one that goes.
                if stops:
                    self._agents.stop(node, stops)
                if starts:
                    self._agents.start(node, starts)
            except AgentUnreachable as error:
                self._pause(node, str(error))
                return
            self._pauses.pop(node.id, None)
            self._store.pushed([entry.number for entry in entries])

        return push

    def _pause(self, node: Node, error: str) -> None:
        failures = self._pauses[node.id].failures + 1 if node.id in self._pauses else 1
        length = min(PAUSE_FIRST * 2 ** min(failures - 1, 16), PAUSE_MOST)
        self._pauses[node.id] = _Pause(failures=failures, until=self._clock.now() + length)
        # The first may just meet an agent that has not yet read the answer to its registration.
        log = self._log.debug if failures == 1 else self._log.warning
        log("push failed; the next heartbeat mends it", node=node.name, error=error)


def _ids(entries: Iterable[OutboxEntry], kind: str) -> list[AllocationId]:
    return list(dict.fromkeys(entry.allocation_id for entry in entries if entry.kind == kind))


def _starts(state: ClusterState, ids: Iterable[AllocationId]) -> list[Assignment]:
    """What of *ids* is still wanted to run, in its newest form."""
    found = [state.allocations.get(one) for one in ids]
    wanted = [one for one in found if one is not None and one.is_wanted and not one.is_terminal]
    return [made for one in wanted if (made := assignment_of(state, one)) is not None]


def _stops(state: ClusterState, ids: Iterable[AllocationId]) -> list[StopOrder]:
    """What of *ids* is still to be ended."""
    found: list[Allocation | None] = [state.allocations.get(one) for one in ids]
    return [
        StopOrder(id=one.id, reason=one.reason)
        for one in found
        if one is not None and not one.is_wanted and not one.is_terminal
    ]
