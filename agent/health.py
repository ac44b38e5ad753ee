"""Whether an allocation is healthy. Pure.

Contract: every task that should run has run for `min_healthy_time` without a restart, and all checks pass, also those
that images bring along. Until it was so once the answer is None, not False: a server that takes a while to listen is no
failed rollout.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from agent.image_health import image_passes
from agent.instructions import CheckView
from agent.record import AllocationRecord, TaskRecord
from agent.roles import role_of, runs_once
from trueup.models.job import Task
from trueup.models.wire import Assignment


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The health now, and when it may change if nothing happens (steady time)."""

    healthy: bool | None
    look_at: datetime | None = None


def judge_health(
    assignment: Assignment, record: AllocationRecord, checks: Mapping[str, CheckView], steady: datetime
) -> Verdict:
    """The health of an allocation whose tasks are as *record* says. One that is being stopped keeps its last."""
    if any(task.failed for task in record.tasks.values()):
        return Verdict(healthy=False)
    if record.outcome == "complete" and record.wanted == "run":
        return Verdict(healthy=True)
    if record.wanted == "stop" or record.has_ended:
        return Verdict(healthy=record.healthy)
    wanted = [
        task for task in assignment.group.tasks if _should_run(task, assignment, record.tasks[task.name])
    ]
    if any(record.tasks[task.name].phase != "running" for task in wanted):
        return Verdict(healthy=False if record.was_healthy else None)
    passing = [_passing(record.tasks[task.name], checks.get(task.name)) for task in wanted if task.checks]
    passing += [image_passes(one) for task in wanted if (one := record.tasks[task.name]).image_health]
    if False in passing:
        return Verdict(healthy=False if record.was_healthy else None)
    if None in passing:
        return Verdict(healthy=record.healthy)
    since = [record.tasks[task.name].running_since or steady for task in wanted]
    healthy_at = max(since, default=steady) + assignment.min_healthy_time
    if healthy_at <= steady:
        return Verdict(healthy=True)
    return Verdict(healthy=False if record.was_healthy else None, look_at=healthy_at)


def _should_run(task: Task, assignment: Assignment, record: TaskRecord) -> bool:
    """What is done with an exit of 0 is done; what comes before or after the main tasks is no part of their health."""
    role = role_of(task)
    if role in {"prestart", "poststart", "poststop"}:
        return role == "prestart" and record.phase != "dead"
    return not (runs_once(task, assignment.job_type) and record.phase == "dead")


def _passing(record: TaskRecord, view: CheckView | None) -> bool | None:
    if view is None or view.attempt != record.attempt:
        return None
    return view.passing
