"""Which work gives way where a more important job finds no room: as little as will do, the least important first. Pure.

Source: Nomad's preemptor: a priority lower by 10 at least, whoever comes closest to what is missing, and none that
proves to be needless afterwards.
"""

from collections.abc import Iterable
from math import sqrt
from typing import Final

import msgspec

from trueup.models.allocation import Allocation
from trueup.models.fit import Demand, NodeUsage, fits
from trueup.models.node import Node

PRIORITY_DELTA: Final = 10


class Holder(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What runs on a node, and how important its job is."""

    allocation: Allocation
    priority: int


def victims(
    node: Node, used: NodeUsage, demand: Demand, holders: Iterable[Holder], priority: int
) -> tuple[Holder, ...] | None:
    """Whose end would make room for *demand* on *node* beside *used*; None if nothing that may be evicted would."""
    left = used.copy()
    chosen: list[Holder] = []
    candidates = [one for one in holders if one.priority <= priority - PRIORITY_DELTA]
    for holder in sorted(candidates, key=lambda one: _order(one, node, left, demand)):
        if fits(node, left, demand) is None:
            break
        left.remove(holder.allocation)
        chosen.append(holder)
    if fits(node, left, demand) is not None:
        return None
    for holder in sorted(chosen, key=lambda one: (-one.priority, one.allocation.name, one.allocation.id)):
        left.add(holder.allocation)
        if fits(node, left, demand) is None:
            chosen.remove(holder)
        else:
            left.remove(holder.allocation)
    return tuple(chosen)


def cost(found: Iterable[Holder]) -> tuple[int, int, int]:
    """How bad an eviction is: by the most important victim, their number, and the sum of their priorities."""
    priorities = [one.priority for one in found]
    return (max(priorities, default=0), len(priorities), sum(priorities))


def _order(holder: Holder, node: Node, used: NodeUsage, demand: Demand) -> tuple[int, bool, float, str, str]:
    """Least important first; who holds a wanted port before others; then who comes closest to what is missing.

    Then by name: what a dry run places has other ids than what is placed then.
    """
    held = holder.allocation
    has_port = any(port in demand.static_ports for port in held.ports.values())
    cpu = used.cpu_millicores + demand.cpu_millicores - node.resources.cpu_millicores
    memory = used.memory_bytes + demand.memory_bytes - node.resources.memory_bytes
    distance = sqrt(
        _gap(held.resources.cpu_millicores, cpu) ** 2 + _gap(held.resources.memory_bytes, memory) ** 2
    )
    return (holder.priority, not has_port, distance, held.name, held.id)


def _gap(given: int, missing: int) -> float:
    return 0.0 if missing <= 0 else (missing - given) / missing
