"""The agent's side of the conversation, as plain as it gets: what it holds is what a test says."""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from metastore.membership import Membership
from metastore.store import SqlStore
from tests.builders import NOON, a_job, a_node, a_record, a_version, an_allocation
from trueup.models.allocation import Allocation, DesiredStatus
from trueup.models.ids import NodeId, RevisionId
from trueup.models.job import Job
from trueup.models.node import DriverState, NodeResources
from trueup.models.units import Bytes, Millicores
from trueup.models.wire import (
    AllocationUpdate,
    HeartbeatRequest,
    HeartbeatResponse,
    Holding,
    HoldingKey,
    RegisterRequest,
    RegisterResponse,
    holdings_digest,
)

NODE = NodeId("id-node-1")
"""The id of `node-1`."""


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = NOON

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return (self.moment - NOON).total_seconds()

    def move(self, **span: float) -> None:
        self.moment += timedelta(**span)


def a_request(name: str = "node-1", **fields: Any) -> RegisterRequest:
    """A node that holds nothing and never heard of anybody."""
    return RegisterRequest(
        node_id=NodeId(fields.pop("node_id", f"id-{name}")),
        name=name,
        endpoint=fields.pop("endpoint", "http://127.0.0.1:7431"),
        resources=NodeResources(cpu_millicores=Millicores(4000), memory_bytes=Bytes(2**33)),
        drivers=fields.pop("drivers", {"process": DriverState()}),
        boot_id=fields.pop("boot_id", "boot-1"),
        incarnation=fields.pop("incarnation", 1),
        **fields,
    )


def a_holding(allocation: Allocation, **fields: Any) -> Holding:
    """*allocation* as its agent holds it."""
    return Holding(
        id=allocation.id,
        name=allocation.name,
        job=allocation.job,
        group=allocation.group,
        index=allocation.index,
        run=allocation.run,
        version=allocation.job_version,
        revision=allocation.revision,
        digest=allocation.digest,
        epoch=allocation.epoch,
        client_status=fields.pop("client_status", allocation.client_status),
        tasks=allocation.tasks,
        healthy=allocation.healthy,
        created_at=allocation.created_at,
        **fields,
    )


class Talker:
    """One agent. `held` is what it holds; updates are told with the next beat."""

    def __init__(self, membership: Membership, name: str = "node-1", **fields: Any) -> None:
        self.membership = membership
        self.request = a_request(name, **fields)
        self.held: dict[str, HoldingKey] = {}
        self.secret = ""
        self.sequence = 0

    def join(self, **fields: Any) -> RegisterResponse:
        """Registers with the cluster token."""
        return self._register(joined=True, secret=None, **fields)

    def come_back(self, **fields: Any) -> RegisterResponse:
        """Registers with its own secret."""
        return self._register(joined=False, secret=self.secret, **fields)

    def beat(self, *updates: AllocationUpdate, holds: bool = False, **fields: Any) -> HeartbeatResponse:
        """One beat; with *holds* it says what it holds."""
        self.sequence += 1
        keys = tuple(self.held.values())
        return self.membership.heartbeat(
            HeartbeatRequest(
                node_id=self.request.node_id,
                incarnation=self.request.incarnation,
                sequence=fields.pop("sequence", self.sequence),
                updates=updates,
                holdings_digest=holdings_digest(keys),
                holdings=keys if holds else None,
                **fields,
            ),
            secret=fields.pop("secret", self.secret),
        )

    def settle(self, *updates: AllocationUpdate) -> HeartbeatResponse:
        """Beats, and again with all it holds if it is asked to."""
        answer = self.beat(*updates)
        return self.beat(holds=True) if answer.send_holdings else answer

    def hold(self, *allocations: Allocation) -> None:
        """Holds what it was handed."""
        for one in allocations:
            wanted: DesiredStatus = "run" if one.is_wanted else "stop"
            self.held[one.id] = HoldingKey(id=one.id, version=one.job_version, desired_status=wanted)

    def _register(self, *, joined: bool, secret: str | None, **fields: Any) -> RegisterResponse:
        self.sequence += 1
        self.request = msgspec.structs.replace(self.request, **{"sequence": self.sequence, **fields})
        answer = self.membership.register(self.request, joined=joined, secret=secret, peer="10.0.0.9")
        self.secret = answer.node_secret
        return answer


def an_update(allocation: Allocation, client_status: Any = "running", **fields: Any) -> AllocationUpdate:
    """What an agent tells of *allocation*."""
    fields.setdefault("tasks", allocation.tasks)
    fields.setdefault("healthy", allocation.healthy)
    return AllocationUpdate(id=allocation.id, client_status=client_status, **fields)


def place(store: SqlStore, job: Job | None = None, *, version: int = 1, **fields: Any) -> Allocation:
    """One allocation on node-1, as the executor would commit it: of `web`, and not started yet."""
    job = job or a_job()
    fields.setdefault("client_status", "pending")
    allocation = an_allocation(job, a_node(), version=version, **fields)
    with store.transaction() as tx:
        tx.put_version(a_version(job, version=version))
        tx.put_job(a_record(job, version=version))
        tx.put_allocation(allocation)
        tx.set_revision(RevisionId("r1"), None)
    return allocation


def stop(store: SqlStore, allocation: Allocation, reason: str = "not needed") -> None:
    """Wants the allocation no more."""
    held = store.state.allocations[allocation.id]
    with store.transaction() as tx:
        tx.put_allocation(msgspec.structs.replace(held, desired_status="stop", reason=reason))


def event_types(store: SqlStore) -> list[str]:
    """Types of all events, in order."""
    return [entry.value.type for entry in store.events(after=None, limit=1000)]
