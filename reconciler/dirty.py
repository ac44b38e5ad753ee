"""Which jobs to look at again: one queue, each job in it at most once, taken by priority and name.

Whatever may change an answer marks a job: a new revision, a task's end, a node that came, went or got room, a timer
that is due. A mark carries a name, never the event: the pass reads the state anew.
"""

import heapq
from collections.abc import Iterable
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
    """The marks and the timers. Not thread-safe: marks from other threads come through `note`, which only appends."""

    def __init__(self) -> None:
        self._marked: dict[str, None] = {}
        self._noted: list[Committed] = []
        self._timers: list[tuple[datetime, str]] = []
        self._due_at: dict[str, datetime] = {}

    def note(self, committed: Committed) -> None:
        """Takes in what a transaction changed; safe to call from any thread."""
        self._noted.append(committed)

    def mark(self, name: str) -> None:
        """Marks a job; nothing happens if it is marked."""
        self._marked[name] = None

    def mark_all(self, state: ClusterState) -> None:
        """Marks every job: the slow full pass, and the first one after a start."""
        self._marked.update(dict.fromkeys(state.jobs))

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
        noted, self._noted = self._noted, []
        jobs: set[str] = set()
        freed = False
        for one in noted:
            jobs |= one.jobs
            for node_id in one.nodes:
                # It may be drained, ineligible for what it holds, or down.
                jobs.update(held.job for held in state.allocations_on_node(node_id) if not held.is_terminal)
            freed = freed or one.room_freed or bool(one.nodes)
        for name in jobs:
            self.mark(name)
        if jobs or freed:
            self._mark_waiting(state, jobs, freed=freed)

    def _mark_waiting(self, state: ClusterState, changed: set[str], *, freed: bool) -> None:
        """Marks what may be able to go on: blocked jobs when room came, dependants of what changed."""
        for name, record in list(state.jobs.items()):
            if freed and (record.unplaced or self._runs_on_every_node(state, name)):
                self.mark(name)
                continue
            version = state.versions.get((name, record.version))
            if version is not None and changed.intersection(version.job.depends_on) and record.unplaced:
                self.mark(name)
            elif record.removed and changed and version is not None:
                self._mark_depended(state, version.job.depends_on)

    def _mark_depended(self, state: ClusterState, names: Iterable[str]) -> None:
        for name in names:
            record = state.jobs.get(name)
            if record is not None and record.removed:
                self.mark(name)

    @staticmethod
    def _runs_on_every_node(state: ClusterState, name: str) -> bool:
        job = state.wanted_job(name)
        return job is not None and job.type in {"system", "sysbatch"}

    def _take_timers(self, now: datetime) -> None:
        while (due := self.next_due()) is not None and due <= now:
            _, name = heapq.heappop(self._timers)
            del self._due_at[name]
            self.mark(name)
