"""What would have to change for a group that found no room: asked for one job on demand, never while planning. Pure.

The reasons say why each node refuses (`feasibility`, `fit`); this says by how much, or what is there instead.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from reconciler.feasibility import check, constraints_of, meets
from trueup.models.allocation import Allocation
from trueup.models.fit import Demand, NodeUsage, demand_of, fits
from trueup.models.job import Constraint, Job, TaskGroup
from trueup.models.node import Node, attributes_of
from trueup.models.reasons import constraint_failed
from trueup.models.state import ClusterState
from trueup.models.units import format_cores, format_size

_LINES: Final = 3
"""How many different shortfalls, ports or values are told before the rest is counted together."""
_MIB: Final = 2**20


def remedies(state: ClusterState, name: str) -> list[str]:
    """Lines for each group of the job *name* that found no room, what is nearest first; empty if nothing is missing."""
    record, job = state.jobs.get(name), state.wanted_job(name)
    if record is None or job is None:
        return []
    waiting = {one.group for one in record.unplaced}
    nodes = sorted(state.nodes.values(), key=lambda node: node.name)
    return [
        line for group in job.groups if group.name in waiting for line in _of_group(state, job, group, nodes)
    ]


def _of_group(state: ClusterState, job: Job, group: TaskGroup, nodes: Sequence[Node]) -> Iterator[str]:
    demand = demand_of(group)
    able = [node for node in nodes if check(node, job, group, state.settings) is None]
    missing = Counter(
        found for node in able if (found := _missing(node, state.usage(node.id), demand)) != (0, 0)
    )
    yield from _shortfalls(missing)
    yield from _ports(state, [node for node in able if fits(node, state.usage(node.id), demand)], demand)
    refusing = [node for node in nodes if check(node, job, group, state.settings) is not None]
    for constraint in constraints_of(job, group):
        if not constraint.operator.startswith("distinct"):
            yield from _values(constraint, refusing)


def _missing(node: Node, used: NodeUsage, demand: Demand) -> tuple[int, int]:
    """How many millicores and bytes the node has too few."""
    cpu = used.cpu_millicores + demand.cpu_millicores - node.resources.cpu_millicores
    memory = used.memory_bytes + demand.memory_bytes - node.resources.memory_bytes
    return max(cpu, 0), max(memory, 0)


def _shortfalls(missing: Counter[tuple[int, int]]) -> Iterator[str]:
    nearest = sorted(missing.items(), key=lambda item: (bool(item[0][0]) + bool(item[0][1]), item[0]))
    for (cpu, memory), count in nearest[:_LINES]:
        words = [f"{format_cores(cpu)} cpu"] if cpu else []
        words += [f"{format_size(-(-memory // _MIB) * _MIB)} memory"] if memory else []
        yield f"{_nodes(count)} {'lacks' if count == 1 else 'lack'} {' and '.join(words)}"
    rest = sum(count for _, count in nearest[_LINES:])
    if rest:
        yield f"{_nodes(rest)} {'lacks' if rest == 1 else 'lack'} more"


def _ports(state: ClusterState, full: Sequence[Node], demand: Demand) -> Iterator[str]:
    held = [
        (port, holder)
        for node in full
        for holder in state.allocations_on_node(node.id)
        for port in demand.static_ports
        if holder.holds_resources and port in holder.ports.values()
    ]
    for port, holder in held[:_LINES]:
        yield f"port {port} of {holder.node} is held by {holder.name}{_going(holder)}"
    if len(held) > _LINES:
        yield f"and by {len(held) - _LINES} more on other nodes"


def _going(holder: Allocation) -> str:
    return "" if holder.is_wanted else ", which is stopping"


def _values(constraint: Constraint, refusing: Sequence[Node]) -> Iterator[str]:
    held = [attributes_of(node) for node in refusing]
    values = Counter(one.get(constraint.attribute) for one in held if not meets(constraint, one))
    if not values:
        return
    common = sorted(values.items(), key=lambda item: (-item[1], item[0] or ""))
    words = [
        f"{_nodes(count)} {'has' if count == 1 else 'have'} {'none' if value is None else value}"
        for value, count in common[:_LINES]
    ]
    rest = sum(count for _, count in common[_LINES:])
    if rest:
        words.append(f"{_nodes(rest)} {'has' if rest == 1 else 'have'} others")
    reason = constraint_failed(constraint.attribute, constraint.operator, constraint.value)
    yield f"{reason}: {', '.join(words)}"


def _nodes(count: int) -> str:
    return f"{count} {'node' if count == 1 else 'nodes'}"
