"""What the control plane and agents say to each other. Both ignore fields they do not know.

Amounts in `resources` are cores and bytes in text form, as everywhere. Secrets travel in the `Authorization`
header (`Bearer …`), never in a body, save the one answer that hands a node its own.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime

from trueup.models.allocation import Allocation, ClientStatus, DesiredStatus, TaskState
from trueup.models.codec import Model
from trueup.models.ids import AllocationId, NodeId
from trueup.models.job import JobType, TaskGroup
from trueup.models.log_order import LogOrder
from trueup.models.node import DriverState, NodeResources, NodeUse
from trueup.models.service import ServiceNews
from trueup.models.units import Duration

PROTOCOL = 1


class Assignment(Model, frozen=True, kw_only=True):
    """An allocation to run, with all an agent needs to run it. A repeat with a newer version updates in place."""

    allocation: Allocation
    job_type: JobType
    group: TaskGroup
    min_healthy_time: Duration


class StopOrder(Model, frozen=True, kw_only=True):
    """An allocation to end gracefully, and why."""

    id: AllocationId
    reason: str = ""


class Holding(Model, frozen=True, kw_only=True):
    """One allocation an agent holds, with enough to adopt it should the control plane have lost its store."""

    id: AllocationId
    name: str
    job: str
    group: str
    index: int
    run: datetime | None = None
    version: int
    revision: str
    digest: str
    epoch: int = 0
    desired_status: DesiredStatus = "run"
    client_status: ClientStatus = "pending"
    healthy: bool | None = None
    tasks: dict[str, TaskState] = {}
    ports: dict[str, int] = {}
    created_at: datetime


class HoldingKey(Model, frozen=True, kw_only=True):
    """The part of a holding that the digest covers."""

    id: AllocationId
    version: int
    desired_status: DesiredStatus


class AllocationUpdate(Model, frozen=True, kw_only=True):
    """What changed of one allocation since the last heartbeat that was answered."""

    id: AllocationId
    client_status: ClientStatus
    tasks: dict[str, TaskState] = {}
    healthy: bool | None = None
    reason: str = ""


class RegisterRequest(Model, frozen=True, kw_only=True):
    """A node makes itself known. *epoch*, *index* and *cluster_id* are what it last heard (0 and empty: nothing).

    *sequence* counts the agent's messages since its start, beats among them: an older one that comes late is known.
    *orphans* run there without a record of the agent's: its data were lost. *machine_id* is empty where none is known,
    *folder* tells the agent's data folder from a copy on the same machine.
    """

    node_id: NodeId
    name: str
    region: str = "global"
    endpoint: str = ""
    resources: NodeResources
    attributes: dict[str, str] = {}
    labels: dict[str, str] = {}
    drivers: dict[str, DriverState] = {}
    volumes: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    protocol: int = PROTOCOL
    boot_id: str = ""
    machine_id: str = ""
    folder: str = ""
    incarnation: int = 0
    sequence: int = 0
    cluster_id: str = ""
    epoch: int = 0
    index: int = 0
    allocations: tuple[Holding, ...] = ()
    orphans: tuple[AllocationId, ...] = ()


class RegisterResponse(Model, frozen=True, kw_only=True):
    """The node's own secret for heartbeats and pushes, and the rhythm to keep."""

    node_secret: str
    cluster_id: str
    epoch: int
    index: int
    adopting: bool = False
    heartbeat_seconds: float
    deadline_seconds: float


class HeartbeatRequest(Model, frozen=True, kw_only=True):
    """One beat. *holdings* only when the last answer asked for it; *updates* then tell of all that is held.

    *services* is the version of the addresses of services the agent keeps, as it was told; empty: it keeps none.
    *brings_logs*: the agent does what `logs` and `listen` of the answer say.
    *used* is None where it is not measured (yet).
    """

    node_id: NodeId
    incarnation: int
    sequence: int
    used: NodeUse | None = None
    drivers: dict[str, DriverState] = {}
    updates: tuple[AllocationUpdate, ...] = ()
    holdings_digest: str
    holdings: tuple[HoldingKey, ...] | None = None
    services: str = ""
    brings_logs: bool = False


class HeartbeatResponse(Model, frozen=True, kw_only=True):
    """What to do next. *send_holdings*: the digests differ, beat again at once with the holdings.

    *forget*: allocations that ended and that the server will never start again; their tombstones may go. *services*:
    addresses that tasks of the node need and the agent does not have yet; None: no news. *logs*: output to bring.
    *listen*: the agent cannot be reached, and is to wait at `/listen` for what comes before its next beat.
    """

    epoch: int
    index: int
    adopting: bool = False
    heartbeat_seconds: float
    deadline_seconds: float
    send_holdings: bool = False
    start: tuple[Assignment, ...] = ()
    stop: tuple[StopOrder, ...] = ()
    forget: tuple[AllocationId, ...] = ()
    services: ServiceNews | None = None
    logs: tuple[LogOrder, ...] = ()
    listen: bool = False


def holdings_digest(holdings: Iterable[HoldingKey]) -> str:
    """SHA-256 (hexadecimal) over one line `id version desired_status` an allocation, sorted by id.

    Only allocations whose tasks have not ended are in it: on the agent as it reports them in the same message,
    on the server after it took that message's updates in.
    """
    lines = sorted(f"{held.id} {held.version} {held.desired_status}\n" for held in holdings)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
