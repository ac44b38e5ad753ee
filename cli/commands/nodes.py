"""`trueup nodes`: the machines with an agent."""

from collections.abc import Callable

import click

from cli.blocks import Column, ago
from cli.listing import Listing, run
from cli.options import Command, output_option, watch_option
from cli.system import SystemClock
from cli.views import NodeUseView, NodeView
from trueup.models.units import format_size

_MIB = 1024**2


def drivers(node: NodeView) -> str:
    """The node's drivers; one that does not work is marked."""
    return ", ".join(
        name if held.healthy else f"{name} (broken)" for name, held in sorted(node.drivers.items())
    )


def trouble(node: NodeView) -> str:
    """What keeps drivers of the node from working, once for all it is the same for."""
    return "; ".join(
        dict.fromkeys(
            held.detail for _, held in sorted(node.drivers.items()) if not held.healthy and held.detail
        )
    )


def policy(node: NodeView) -> str:
    """What git says about the node, in words."""
    if node.lost:
        return "given up for lost"
    if node.drain is not None:
        return f"draining, at most {node.drain.deadline}"
    return "yes" if node.eligible else "no"


def used(show: Callable[[NodeUseView], str]) -> Callable[[NodeView], str]:
    """A column of what is in use; `-` where the node does not say."""
    return lambda node: "-" if node.used is None else show(node.used)


LISTING = Listing(
    path="/nodes",
    kind=NodeView,
    columns=(
        Column("NAME", lambda node: node.name),
        Column("STATUS", lambda node: node.status),
        Column("ELIGIBLE", policy),
        Column("REGION", lambda node: node.region),
        Column("CPU", lambda node: f"{node.resources.cpu:g}"),
        Column("MEMORY", lambda node: format_size(int(node.resources.memory * _MIB))),
        Column("DRIVERS", drivers),
        Column("SINCE", lambda node: ago(node.status_changed_at, SystemClock().now())),
        Column("ID", lambda node: node.id, wide=True),
        Column("CPU USED", used(lambda held: f"{held.cpu:.2f}"), wide=True),
        Column("MEMORY USED", used(lambda held: format_size(held.memory * _MIB)), wide=True),
        Column("DISK FREE", used(lambda held: format_size(held.disk_free * _MIB)), wide=True),
        Column(
            "LABELS",
            lambda node: " ".join(f"{key}={value}" for key, value in sorted(node.labels.items())),
            wide=True,
        ),
        Column("AGE KEY", lambda node: node.attributes.get("age.recipient", "-"), wide=True),
        Column("TROUBLE", trouble),
    ),
    name=lambda node: node.name,
    empty="no nodes: start an agent with `trueup agent --server URL`",
)


@click.command(cls=Command)
@click.option("--status", help="Only nodes with this status: ready, down, disconnected, incompatible.")
@output_option()
@watch_option()
def command(status: str | None, output: str, watch: bool) -> None:
    """List nodes, with what they offer and whether they get new work."""
    run(LISTING, output=output, stay=watch, status=status)
