"""A node joins or comes back: what its registration changes in the store.

Everything comes in one transaction with the node's being ready, so that nothing is decided about a node whose tasks
are not yet known.
"""

from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from metastore.reports import adopted, event_of, report_of, reported, silent_report
from metastore.transaction import StoreTransaction
from trueup.models.allocation import Allocation
from trueup.models.evaluation import Event
from trueup.models.node import Node, NodeStatus, with_policy
from trueup.models.state import ClusterState
from trueup.models.wire import PROTOCOL, Holding, RegisterRequest

_NEAR_PROTOCOLS: Final = range(PROTOCOL - 1, PROTOCOL + 2)
"""Releases one apart work together."""
_ADVICE: Final = (
    "if this data folder is a copy, remove it here and start the agent with another --name; if it was moved, it is "
    "let in once the node has been silent for a deadline"
)
_MOST: Final = 2**52
"""What an agent may say of epochs and indexes: beyond it not every reader of JSON counts exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """A registration, and the node as it will be. *known_index* is how far this store was when agents last heard it."""

    request: RegisterRequest
    node: Node
    now: datetime
    known_index: int


def clone_conflict(known: Node, request: RegisterRequest, *, still_beats: bool) -> str | None:
    """Why *request* cannot be of the living node *known*; None if it can.

    A copied data folder has the same id and secret. A lower incarnation is an agent of the past; another machine,
    another folder on the same boot, or another boot at another address is a copy. The same address may have rebooted
    faster than its deadline, but not faster than it beats: *still_beats* says that it was heard only just now.
    """
    if request.incarnation < known.incarnation:
        return f"node {known.name} ({known.id}) is alive, and its agent was started later than this one"
    is_moved = _differ(request.machine_id, known.machine_id)
    if request.boot_id != known.boot_id:
        is_moved |= still_beats or _host(request.endpoint) != _host(known.endpoint)
    elif not is_moved and _differ(request.folder, known.folder):
        return f"node {known.name} ({known.id}) is alive with another data folder of this machine; {_ADVICE}"
    return f"node {known.name} ({known.id}) is alive on another machine; {_ADVICE}" if is_moved else None


def status_of(protocol: int) -> NodeStatus:
    """What a node that is heard is: work may go to it if it speaks nearly as we do."""
    return "ready" if protocol in _NEAR_PROTOCOLS else "incompatible"


def node_of(request: RegisterRequest, state: ClusterState, peer: str, now: datetime) -> Node:
    """The node that registers, as git's policy has it. What is known of it stays where nothing is said."""
    known = state.nodes.get(request.node_id)
    status = status_of(request.protocol)
    since = now if known is None or known.status != status else known.status_changed_at
    node = Node(
        id=request.node_id,
        name=request.name,
        region=request.region,
        status=status,
        drain=None if known is None else known.drain,
        endpoint=_endpoint(request.endpoint, peer),
        resources=request.resources,
        attributes=request.attributes,
        reported_labels=request.labels,
        labels=request.labels,
        drivers=request.drivers,
        volumes=request.volumes,
        secrets=request.secrets,
        boot_id=request.boot_id,
        machine_id=request.machine_id,
        folder=request.folder,
        incarnation=request.incarnation,
        protocol=request.protocol,
        registered_at=now if known is None else known.registered_at,
        status_changed_at=since,
    )
    return with_policy(node, state.node_policies.get(request.name), now)


def enter(tx: StoreTransaction, entrance: Entrance) -> None:
    """Puts the node, takes over its name's earlier holder, and takes in all it holds. A repeat puts nothing new."""
    request, node, now = entrance.request, entrance.node, entrance.now
    is_foreign = remembers_another(request, tx.state, entrance.known_index)
    if is_foreign:
        _remember(tx, request)
    _inherit(tx, node)
    known = tx.state.nodes.get(node.id)
    if known != node:
        tx.put_node(node)
        _tell(tx, known, node, now)
    for holding in request.allocations:
        _take_holding(tx, holding, entrance, is_foreign=is_foreign)
    orphans = frozenset(request.orphans)
    for held in tx.state.allocations_on_node(node.id):
        if held.client_status == "unknown":
            tx.put_allocation(reported(held, silent_report(held), tx.state, now))
        elif held.client_status == "lost" and held.id in orphans:
            _put(tx, held, reported(held, silent_report(held), tx.state, now), now)


def remembers_another(request: RegisterRequest, state: ClusterState, known_index: int) -> bool:
    """Whether the agent remembers another store than this one, or this one as it was before a backup was put back."""
    if request.epoch == 0:
        return False
    other_store = bool(request.cluster_id) and request.cluster_id != state.cluster_id
    return other_store or request.epoch != state.epoch or request.index > known_index


def _remember(tx: StoreTransaction, request: RegisterRequest) -> None:
    """The store goes on beyond what the agent saw of another end, so that what is decided now counts as newer."""
    if tx.state.revision is None:
        tx.set_inherited()
        if tx.state.epoch <= request.epoch < _MOST:
            tx.set_epoch(request.epoch + 1)
    remembered = max([request.index, *(holding.epoch for holding in request.allocations)])
    if remembered < _MOST:
        tx.skip_index(remembered)


def _inherit(tx: StoreTransaction, node: Node) -> None:
    """A new id takes a name over with all its allocations: its earlier holder is silent, or it would be refused."""
    earlier = tx.state.node_named(node.name)
    if earlier is None or earlier.id == node.id:
        return
    for held in tx.state.allocations_on_node(earlier.id):
        tx.put_allocation(msgspec.structs.replace(held, node_id=node.id))
    tx.drop_node(earlier.id)


def _tell(tx: StoreTransaction, known: Node | None, node: Node, now: datetime) -> None:
    if node.status == "incompatible" and (known is None or known.status != node.status):
        what = f"speaks protocol {node.protocol}, we {PROTOCOL}; bring agent and server to releases one minor apart"
        tx.put_event(_node_event("NodeIncompatible", f"node {node.name} {what}", node, now))
    elif known is None:
        tx.put_event(_node_event("NodeRegistered", f"node {node.name} joined", node, now))
    elif known.status != node.status:
        tx.put_event(_node_event("NodeReady", f"node {node.name} is back", node, now))


def _node_event(kind: str, message: str, node: Node, now: datetime) -> Event:
    return Event(at=now, type=kind, message=message, node=node.name)


def _take_holding(tx: StoreTransaction, holding: Holding, entrance: Entrance, *, is_foreign: bool) -> None:
    held = tx.state.allocations.get(holding.id)
    if held is not None and held.node_id == entrance.node.id:
        after = reported(held, report_of(holding), tx.state, entrance.now)
    elif held is None and is_foreign:
        after = adopted(holding, entrance.node, tx.state, entrance.now)
    else:
        return
    _put(tx, held, after, entrance.now)


def _put(tx: StoreTransaction, before: Allocation | None, after: Allocation, now: datetime) -> None:
    if after is not before:
        tx.put_allocation(after)
        event = event_of(before, after, now)
        if event is not None:
            tx.put_event(event)


def _endpoint(endpoint: str, peer: str) -> str:
    """Where the agent is reached: at the address it came from, if it names none that others can dial.

    Nowhere, if it listens on loopback and came from another machine: whoever listens there here would be shown its
    secret.
    """
    parts = urlsplit(endpoint)
    try:
        # A listener for both families shows IPv4 peers as mapped.
        named, came_from = ip_address(parts.hostname or ""), ip_address(peer.removeprefix("::ffff:"))
    except ValueError:
        return endpoint
    if named.is_loopback and not came_from.is_loopback:
        return ""
    if not named.is_unspecified:
        return endpoint
    host = f"[{peer}]" if ":" in peer else peer
    return urlunsplit(parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host))


def _differ(one: str, other: str) -> bool:
    """Whether both are known and not the same."""
    return bool(one and other) and one != other


def _host(endpoint: str) -> str:
    """The host others dial; empty where there is none, which loopback is to them."""
    host = urlsplit(endpoint).hostname or ""
    try:
        return "" if ip_address(host).is_loopback else host
    except ValueError:
        return host
