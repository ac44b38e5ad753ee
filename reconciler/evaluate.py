"""One evaluation of one job: `diff`, then `plan`. The one path of what is applied and of the dry run.

`evaluate` reads a state and changes nothing; `record` writes its result into anything that takes puts: a store's
transaction, or a copy of the state in a dry run or a simulation.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

import msgspec

from reconciler.changes import Changes
from reconciler.diff import diff
from reconciler.job_state import JobState
from reconciler.planner import Plan, plan
from trueup.models.allocation import Allocation
from trueup.models.deployment import Deployment
from trueup.models.evaluation import UnplacedGroup
from trueup.models.health import job_health
from trueup.models.ids import IdSource, NodeId
from trueup.models.reasons import WAITS
from trueup.models.record import JobRecord, JobVersion
from trueup.models.state import ClusterState

_VERSIONS_KEPT: Final = 100
"""How far back a stable version is looked for; retention keeps fewer."""


class Puts(Protocol):
    """What takes an evaluation's result."""

    def put_job(self, record: JobRecord) -> None: ...
    def put_version(self, version: JobVersion) -> None: ...
    def put_allocation(self, allocation: Allocation) -> None: ...
    def put_deployment(self, deployment: Deployment) -> None: ...


def evaluate(name: str, state: ClusterState, now: datetime, ids: IdSource) -> Plan:
    """What one pass over the job of that name does at *now*. Same input, same output, but for the ids drawn."""
    return plan(diff(job_state(name, state), now), state, now, ids)


def job_state(name: str, state: ClusterState) -> JobState:
    """All of one job that `diff` reads, gathered from the state."""
    record = state.jobs.get(name)
    version = None if record is None or record.removed else _wanted_version(state, record)
    allocations = state.allocations_of_job(name)
    numbers = {held.job_version for held in allocations}
    versions = {
        number: found for number in numbers if (found := state.versions.get((name, number))) is not None
    }
    return JobState(
        name=name,
        record=record,
        version=version,
        versions=versions,
        stable=None if version is None else _stable_before(version, state),
        reverted=record is not None and record.reverted_to is not None,
        allocations=allocations,
        deployments=state.deployments_of_job(name),
        nodes=state.nodes,
        settings=state.settings,
        waits_for=_waits_for(state, version),
        stops_after=_stops_after(state, name) if version is None or version.job.suspended else (),
        emptied_nodes=_emptied_nodes(state, allocations),
    )


def record(outcome: Plan, state: ClusterState, target: Puts, now: datetime) -> None:
    """Writes an evaluation's result: stops before placements, so that a name is free before it is taken."""
    for allocation in (*outcome.changes.updates, *outcome.stopped, *outcome.in_place):
        target.put_allocation(allocation)
    for placement in outcome.placements:
        if placement.stopped is not None:
            target.put_allocation(placement.stopped)
        for evicted in placement.evicted:
            target.put_allocation(evicted)
        target.put_allocation(placement.allocation)
    for deployment in outcome.changes.deployments:
        target.put_deployment(deployment)
    _record_job(outcome, state, target, now)


def unplaced_of(outcome: Plan) -> tuple[UnplacedGroup, ...]:
    """What found no room, and what waits for another job, by group."""
    changes = outcome.changes
    if not changes.waits_for or changes.version is None or changes.version.job.suspended:
        return outcome.unplaced
    reasons = {f"{WAITS}{name}": 1 for name in changes.waits_for}
    return tuple(
        UnplacedGroup(group=group.name, count=group.count, reasons=reasons)
        for group in changes.version.job.groups
    )


def _record_job(outcome: Plan, state: ClusterState, target: Puts, now: datetime) -> None:
    changes: Changes = outcome.changes
    held = state.jobs.get(changes.job)
    if held is None:
        return
    evaluated = held.version if changes.version is not None else held.evaluated_version
    changed = msgspec.structs.replace(
        held, unplaced=unplaced_of(outcome), evaluated_version=evaluated, error=""
    )
    if changes.ran_at is not None and changes.version is not None:
        changed = msgspec.structs.replace(
            changed, last_run_at=changes.ran_at, last_run_token=changes.version.job.restart_token
        )
    if changes.reverts_to is not None:
        changed = msgspec.structs.replace(
            changed, reverted=changes.reverts_because, reverted_to=changes.reverts_to
        )
    if changed != held:
        target.put_job(msgspec.structs.replace(changed, modified_at=now))
    stable = changes.stable_version
    version = changes.version
    if version is not None and version.version == stable and not version.stable:
        target.put_version(msgspec.structs.replace(version, stable=True))


def _wanted_version(state: ClusterState, held: JobRecord) -> JobVersion | None:
    if held.frozen_version is not None:
        frozen = state.versions.get((held.name, held.frozen_version))
        if frozen is not None:
            return frozen
    if held.reverted_to is not None:
        earlier = state.versions.get((held.name, held.reverted_to))
        if earlier is not None:
            return earlier
    return state.versions.get((held.name, held.version))


def _stable_before(version: JobVersion, state: ClusterState) -> JobVersion | None:
    """The newest version before *version* that was once healthy and whose tasks see something else."""
    for number in range(version.version - 1, max(0, version.version - _VERSIONS_KEPT), -1):
        earlier = state.versions.get((version.job.name, number))
        if earlier is not None and earlier.stable and earlier.digest != version.digest:
            return earlier
    return None


def _waits_for(state: ClusterState, version: JobVersion | None) -> tuple[str, ...]:
    if version is None:
        return ()
    return tuple(sorted(name for name in version.job.depends_on if not _is_healthy(state, name)))


def _is_healthy(state: ClusterState, name: str) -> bool:
    held = state.jobs.get(name)
    return held is not None and not held.removed and job_health(state, name).health == "Healthy"


def _stops_after(state: ClusterState, name: str) -> tuple[str, ...]:
    """Jobs that depend on the job *name*, which ends, and end too but still run."""
    return tuple(
        other
        for other in state.dependants_of(name)
        if _ends(state, other) and any(not one.is_terminal for one in state.allocations_of_job(other))
    )


def _ends(state: ClusterState, name: str) -> bool:
    job = state.wanted_job(name)
    return job is None or job.suspended


def _emptied_nodes(state: ClusterState, allocations: Sequence[Allocation]) -> frozenset[NodeId]:
    """Of the nodes that hold *allocations*, those that are drained of all but system jobs."""
    found = set()
    for node_id in {held.node_id for held in allocations if not held.is_terminal}:
        node = state.nodes.get(node_id)
        if node is None or node.drain is None:
            continue
        kinds = set()
        for held in state.allocations_on_node(node.id):
            version = state.versions.get((held.job, held.job_version))
            if not held.is_terminal and version is not None:
                kinds.add(version.job.type)
        if kinds <= {"system"}:
            found.add(node.id)
    return frozenset(found)
