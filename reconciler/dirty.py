"""Which jobs to look at again: one queue, each job in it at most once, taken by priority and name.

Whatever may change an answer marks a job: a new revision, a task's end, a node that came, went or got room, a timer
that is due. A mark carries a name, never the event: the pass reads the state anew.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime

from trueup.models.commit import Committed
from trueup.models.state import ClusterState


def evaluation_order(state: ClusterState, names: Iterable[str]) -> list[str]:
    """The order of passes: higher priority first, then by name. Plan and live loop both keep to it."""
    return sorted(names, key=lambda name: (-_priority(state, name), name))


def _priority(state: ClusterState, name: str) -> int:
    """Removed jobs come first: what they give back is there for the others."""
    record = state.jobs.get(name)
    if record is None or record.removed:
        return 1_000
    version = state.versions.get((name, record.version))
    return 0 if version is None else version.job.priority


class DirtyJobs:
    """The marks and the timers. `note` may be called from any thread, all else from one.

    What may go on when something else changes (blocked jobs, jobs of every node, dependants) is kept by name, so that a
    change costs what it touches and not a walk over all jobs.
    """

    def __init__(self) -> None:
        self._marked: dict[str, None] = {}
        self._noted: deque[Committed] = deque()
        self._timers: list[tuple[datetime, str]] = []
        self._due_at: dict[str, datetime] = {}
        self._blocked: set[str] = set()
        self._on_every_node: set[str] = set()
        self._depends_on: dict[str, Sequence[str]] = {}
        self._dependants: dict[str, set[str]] = {}

    def note(self, committed: Committed) -> None:
        """Takes in what a transaction changed."""
        self._noted.append(committed)

    def mark(self, name: str) -> None:
        """Marks a job; nothing happens if it is marked."""
        self._marked[name] = None

    def mark_all(self, state: ClusterState) -> None:
        """Marks every job: the slow full pass, and the first one after a start."""
        for name in list(state.jobs):
            self._sort_in(name, state)
            self.mark(name)

    def look_at(self, name: str, at: datetime | None) -> None:
        """Sets when time alone makes the job dirty, in place of any earlier time; None: never."""
        if at is None:
            self._due_at.pop(name, None)
        elif self._due_at.get(name) != at:
            self._due_at[name] = at
            heapq.heappush(self._timers, (at, name))

    def take(self, state: ClusterState, now: datetime) -> list[str]:
        """All jobs that are dirty now, in the order of passes; they are marked no more."""
        self._take_notes(state)
        self._take_timers(now)
        taken = evaluation_order(state, self._marked)
        self._marked.clear()
        return taken

    def next_due(self) -> datetime | None:
        """When the next timer is due."""
        while self._timers and self._due_at.get(self._timers[0][1]) != self._timers[0][0]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _take_notes(self, state: ClusterState) -> None:
        jobs: set[str] = set()
        freed = False
        while self._noted:
            one = self._noted.popleft()
            jobs |= one.jobs
            for node_id in one.nodes:
                # It may be drained, ineligible for what it holds, or down.
                jobs.update(held.job for held in state.allocations_on_node(node_id) if not held.is_terminal)
            freed = freed or one.room_freed or bool(one.nodes)
        for name in jobs:
            self._sort_in(name, state)
            self.mark(name)
            self._mark_neighbours(name, state)
        if freed:
            for name in self._blocked | self._on_every_node:
                self.mark(name)

    def _sort_in(self, name: str, state: ClusterState) -> None:
        """Notes what the job waits for, and who waits for it."""
        record, job = state.jobs.get(name), state.wanted_job(name)
        _keep(self._blocked, name, wanted=record is not None and bool(record.unplaced))
        _keep(self._on_every_node, name, wanted=job is not None and job.type in {"system", "sysbatch"})
        for other in self._depends_on.pop(name, ()):
            self._dependants[other].discard(name)
        version = state.current_version(name)
        if version is not None and version.job.depends_on:
            self._depends_on[name] = version.job.depends_on
            for other in version.job.depends_on:
                self._dependants.setdefault(other, set()).add(name)

    def _mark_neighbours(self, name: str, state: ClusterState) -> None:
        """Marks what may begin now that *name* changed (its dependants), or end (what it depended on)."""
        for other in self._dependants.get(name, ()):
            if other in self._blocked:
                self.mark(other)
        if _ends(name, state):
            for other in self._depends_on.get(name, ()):
                if _ends(other, state):
                    self.mark(other)

    def _take_timers(self, now: datetime) -> None:
        while (due := self.next_due()) is not None and due <= now:
            _, name = heapq.heappop(self._timers)
            del self._due_at[name]
            self.mark(name)


def _ends(name: str, state: ClusterState) -> bool:
    """Whether nothing of the job is wanted any more: it was removed, or is suspended."""
    job = state.wanted_job(name)
    return job is None or job.suspended


def _keep(names: set[str], name: str, *, wanted: bool) -> None:
    if wanted:
        names.add(name)
    else:
        names.discard(name)
