"""The contract's two questions, asked of the state: is what git says what we have planned (sync), and does it work
(health)? One computation for API, page, CLI and metrics.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

import msgspec

from trueup.models.allocation import Allocation
from trueup.models.job import Job, TaskGroup
from trueup.models.reasons import WAITS
from trueup.models.record import JobRecord
from trueup.models.state import ClusterState

Sync = Literal["Unknown", "Invalid", "OutOfSync", "Synced"]
Health = Literal["Degraded", "Missing", "Progressing", "Suspended", "Healthy"]
JobStatus = Literal["pending", "running", "dead"]

WORST_FIRST: Final[tuple[Health, ...]] = ("Degraded", "Missing", "Progressing", "Suspended", "Healthy")
SYNC_ORDER: Final[tuple[Sync, ...]] = ("Unknown", "Invalid", "OutOfSync", "Synced")


class GroupHealth(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Desired against actual: *placed* are wanted allocations (of batch, finished ones too)."""

    name: str
    desired: int
    placed: int
    running: int
    healthy: int
    failed: int


class JobHealth(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One job's answer; *reason* says what to look at where it is not the best."""

    name: str
    sync: Sync
    health: Health
    status: JobStatus
    reason: str
    groups: tuple[GroupHealth, ...]


class ClusterHealth(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The whole: sync, the first word that holds; health, the worst of jobs."""

    sync: Sync
    health: Health
    reason: str


def job_health(state: ClusterState, name: str) -> JobHealth:
    """How the job of that name does. KeyError if there is none."""
    record = state.jobs[name]
    version = state.versions[name, record.version]
    allocations = state.allocations_of_job(name)
    wanted = _of_newest_run([held for held in allocations if held.is_wanted])
    groups = tuple(_group_health(version.job, group, wanted, record) for group in version.job.groups)
    sync, sync_reason = _sync(state, record)
    health, health_reason = _health(state, record, version.job, allocations, groups)
    return JobHealth(
        name=name,
        sync=sync,
        health=health,
        status=_status(record, version.job, allocations, health),
        reason=health_reason or sync_reason,
        groups=groups,
    )


def cluster_health(state: ClusterState) -> ClusterHealth:
    """How the whole does."""
    jobs = [job_health(state, name) for name in state.job_names() if not state.jobs[name].removed]
    sync: Sync = min((job.sync for job in jobs), key=SYNC_ORDER.index, default="Synced")
    reason = ""
    if state.source.error:
        sync, reason = "Unknown", state.source.error
    elif state.errors and sync != "Unknown":
        sync, reason = "Invalid", str(state.errors[0])
    elif state.held is not None and sync in {"OutOfSync", "Synced"}:
        sync, reason = "OutOfSync", f"held: {state.held.reason}"
    elif state.revision is None:
        sync, reason = "Unknown", "no revision was applied yet"
    health: Health = min((job.health for job in jobs), key=WORST_FIRST.index, default="Healthy")
    if not reason:
        reason = next(
            (f"{job.name}: {job.reason}" for job in jobs if job.health == health and job.reason), ""
        )
    return ClusterHealth(sync=sync, health=health, reason=reason)


def _of_newest_run(wanted: Sequence[Allocation]) -> list[Allocation]:
    newest = max((held.run for held in wanted if held.run is not None), default=None)
    return [held for held in wanted if held.run == newest]


def _group_health(job: Job, group: TaskGroup, wanted: Iterable[Allocation], record: JobRecord) -> GroupHealth:
    held = [one for one in wanted if one.group == group.name]
    unplaced = sum(one.count for one in record.unplaced if one.group == group.name)
    desired = group.count
    if job.type in {"system", "sysbatch"}:
        desired = len(held) + unplaced
    if job.suspended or record.removed or (job.schedule is not None and not held):
        desired = 0
    return GroupHealth(
        name=group.name,
        desired=desired,
        placed=sum(1 for one in held if one.client_status not in {"failed", "lost"}),
        running=sum(1 for one in held if one.client_status == "running"),
        healthy=sum(1 for one in held if one.client_status == "running" and one.healthy is True),
        failed=sum(1 for one in held if one.client_status == "failed"),
    )


def _sync(state: ClusterState, record: JobRecord) -> tuple[Sync, str]:
    if state.source.error:
        return "Unknown", state.source.error
    if record.invalid:
        return "Invalid", "its newest document has errors; the last good version stays"
    if record.reverted:
        return "OutOfSync", f"reverted: {record.reverted}"
    if record.frozen_version is not None and record.frozen_version != record.version:
        return "OutOfSync", f"frozen at version {record.frozen_version}"
    if state.held is not None and record.name in state.held.removes:
        return "OutOfSync", f"held: {state.held.reason}"
    if not record.removed and record.evaluated_version != record.version:
        return "OutOfSync", "not yet planned"
    return "Synced", ""


def _health(
    state: ClusterState,
    record: JobRecord,
    job: Job,
    allocations: Sequence[Allocation],
    groups: Sequence[GroupHealth],
) -> tuple[Health, str]:
    if record.error:
        return "Degraded", record.error
    if job.suspended:
        return "Suspended", "suspended in its document"
    if record.removed:
        return (
            ("Progressing", "stopping")
            if any(not held.is_terminal for held in allocations)
            else ("Healthy", "")
        )
    if job.schedule is not None:
        return _scheduled_health(allocations)
    if job.type in {"batch", "sysbatch"}:
        return _batch_health(record, groups, [held for held in allocations if held.is_wanted])
    return _service_health(state, record, groups, [held for held in allocations if held.is_wanted])


def _service_health(
    state: ClusterState, record: JobRecord, groups: Sequence[GroupHealth], wanted: Sequence[Allocation]
) -> tuple[Health, str]:
    deployment = next(iter(reversed(state.deployments_of_job(record.name))), None)
    if deployment is not None and deployment.status == "failed":
        return "Degraded", f"deployment of version {deployment.job_version} failed: {deployment.reason}"
    if failing := _named(wanted, lambda held: held.client_status == "failed"):
        return "Degraded", f"failed: {failing}"
    if failing := _named(wanted, lambda held: held.client_status == "running" and held.healthy is False):
        return "Degraded", f"unhealthy: {failing}"
    if failing := _named(wanted, lambda held: held.client_status == "unknown"):
        return "Degraded", f"its node is silent: {failing}"
    if not any(group.desired for group in groups):
        return "Healthy", ""
    unplaced = _unplaced_words(record)
    if not any(group.placed for group in groups) and record.evaluated_version:
        return "Missing", unplaced or "nothing is placed"
    if unplaced:
        return "Degraded", unplaced
    if any(group.healthy < group.desired for group in groups):
        return "Progressing", "not all allocations are healthy yet"
    if deployment is not None and deployment.is_active:
        return "Progressing", f"version {deployment.job_version} is being rolled out"
    return "Healthy", ""


def _batch_health(
    record: JobRecord, groups: Sequence[GroupHealth], wanted: Sequence[Allocation]
) -> tuple[Health, str]:
    if failing := _named(wanted, lambda held: held.client_status == "failed"):
        return "Degraded", f"failed: {failing}"
    unplaced = _unplaced_words(record)
    if unplaced:
        return ("Degraded" if any(group.placed for group in groups) else "Missing"), unplaced
    finished = sum(1 for held in wanted if held.client_status == "complete")
    if finished < sum(group.desired for group in groups):
        return "Progressing", f"{finished} of {sum(group.desired for group in groups)} complete"
    return "Healthy", ""


def _scheduled_health(allocations: Sequence[Allocation]) -> tuple[Health, str]:
    ended_runs = sorted(
        {held.run for held in allocations if held.run is not None}
        - {held.run for held in allocations if held.run is not None and not held.is_terminal}
    )
    if not ended_runs:
        return "Healthy", ""
    last = [held for held in allocations if held.run == ended_runs[-1] and held.is_wanted]
    if failing := _named(last, lambda held: held.client_status in {"failed", "lost"}):
        return "Degraded", f"the run of {ended_runs[-1]:%Y-%m-%d %H:%M} UTC failed: {failing}"
    return "Healthy", ""


def _status(record: JobRecord, job: Job, allocations: Sequence[Allocation], health: Health) -> JobStatus:
    if any(not held.is_terminal for held in allocations):
        return "running"
    if record.removed or job.suspended:
        return "dead"
    if job.schedule is not None:
        return "running"
    if job.type in {"batch", "sysbatch"} and allocations and health in {"Healthy", "Degraded"}:
        return "dead"
    return "pending"


def _unplaced_words(record: JobRecord) -> str:
    parts = []
    for group in record.unplaced:
        if group.reasons and all(one.startswith(WAITS) for one in group.reasons):
            names = ", ".join(sorted(one.removeprefix(WAITS) for one in group.reasons))
            parts.append(
                f"{group.count} of {group.group} {'waits' if group.count == 1 else 'wait'} for {names}"
            )
            continue
        reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(group.reasons.items()))
        parts.append(f"{group.count} of {group.group} not placed: {reasons or 'no node'}")
    return "; ".join(parts)


def _named(allocations: Iterable[Allocation], matches: Callable[[Allocation], bool]) -> str:
    names = sorted({held.name for held in allocations if matches(held)})
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
