"""What `diff` says should change for one job: values, with no node chosen yet."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from trueup.models.allocation import Allocation, RescheduleEvent, StopReason, allocation_name
from trueup.models.deployment import Deployment
from trueup.models.ids import DeploymentId, NodeId
from trueup.models.job import TaskGroup
from trueup.models.record import JobVersion


class Stop(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An allocation to end, and why."""

    allocation: Allocation
    reason: StopReason


class Place(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An allocation to place.

    *stop* goes only together with this placement. *coupled* says that the stop makes the room: the old one's
    resources and ports count as free on its own node. *node_id* pins a system job's node.
    """

    version: JobVersion
    group: TaskGroup
    index: int
    run: datetime | None = None
    stop: Stop | None = None
    coupled: bool = False
    canary: bool = False
    deployment: DeploymentId | None = None
    node_id: NodeId | None = None
    avoid_nodes: frozenset[NodeId] = frozenset()
    reschedule_events: tuple[RescheduleEvent, ...] = ()

    @property
    def name(self) -> str:
        """`job.group[index]`."""
        return allocation_name(self.version.job.name, self.group.name, self.index)


class GroupChanges(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One group's changes. *destructive_total* is the whole rollout, *destructive* what this pass does of it."""

    place: tuple[Place, ...] = ()
    stop: tuple[Stop, ...] = ()
    in_place: tuple[Allocation, ...] = ()
    destructive: tuple[Place, ...] = ()
    destructive_total: int = 0
    migrate: tuple[Place, ...] = ()
    canary: tuple[Place, ...] = ()
    ignore: int = 0


class Changes(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One job's changes in one pass.

    *updates* are allocations whose bookkeeping changes (health in a deployment, a canary that was promoted).
    *reverts_to* is the version that a failed rollout goes back to, from the next pass on, and *reverts_because* why.
    *ran_at* is set when a scheduled run begins or is skipped. *next_look* is when time alone may change the answer.
    *waits_for* names what holds a first start back.
    """

    job: str
    version: JobVersion | None
    groups: dict[str, GroupChanges] = {}
    deployments: tuple[Deployment, ...] = ()
    updates: tuple[Allocation, ...] = ()
    stable_version: int | None = None
    reverts_to: int | None = None
    reverts_because: str = ""
    ran_at: datetime | None = None
    waits_for: tuple[str, ...] = ()
    next_look: datetime | None = None


def earliest(moments: Sequence[datetime | None]) -> datetime | None:
    """The first of those that are set, or None."""
    return min((moment for moment in moments if moment is not None), default=None)
