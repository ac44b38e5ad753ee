"""An allocation: one instance of a group on a node, what is wanted of it and what became of it.

`desired_status` belongs to the control plane, `client_status` and `tasks` to the agent; neither writes the other's.
"""

from datetime import datetime
from typing import Final, Literal

from trueup.models.codec import Model
from trueup.models.ids import AllocationId, DeploymentId, NodeId
from trueup.models.units import Bytes, Duration, Millicores

DesiredStatus = Literal["run", "stop", "evict"]
ClientStatus = Literal["pending", "running", "complete", "failed", "lost", "unknown"]
StopReason = Literal[
    "lost",
    "migrating",
    "updating",
    "rescheduled",
    "not needed",
    "preempted",
    "job removed",
    "suspended",
    "reverted",
]
TaskStatus = Literal["pending", "running", "dead"]

TERMINAL: Final[frozenset[ClientStatus]] = frozenset({"complete", "failed", "lost"})


class TaskEvent(Model, frozen=True, kw_only=True):
    """Something that happened to a task: `Started`, `Terminated`, `Restarting`, `Check failed`, …"""

    at: datetime
    type: str
    message: str = ""


class TaskState(Model, frozen=True, kw_only=True):
    """What the agent last reported of one task; the newest ten events.

    *image* is the reference that its container was made from, *image_id* what that was on its node then.
    """

    state: TaskStatus = "pending"
    failed: bool = False
    restarts: int = 0
    exit_code: int | None = None
    signal: int | None = None
    oom_killed: bool = False
    pid: int | None = None
    container_id: str = ""
    image: str = ""
    image_id: str = ""
    healthy: bool | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    events: tuple[TaskEvent, ...] = ()


class AllocatedResources(Model, frozen=True, kw_only=True):
    """What an allocation takes from its node: sums over its tasks (those that run together), and host ports."""

    cpu_millicores: Millicores = Millicores(0)
    memory_bytes: Bytes = Bytes(0)


class RescheduleEvent(Model, frozen=True, kw_only=True):
    """One earlier attempt of this name that failed, and how long the next had to wait."""

    at: datetime
    delay: Duration
    node_id: NodeId | None = None


class DeploymentState(Model, frozen=True, kw_only=True):
    """An allocation's part in a rollout: *healthy* None while it is not yet decided."""

    id: DeploymentId
    canary: bool = False
    healthy: bool | None = None
    at: datetime | None = None


class Allocation(Model, frozen=True, kw_only=True):
    """One allocation as stored. *epoch* grows with each replacement of a name (a fencing token).

    *preempts* are those that were evicted to make room for it: it starts once they have ended.
    """

    id: AllocationId
    name: str
    job: str
    group: str
    index: int
    run: datetime | None = None
    node_id: NodeId
    node: str
    job_version: int
    revision: str
    digest: str
    epoch: int = 0
    desired_status: DesiredStatus = "run"
    client_status: ClientStatus = "pending"
    reason: str = ""
    tasks: dict[str, TaskState] = {}
    ports: dict[str, int] = {}
    resources: AllocatedResources = AllocatedResources()
    healthy: bool | None = None
    deployment: DeploymentState | None = None
    reschedule_events: tuple[RescheduleEvent, ...] = ()
    unknown_since: datetime | None = None
    lost_at: datetime | None = None
    replaces: AllocationId | None = None
    replaced_by: AllocationId | None = None
    preempts: tuple[AllocationId, ...] = ()
    created_at: datetime
    modified_at: datetime

    @property
    def is_terminal(self) -> bool:
        """Whether its tasks have ended for good, as far as its agent knows or time has decided."""
        return self.client_status in TERMINAL

    @property
    def is_wanted(self) -> bool:
        """Whether it counts as the holder of its name."""
        return self.desired_status == "run"

    @property
    def holds_resources(self) -> bool:
        """Whether it takes room on its node: until its tasks have ended, whatever is wanted of it."""
        return not self.is_terminal


def allocation_name(job: str, group: str, index: int) -> str:
    """`job.group[index]`."""
    return f"{job}.{group}[{index}]"


def wanted_key(allocation: Allocation, *, per_node: bool) -> str | None:
    """The key that must be unique among what is wanted, or None if this one claims no name.

    A name is unique for service and batch, a name and node for system jobs, a name and run for scheduled ones.
    A canary shares the name of what it will replace, so it claims a key of its own.
    """
    if allocation.desired_status != "run" or allocation.client_status == "lost":
        return None
    parts = [allocation.name]
    if per_node:
        parts.append(f"node={allocation.node_id}")
    if allocation.run is not None:
        parts.append(f"run={allocation.run.isoformat()}")
    if allocation.deployment is not None and allocation.deployment.canary:
        parts.append("canary")
    return " ".join(parts)
