"""The one fit function: does an allocation fit on a node, beside what is there already?

Planner, executor and agent ask the same question here, so that none of them accepts what another refuses.
Amounts are integers. Room is taken until an allocation's tasks have ended, whatever is wanted of it.
"""

from collections.abc import Iterable

import msgspec

from trueup.models.allocation import AllocatedResources, Allocation
from trueup.models.job import TaskGroup
from trueup.models.node import Node
from trueup.models.reasons import Reason, insufficient, port_taken
from trueup.models.remembered import remembered
from trueup.models.units import Bytes, Millicores

DYNAMIC_PORTS = range(20_000, 32_000)


class NodeUsage(msgspec.Struct, gc=False):
    """What is taken on a node: running totals, changed by `add` and `remove`, never recounted."""

    cpu_millicores: int = 0
    memory_bytes: int = 0
    ports: dict[int, int] = {}
    allocations: int = 0

    def add(self, allocation: Allocation) -> None:
        """Counts *allocation* in."""
        resources = allocation.resources
        self.cpu_millicores += resources.cpu_millicores
        self.memory_bytes += resources.memory_bytes
        self.allocations += 1
        if allocation.ports:
            for port in allocation.ports.values():
                self.ports[port] = self.ports.get(port, 0) + 1

    def remove(self, allocation: Allocation) -> None:
        """Counts *allocation* out again."""
        resources = allocation.resources
        self.cpu_millicores -= resources.cpu_millicores
        self.memory_bytes -= resources.memory_bytes
        self.allocations -= 1
        for port in allocation.ports.values():
            left = self.ports.get(port, 0) - 1
            if left > 0:
                self.ports[port] = left
            else:
                self.ports.pop(port, None)

    def copy(self) -> "NodeUsage":
        """An independent copy, for what-if."""
        return NodeUsage(self.cpu_millicores, self.memory_bytes, self.ports.copy(), self.allocations)


class Demand(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one allocation of a group asks of a node."""

    cpu_millicores: int
    memory_bytes: int
    static_ports: tuple[int, ...]
    dynamic_ports: int


@remembered
def demand_of(group: TaskGroup) -> Demand:
    """What one allocation of *group* takes: the sum over tasks that can run at once.

    Tasks that end before the main ones start (prestart) or start after they ended (poststop) take room only
    while the main ones do not: the larger of the two counts. Source: Nomad's allocated task lifecycle resources.
    """
    main_cpu = main_memory = other_cpu = other_memory = 0
    for task in group.tasks:
        alone = (
            task.lifecycle is not None and not task.lifecycle.sidecar and task.lifecycle.hook != "poststart"
        )
        if alone:
            other_cpu = max(other_cpu, task.resources.cpu_millicores)
            other_memory = max(other_memory, task.resources.memory_bytes)
        else:
            main_cpu += task.resources.cpu_millicores
            main_memory += task.resources.memory_bytes
    static = tuple(port.port for port in group.ports if port.port is not None) if group.ports else ()
    return Demand(
        cpu_millicores=max(main_cpu, other_cpu),
        memory_bytes=max(main_memory, other_memory),
        static_ports=static,
        dynamic_ports=len(group.ports) - len(static),
    )


@remembered
def allocated_resources(group: TaskGroup) -> AllocatedResources:
    """The amounts of `demand_of` as an allocation records them."""
    demand = demand_of(group)
    return AllocatedResources(
        cpu_millicores=Millicores(demand.cpu_millicores), memory_bytes=Bytes(demand.memory_bytes)
    )


def fits(node: Node, used: NodeUsage, demand: Demand) -> Reason | None:
    """None if *demand* fits on *node* beside *used*, else the first reason why not."""
    if used.cpu_millicores + demand.cpu_millicores > node.resources.cpu_millicores:
        return insufficient("cpu")
    if used.memory_bytes + demand.memory_bytes > node.resources.memory_bytes:
        return insufficient("memory")
    for port in demand.static_ports:
        if port in used.ports:
            return port_taken(port)
    taken = len(used.ports) + len(demand.static_ports)  # At most: some may be no dynamic ports.
    if taken + demand.dynamic_ports > len(DYNAMIC_PORTS) and assign_ports(used, demand) is None:
        return insufficient("dynamic ports")
    return None


def assign_ports(used: NodeUsage, demand: Demand, offset: int = 0) -> tuple[int, ...] | None:
    """The free dynamic ports that *demand* gets, searched upwards from *offset* and around; None if too few.

    The offset spreads successive holders, so that a port that was just given back is not handed out at once.
    """
    found: list[int] = []
    size = len(DYNAMIC_PORTS)
    for step in range(size):
        if len(found) == demand.dynamic_ports:
            break
        port = DYNAMIC_PORTS[(offset + step) % size]
        if port not in used.ports and port not in demand.static_ports:
            found.append(port)
    return tuple(found) if len(found) == demand.dynamic_ports else None


def usage_of(allocations: Iterable[Allocation]) -> NodeUsage:
    """The totals of *allocations* that still hold room."""
    used = NodeUsage()
    for allocation in allocations:
        if allocation.holds_resources:
            used.add(allocation)
    return used
