"""An allocation as the agent tells of it, made from its assignment and its record. Pure."""

from collections.abc import Mapping

from msgspec.structs import replace

from agent.image_health import all_checks
from agent.instructions import CheckView
from agent.record import AllocationRecord, TaskRecord
from agent.step import client_status
from trueup.models.allocation import Allocation, TaskState, TaskStatus
from trueup.models.wire import AllocationUpdate, Assignment, Holding


def task_states(record: AllocationRecord, checks: Mapping[str, CheckView]) -> dict[str, TaskState]:
    """The contract's states of all tasks, by name."""
    return {name: _task_state(task, checks.get(name)) for name, task in sorted(record.tasks.items())}


def update_of(
    assignment: Assignment, record: AllocationRecord, checks: Mapping[str, CheckView]
) -> AllocationUpdate:
    """What a heartbeat says of it."""
    return AllocationUpdate(
        id=assignment.allocation.id,
        client_status=client_status(record),
        tasks=task_states(record, checks),
        healthy=record.healthy,
        reason=record.reason,
    )


def holding_of(assignment: Assignment, record: AllocationRecord, checks: Mapping[str, CheckView]) -> Holding:
    """What a registration says of it."""
    held = assignment.allocation
    return Holding(
        id=held.id,
        name=held.name,
        job=held.job,
        group=held.group,
        index=held.index,
        run=held.run,
        version=held.job_version,
        revision=held.revision,
        digest=held.digest,
        epoch=held.epoch,
        desired_status=record.wanted,
        client_status=client_status(record),
        healthy=record.healthy,
        tasks=task_states(record, checks),
        ports=held.ports,
        created_at=held.created_at,
    )


def allocation_of(
    assignment: Assignment, record: AllocationRecord, checks: Mapping[str, CheckView]
) -> Allocation:
    """The allocation as `GET /allocations/<id>` of the agent shows it."""
    return replace(
        assignment.allocation,
        desired_status=record.wanted,
        client_status=client_status(record),
        reason=record.reason,
        tasks=task_states(record, checks),
        healthy=record.healthy,
    )


def _task_state(task: TaskRecord, check: CheckView | None) -> TaskState:
    seen = all_checks(task, check) if task.phase == "running" else None
    healthy = None if seen is None else seen.passing
    return TaskState(
        state=_status(task),
        failed=task.failed,
        restarts=task.restarts,
        exit_code=task.exit_code,
        signal=task.signal,
        oom_killed=task.oom_killed,
        pid=task.pid if task.phase in {"running", "stopping"} else None,
        container_id=task.container_id,
        image=task.image,
        image_id=task.image_id,
        healthy=healthy,
        started_at=task.started_at,
        finished_at=task.finished_at,
        events=task.events,
    )


def _status(task: TaskRecord) -> TaskStatus:
    if task.phase in {"running", "stopping"}:
        return "running"
    return "dead" if task.phase == "dead" else "pending"
