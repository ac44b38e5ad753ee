"""What a committed transaction tells those who wait: names of what changed, and the pushes it made due."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from trueup.models.ids import AllocationId, NodeId

PushKind = Literal["start", "stop"]


class OutboxEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A push that is due: made in the transaction of the plan, gone once the node took it."""

    number: int
    node_id: NodeId
    allocation_id: AllocationId
    kind: PushKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a transaction changed, for those who wait: names only, never the event itself.

    *jobs* had their record, a version, an allocation or a deployment changed; *nodes* their own record; *allocations*
    themselves. *outbox* are the nodes with new pushes. *room_freed*: something that found no room before may find it
    now.
    """

    index: int
    jobs: frozenset[str]
    nodes: frozenset[NodeId]
    outbox: frozenset[NodeId]
    room_freed: bool
    allocations: frozenset[AllocationId] = frozenset()
