"""Drops what history no longer needs, by the Cluster document's `retention`; a `Loop`.

What decides something still is no history: a finished batch allocation stays for as long as its job could start again
without it, a version for as long as anything runs in it or may be reverted to.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from metastore.store import SqlStore
from metastore.transaction import StoreTransaction
from metastore.trimming import Trim
from trueup.models.allocation import Allocation
from trueup.models.clock import Clock
from trueup.models.deployment import Deployment
from trueup.models.evaluation import Event
from trueup.models.ids import AllocationId, NodeId
from trueup.models.job import Job
from trueup.models.record import JobVersion
from trueup.models.state import ClusterState

EVERY: Final = timedelta(minutes=1)
_AGAIN: Final = timedelta(seconds=1)
_AT_ONCE: Final = 500
"""How much one transaction drops: others wait for it."""
_VERSIONS_KEPT: Final = 6
"""Newest versions of a job that stay to be looked at, whatever uses them. Source: Nomad's `job_tracked_versions`."""

Forgotten = Callable[[NodeId, AllocationId], None]


class Retention:
    """Steps once a minute; more often while there is more to drop, or while the store cannot be written."""

    def __init__(
        self, store: SqlStore, clock: Clock, forgotten: Forgotten = lambda _node, _allocation: None
    ) -> None:
        """*forgotten* is told each allocation that is dropped, so that its node may drop it too."""
        self._store, self._clock, self._forgotten = store, clock, forgotten

    def step(self) -> datetime:
        """Drops what is due and returns when to look again."""
        now = self._clock.now()
        if self._store.not_writable():
            self._store.probe()
        state = self._store.state
        self._drop_pushes(state)
        more = self._drop_state(now)
        self._store.trim(
            Trim(
                events_before=now - state.settings.retention.events,
                evaluations_before=now - state.settings.retention.evaluations,
                revisions=state.settings.retention.revisions,
                kept=_named_revisions(state),
            )
        )
        return now + (_AGAIN if more else EVERY)

    def _drop_pushes(self, state: ClusterState) -> None:
        """A push of what has ended, or to who is gone, does nothing any more."""
        idle = []
        for entry in self._store.outbox():
            held = state.allocations.get(entry.allocation_id)
            if held is None or held.is_terminal or entry.node_id not in state.nodes:
                idle.append(entry.number)
        self._store.pushed(idle)

    def _drop_state(self, now: datetime) -> bool:
        """Drops a part of what goes; True if more is left."""
        allocations = list(_Going(self._store.snapshot(), now).allocations())
        if allocations:
            with self._store.transaction() as tx:
                dropped = [one for one in allocations[:_AT_ONCE] if _still_is(tx, one)]
                for one in dropped:
                    tx.drop_allocation(one.id)
            for one in dropped:
                self._forgotten(one.node_id, one.id)
            # What refers to them goes in a later step, when they are gone.
            return True
        with self._store.transaction() as tx:
            _Going(tx.state, now).drop_rest(tx)
        return False


def _still_is(tx: StoreTransaction, planned: Allocation) -> bool:
    return tx.state.allocations.get(planned.id) == planned


class _Going:
    """What of a state goes at *now*. The state must not move on meanwhile."""

    def __init__(self, state: ClusterState, now: datetime) -> None:
        self._state, self._now = state, now
        self._before = now - state.settings.retention.allocations

    def allocations(self) -> Iterator[Allocation]:
        by_job: dict[str, list[Allocation]] = defaultdict(list)
        for held in self._state.allocations.values():
            by_job[held.job].append(held)
        for name, held_ones in sorted(by_job.items()):
            job = self._state.wanted_job(name)
            kept_runs = _kept_runs(job, held_ones)
            for held in held_ones:
                if held.is_terminal and self._goes(held, job, kept_runs):
                    yield held

    def drop_rest(self, tx: StoreTransaction) -> None:
        """Deployments, versions, jobs and nodes that nothing refers to."""
        state = self._state
        used = {(held.job, held.job_version) for held in state.allocations.values()}
        deployments = {
            held.deployment.id for held in state.allocations.values() if held.deployment is not None
        }
        for name, found in _by_job(state.deployments.values()).items():
            for deployment in found[:-1] if name in state.jobs else found:
                if (
                    not deployment.is_active
                    and deployment.id not in deployments
                    and deployment.modified_at < self._before
                ):
                    tx.drop_deployment(deployment.id)
                else:
                    used.add((name, deployment.job_version))
        for version in self._idle_versions(used):
            tx.drop_version(version.job.name, version.version)
        self._drop_jobs(tx, {name for name, _ in used})
        self._drop_nodes(tx)

    def _goes(self, held: Allocation, job: Job | None, kept_runs: frozenset[tuple[str, datetime]]) -> bool:
        if held.run is not None and job is not None and job.schedule is not None:
            return (held.group, held.run) not in kept_runs
        if not self._is_old(held):
            return False
        if not held.is_wanted or held.run is not None:
            return True
        if job is None:
            # A batch job that ended may come back, and must not run again then.
            return not self._is_batch(held)
        # It stands for its name: without it the job would begin anew.
        return False

    def _is_batch(self, held: Allocation) -> bool:
        version = self._state.versions.get((held.job, held.job_version)) or self._state.current_version(
            held.job
        )
        return version is not None and version.job.type in {"batch", "sysbatch"}

    def _is_old(self, held: Allocation) -> bool:
        return held.modified_at < self._before

    def _idle_versions(self, used: set[tuple[str, int]]) -> Iterator[JobVersion]:
        by_job: dict[str, list[JobVersion]] = defaultdict(list)
        for version in self._state.versions.values():
            by_job[version.job.name].append(version)
        for name, versions in sorted(by_job.items()):
            newest = sorted(versions, key=lambda version: -version.version)
            stable = next((version.version for version in newest if version.stable), None)
            record = self._state.jobs.get(name)
            pinned = {stable} | (set() if record is None else {record.version, record.frozen_version})
            for version in newest[_VERSIONS_KEPT:]:
                is_old = version.created_at < self._before
                if is_old and (name, version.version) not in used and version.version not in pinned:
                    yield version

    def _drop_jobs(self, tx: StoreTransaction, used: set[str]) -> None:
        """Removed jobs of which nothing is left but their record; history names them for as long as events stay."""
        before = self._now - self._state.settings.retention.events
        for name, record in sorted(self._state.jobs.items()):
            if record.removed and name not in used and record.modified_at < before:
                for job, version in list(self._state.versions):
                    if job == name:
                        tx.drop_version(job, version)
                tx.drop_job(name)

    def _drop_nodes(self, tx: StoreTransaction) -> None:
        """Nodes that have been down for long, hold nothing, and have no document."""
        for node in sorted(self._state.nodes.values(), key=lambda node: node.name):
            is_idle = node.status == "down" and not node.declared and node.status_changed_at < self._before
            if is_idle and not self._state.allocations_on_node(node.id):
                tx.drop_node(node.id)
                message = f"node {node.name} was down for long and held nothing; it is forgotten"
                tx.put_event(Event(at=self._now, type="NodeForgotten", message=message, node=node.name))


def _kept_runs(job: Job | None, held_ones: Iterable[Allocation]) -> frozenset[tuple[str, datetime]]:
    """The runs of a scheduled job that stay: those under way, and the newest `keep` that have ended."""
    if job is None or job.schedule is None:
        return frozenset()
    is_over: dict[tuple[str, datetime], bool] = {}
    for held in held_ones:
        if held.run is not None:
            key = (held.group, held.run)
            is_over[key] = is_over.get(key, True) and held.is_terminal
    kept: set[tuple[str, datetime]] = {key for key, over in is_over.items() if not over}
    for group in {group for group, _ in is_over}:
        ended = sorted((run for (of, run), over in is_over.items() if of == group and over), reverse=True)
        kept |= {(group, run) for run in ended[: max(job.schedule.keep, 1)]}
    return frozenset(kept)


def _by_job(deployments: Iterable[Deployment]) -> dict[str, list[Deployment]]:
    found: dict[str, list[Deployment]] = defaultdict(list)
    for deployment in deployments:
        found[deployment.job].append(deployment)
    return found


def _named_revisions(state: ClusterState) -> frozenset[str]:
    """Revisions that something still names: `explain` says who asked for it."""
    found = {record.revision for record in list(state.jobs.values())}
    found |= {version.revision for version in list(state.versions.values())}
    found |= {held.revision for held in list(state.allocations.values())}
    found |= {str(one) for one in (state.revision, state.held.revision if state.held else None) if one}
    return frozenset(found)
