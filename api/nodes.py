"""`/nodes`: the machines with an agent."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from api.ask import Ask
from api.paging import Page, page_of
from api.problems import not_found
from api.routing import PAGING, Route, by_status
from api.views.node import NodeView
from trueup.models.ids import NodeId
from trueup.models.node import Node, NodeStatus, NodeUse
from trueup.models.state_document import node_document
from trueup.models.units import format_cores

_MIB: Final = 1024**2
NODE_STATUSES: Final[tuple[str, ...]] = get_args(NodeStatus)


def list_nodes(ask: Ask) -> Page[NodeView]:
    """All nodes by name."""
    status = ask.choice("status", NODE_STATUSES)
    return page_of(
        (node for node in ask.state.nodes.values() if status is None or node.status == status),
        key=lambda node: (node.name, node.id),
        cursor=ask.cursor,
        limit=ask.limit,
        show=lambda node: _shown(ask, node),
    )


def show_node(ask: Ask, id_or_name: str) -> object:
    """One node, by id or by name."""
    node = ask.state.nodes.get(NodeId(id_or_name)) or ask.state.node_named(id_or_name)
    if node is None:
        raise not_found(f"there is no node {id_or_name!r}; /nodes lists those there are")
    return _shown(ask, node)


def _shown(ask: Ask, node: Node) -> Mapping[str, Any]:
    """The node as STATE.json has it, and what is in use there: that is kept beside the store, and not in that file."""
    used = ask.deps.node_use(node.id)
    return {**node_document(node), "used": None if used is None else _use_document(used)}


def _use_document(used: NodeUse) -> Mapping[str, Any]:
    return {
        "cpu": format_cores(used.cpu_millicores),
        "memory": used.memory_bytes // _MIB,
        "disk": used.disk_bytes // _MIB,
        "disk_free": used.disk_free_bytes // _MIB,
    }


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/nodes",
        handler=list_nodes,
        about="All nodes by name.",
        answer=Page[NodeView],
        parameters=(by_status(NODE_STATUSES), *PAGING),
        waits=True,
    ),
    Route(
        path="/nodes/<id_or_name>",
        handler=show_node,
        about="One node, by id or name.",
        answer=NodeView,
        waits=True,
    ),
)
