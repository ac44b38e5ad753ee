"""Under which addresses a service is found, and which services a group's tasks have to be told of. Pure.

An allocation is found while it is wanted, runs and is healthy: from the moment it is told to stop nobody is sent to
it any more, however long `shutdown_delay` lets its tasks run on.
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from trueup.models.allocation import Allocation
from trueup.models.job import Port, TaskGroup
from trueup.models.node import Node
from trueup.models.service import ServiceAddress
from trueup.models.state import ClusterState

_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104 - compared with, not bound to

Offer = tuple[str, ServiceAddress]
"""A service's name and one address of it."""


def group_of(state: ClusterState, held: Allocation) -> TaskGroup | None:
    """The group *held* runs, in its own version.

    That of what was adopted may not be known: then the job's newest is the best guess, and None if there is none.
    """
    version = state.versions.get((held.job, held.job_version)) or state.current_version(held.job)
    return None if version is None else version.job.group(held.group)


def offers_of(state: ClusterState, held: Allocation) -> tuple[Offer, ...]:
    """The services that are found at *held* now; none unless it is wanted, runs and is healthy."""
    if not (held.is_wanted and held.client_status == "running" and held.healthy):
        return ()
    group, node = group_of(state, held), state.nodes.get(held.node_id)
    if group is None or node is None:
        return ()
    ports = {port.name: port for port in group.ports}
    found = []
    for service in group.services:
        number, port = held.ports.get(service.port), ports.get(service.port)
        if number is not None and port is not None:
            address = ServiceAddress(
                host=_host(node, port),
                port=number,
                job=held.job,
                group=held.group,
                allocation=held.name,
                allocation_id=held.id,
                node=held.node,
                labels=service.labels,
            )
            found.append((service.name, address))
    return tuple(found)


def services_named(group: TaskGroup) -> frozenset[str]:
    """The services whose addresses tasks of *group* have in their files."""
    return frozenset(name for task in group.tasks for file in task.files for name in file.services)


def in_order(addresses: Iterable[ServiceAddress]) -> tuple[ServiceAddress, ...]:
    """The one order in which addresses of a service are shown and written."""
    return tuple(sorted(addresses, key=lambda one: (one.allocation, one.host, one.port, one.allocation_id)))


def _host(node: Node, port: Port) -> str:
    """What others dial: where the port is bound, else where the node's agent is reached, without which its name."""
    if port.bind not in _WILDCARDS:
        return port.bind
    return node.attributes.get("host_ip") or urlsplit(node.endpoint).hostname or node.name
