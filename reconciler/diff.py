"""The difference between what git wants of one job and what is: what to place, stop, migrate and update.

Pure, and blind to room: which node takes a placement, and whether any can, is `planner`'s answer. Source of the
rules: the contract's *Semantics* and Nomad's reconciler.
"""

from datetime import datetime

from reconciler.changes import Changes, GroupChanges, Stop
from reconciler.counted import counted
from reconciler.every_node import on_every_node
from reconciler.job_state import JobState, by_index
from reconciler.rollout import cancelled
from reconciler.runs import scheduled
from trueup.models.allocation import StopReason
from trueup.models.record import JobVersion


def diff(actual: JobState, now: datetime) -> Changes:
    """What should change for one job, in one pass."""
    if actual.version is None:
        return _end(actual, None, "job removed", now)
    job = actual.version.job
    if job.suspended:
        return _end(actual, actual.version, "suspended", now)
    if actual.waits_for and not any(held.is_wanted for held in actual.allocations):
        return Changes(job=job.name, version=actual.version, waits_for=actual.waits_for)
    if job.schedule is not None:
        return scheduled(actual, actual.version, now)
    if job.type in {"system", "sysbatch"}:
        return on_every_node(actual, actual.version, now)
    return counted(actual, actual.version, now)


def _end(actual: JobState, version: JobVersion | None, reason: StopReason, now: datetime) -> Changes:
    """Ends all of a job; what has finished stays as history. Dependants end first."""
    wanted = [held for held in actual.allocations if held.is_wanted and not held.is_terminal]
    if actual.stops_after:
        return Changes(job=actual.name, version=version, waits_for=actual.stops_after)
    groups: dict[str, GroupChanges] = {}
    for name in sorted({held.group for held in wanted}):
        stops = tuple(Stop(allocation=held, reason=reason) for held in by_index(wanted) if held.group == name)
        groups[name] = GroupChanges(stop=stops)
    return Changes(
        job=actual.name, version=version, groups=groups, deployments=cancelled(actual.deployments, now)
    )
