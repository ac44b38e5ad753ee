"""Nodes, and the secret each was given: a table of its own, so that nothing that shows a node can leak it."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Final

import sqlalchemy as sa

from metastore.kinds import Kind, upsert
from metastore.schema import METADATA, entity_table, text_column
from trueup.models.ids import NodeId
from trueup.models.node import Node

NODES: Final[Kind[NodeId, Node]] = Kind(
    name="node",
    table=entity_table("nodes", text_column("id"), text_column("name"), unique=("id",)),
    model=Node,
    key_of=attrgetter("id"),
    key_names=("id",),
    held=attrgetter("nodes"),
    put=lambda state, node: state.nodes.__setitem__(node.id, node),
    drop=lambda state, node_id: state.nodes.__delitem__(node_id),
    row=lambda node, _state: (node.id, node.name),
)

NODE_SECRETS: Final = sa.Table(
    "node_secrets",
    METADATA,
    sa.Column("node_id", sa.Text, primary_key=True),
    text_column("secret"),
)


def load_secrets(connection: sa.Connection) -> dict[NodeId, str]:
    """Every node's secret."""
    return {NodeId(node_id): secret for node_id, secret in connection.execute(sa.select(NODE_SECRETS))}


def write_secrets(connection: sa.Connection, staged: Mapping[NodeId, str | None]) -> None:
    """Writes secrets; None forgets one."""
    for node_id, secret in staged.items():
        if secret is None:
            connection.execute(sa.delete(NODE_SECRETS).where(NODE_SECRETS.c.node_id == node_id))
        else:
            connection.execute(upsert(NODE_SECRETS, ("node_id",)), {"node_id": node_id, "secret": secret})
