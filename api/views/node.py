"""The form of a node's answer. What fills it is `trueup.models.state_document`, one with STATE.json."""

from datetime import datetime

import msgspec

from trueup.models.node import NodeStatus


class DrainView(msgspec.Struct, frozen=True, kw_only=True):
    """A drain under way."""

    deadline: str
    started_at: datetime


class NodeResourcesView(msgspec.Struct, frozen=True, kw_only=True):
    """What a node gives to tasks: cores and MiB."""

    cpu: int | float
    memory: int


class NodeUseView(msgspec.Struct, frozen=True, kw_only=True):
    """What is in use on a node by its newest heartbeat, by whomever: cores and MiB; the disk is its data folder's."""

    cpu: int | float
    memory: int
    disk: int
    disk_free: int


class DriverView(msgspec.Struct, frozen=True, kw_only=True):
    """One driver of a node; *detail* says what to do where it is not healthy."""

    healthy: bool
    detail: str
    attributes: dict[str, str]


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One machine with an agent. *labels*: those it reported, and its document's; *secrets* are names, never values.

    *used* is null while the node is silent or does not say; it comes with each beat and moves no index.
    """

    id: str
    name: str
    region: str
    status: NodeStatus
    eligible: bool
    lost: bool
    declared: bool
    drain: DrainView | None
    resources: NodeResourcesView
    used: NodeUseView | None
    attributes: dict[str, str]
    labels: dict[str, str]
    reported_labels: dict[str, str]
    drivers: dict[str, DriverView]
    volumes: tuple[str, ...]
    secrets: tuple[str, ...]
    status_changed_at: datetime
