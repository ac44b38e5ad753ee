"""What a report of an agent makes of an allocation: pure, and the one place where states move on and never back.

`complete` and `failed` are for ever. `lost` and `unknown` are the control plane's own judgement about a silent node,
so they give way when the node says how it is: what was replaced meanwhile is wanted no more, the rest runs on.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from metastore.allocations import name_holder
from trueup.models.allocation import TERMINAL, Allocation, ClientStatus, TaskState
from trueup.models.codec import Model
from trueup.models.evaluation import Event
from trueup.models.fit import allocated_resources
from trueup.models.node import Node
from trueup.models.silence import patience
from trueup.models.state import ClusterState
from trueup.models.wire import AllocationUpdate, Holding

_ENDS: Final = frozenset({"Terminated", "Driver failure", "Artifact failure"})
ENDED: Final[frozenset[ClientStatus]] = frozenset({"complete", "failed"})


class Report(Model, frozen=True, kw_only=True):
    """How an agent says an allocation is."""

    client_status: ClientStatus
    tasks: dict[str, TaskState] = {}
    healthy: bool | None = None
    reason: str = ""


def report_of(told: AllocationUpdate | Holding) -> Report:
    """The report in a heartbeat's update, or in what a node registers with."""
    reason = told.reason if isinstance(told, AllocationUpdate) else ""
    return Report(client_status=told.client_status, tasks=told.tasks, healthy=told.healthy, reason=reason)


def silent_report(held: Allocation) -> Report:
    """How an allocation is of which its agent says no more than that it is there: as was last reported."""
    running = any(task.state == "running" for task in held.tasks.values())
    return Report(client_status="running" if running else "pending", tasks=held.tasks, healthy=held.healthy)


def reported(held: Allocation, report: Report, state: ClusterState, now: datetime) -> Allocation:
    """*held* as it is after *report*; the same object if that is no news."""
    if held.client_status in ENDED:
        return held
    if held.client_status == "lost":
        return _found_again(held, report, state, now)
    return _taken(held, report, now)


def given_up(held: Allocation, now: datetime) -> Allocation:
    """A silent node's allocation, lost; since when it was silent stays known."""
    return msgspec.structs.replace(held, client_status="lost", healthy=None, lost_at=now, modified_at=now)


def missed(held: Allocation, now: datetime) -> Allocation:
    """A silent node's allocation that its group does not give up yet."""
    return msgspec.structs.replace(held, client_status="unknown", unknown_since=now, modified_at=now)


def patience_with(held: Allocation, state: ClusterState) -> float:
    """For how many seconds of silence an allocation is unknown before it is lost, by its group's `disconnect`."""
    version = state.versions.get((held.job, held.job_version)) or state.current_version(held.job)
    group = None if version is None else version.job.group(held.group)
    return 0.0 if group is None else patience(group).total_seconds()


def adopted(holding: Holding, node: Node, state: ClusterState, now: datetime) -> Allocation:
    """The allocation that *holding* tells of, taken over from a store that is lost or older.

    One whose name another holds is wanted no more.
    """
    is_wanted = holding.desired_status == "run"
    allocation = Allocation(
        id=holding.id,
        name=holding.name,
        job=holding.job,
        group=holding.group,
        index=holding.index,
        run=holding.run,
        node_id=node.id,
        node=node.name,
        job_version=holding.version,
        revision=holding.revision,
        digest=holding.digest,
        epoch=holding.epoch,
        desired_status="run" if is_wanted else "stop",
        client_status=holding.client_status,
        reason="" if is_wanted else "not needed",
        tasks=holding.tasks,
        ports=holding.ports,
        healthy=holding.healthy,
        created_at=holding.created_at,
        modified_at=now,
    )
    if is_wanted and name_holder(allocation, state) is not None:
        allocation = msgspec.structs.replace(allocation, desired_status="stop", reason="not needed")
    return sized(allocation, state)


def sized(held: Allocation, state: ClusterState) -> Allocation:
    """An adopted allocation with the room it takes, once its job is known; the same object until then.

    Agents do not report what an allocation takes. If its group changed meanwhile, what it takes now is the best guess
    until it is replaced.
    """
    version = state.current_version(held.job)
    group = None if version is None else version.job.group(held.group)
    return held if group is None else msgspec.structs.replace(held, resources=allocated_resources(group))


def event_of(before: Allocation | None, after: Allocation, now: datetime) -> Event | None:
    """What is worth telling of a change; None if nothing is."""
    words = _news(before, after)
    if words is None:
        return None
    kind, what = words
    return Event(
        at=now,
        type=kind,
        message=f"{after.name} on {after.node} {what}",
        job=after.job,
        allocation=after.id,
        node=after.node,
        revision=after.revision,
    )


def _taken(held: Allocation, report: Report, now: datetime) -> Allocation:
    changed = msgspec.structs.replace(
        held,
        client_status=report.client_status,
        tasks=report.tasks,
        healthy=report.healthy,
        unknown_since=None,
        # Of what was told to stop, the reason is why; the agent's own words say why the rest ended.
        reason=report.reason if held.is_wanted and report.client_status in TERMINAL else held.reason,
    )
    return held if changed == held else msgspec.structs.replace(changed, modified_at=now)


def _found_again(held: Allocation, report: Report, state: ClusterState, now: datetime) -> Allocation:
    if not held.is_wanted:
        # It takes room until it has ended; that it ended is no news, since it counts as lost.
        return held if report.client_status in TERMINAL else _taken(held, report, now)
    revived = msgspec.structs.replace(_taken(held, report, now), lost_at=None)
    if name_holder(revived, state) is None:
        return revived
    if report.client_status in TERMINAL:
        return held
    return msgspec.structs.replace(revived, lost_at=held.lost_at, desired_status="stop", reason="lost")


def _news(before: Allocation | None, after: Allocation) -> tuple[str, str] | None:
    if before is None:
        return "AllocationAdopted", "was found running and taken over"
    if before.client_status != after.client_status:
        return _status_news(after)
    if before.healthy != after.healthy and after.healthy is not None:
        return (
            ("AllocationHealthy", "is healthy")
            if after.healthy
            else ("AllocationUnhealthy", "is not healthy")
        )
    return None


def _status_news(after: Allocation) -> tuple[str, str] | None:
    match after.client_status:
        case "running":
            return "AllocationRunning", "runs"
        case "complete":
            return "AllocationComplete", "has ended"
        case "failed":
            return "AllocationFailed", f"failed{_cause(after.tasks, after.reason)}"
        case "lost":
            return "AllocationLost", "is lost: its node is silent"
        case "unknown":
            return "AllocationUnknown", "is unknown: its node is silent"
        case _:
            return None


def _cause(tasks: Mapping[str, TaskState], reason: str) -> str:
    for name, task in sorted(tasks.items()):
        if task.oom_killed:
            return f": task {name} was killed: out of memory"
        if task.failed and (ended := _end_in_words(task)):
            return f": task {name}: {ended}"
        if task.failed and task.signal:
            return f": task {name} was killed by signal {task.signal}"
        if task.failed and task.exit_code is not None:
            return f": task {name} exited with {task.exit_code}"
    return f": {reason}" if reason else ""


def _end_in_words(task: TaskState) -> str:
    """How it ended, or why it never started, as its agent says it; empty where that is too long ago."""
    return next((event.message for event in reversed(task.events) if event.type in _ENDS), "")
