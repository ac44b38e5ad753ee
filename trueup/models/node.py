"""A node: one machine with an agent, as the agent reports it and as git's policy colours it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from trueup.models.codec import Model
from trueup.models.ids import NodeId
from trueup.models.remembered import remembered
from trueup.models.template import NodePolicy
from trueup.models.units import Bytes, Millicores

NodeStatus = Literal["ready", "down", "disconnected", "incompatible"]


class NodeResources(Model, frozen=True, kw_only=True):
    """What a node gives to tasks."""

    cpu_millicores: Millicores = msgspec.field(name="cpu", default=Millicores(0))
    memory_bytes: Bytes = msgspec.field(name="memory", default=Bytes(0))


class NodeUse(Model, frozen=True, kw_only=True):
    """What is in use on a machine, by whomever, as its agent measured it last; the disk is its data folder's."""

    cpu_millicores: Millicores = msgspec.field(name="cpu", default=Millicores(0))
    memory_bytes: Bytes = msgspec.field(name="memory", default=Bytes(0))
    disk_bytes: Bytes = msgspec.field(name="disk", default=Bytes(0))
    disk_free_bytes: Bytes = msgspec.field(name="disk_free", default=Bytes(0))


class Drain(Model, frozen=True, kw_only=True):
    """A drain under way, from the Node document."""

    started_at: datetime
    deadline_at: datetime


class DriverState(Model, frozen=True, kw_only=True):
    """One driver of a node: *healthy* False with the *detail* to act on."""

    healthy: bool = True
    detail: str = ""
    attributes: dict[str, str] = {}


class Node(Model, frozen=True, kw_only=True, dict=True, gc=True):
    """A node as stored. Its last heartbeat is no part of it: a beat without news writes nothing."""

    id: NodeId
    name: str
    region: str = "global"
    status: NodeStatus = "ready"
    eligible: bool = True
    drain: Drain | None = None
    lost: bool = False
    declared: bool = False
    endpoint: str = ""
    resources: NodeResources = NodeResources()
    attributes: dict[str, str] = {}
    reported_labels: dict[str, str] = {}
    labels: dict[str, str] = {}
    drivers: dict[str, DriverState] = {}
    volumes: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    boot_id: str = ""
    machine_id: str = ""
    folder: str = ""
    incarnation: int = 0
    protocol: int = 1
    registered_at: datetime
    status_changed_at: datetime


def with_policy(node: Node, policy: NodePolicy | None, now: datetime) -> Node:
    """*node* as git's policy has it; a drain keeps its first start while its document stays."""
    if policy is None:
        return msgspec.structs.replace(
            node, eligible=True, drain=None, lost=False, declared=False, labels=node.reported_labels
        )
    drain = None
    if policy.drain is not None:
        started = node.drain.started_at if node.drain is not None else now
        drain = Drain(started_at=started, deadline_at=started + policy.drain.deadline)
    return msgspec.structs.replace(
        node,
        eligible=policy.eligible and drain is None and not policy.lost,
        drain=drain,
        lost=policy.lost,
        declared=True,
        labels={**node.reported_labels, **policy.labels},
    )


@remembered
def attributes_of(node: Node) -> Mapping[str, str]:
    """All attributes a constraint can name: `node.name`, `node.labels.disk`, `node.attributes.arch`, …"""
    found = {"node.name": node.name, "node.id": node.id, "node.region": node.region}
    found |= {f"node.labels.{key}": value for key, value in node.labels.items()}
    found |= {f"node.attributes.{key}": value for key, value in node.attributes.items()}
    for name, driver in node.drivers.items():
        found[f"node.drivers.{name}"] = "true" if driver.healthy else "false"
        found |= {f"node.drivers.{name}.{key}": value for key, value in driver.attributes.items()}
    return found
