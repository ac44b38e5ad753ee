"""How well a node suits a placement: parts of a score, each from -1 to 1, averaged over those that apply.

The first part asks what `placement` wants: *binpack* prefers the node that is fullest afterwards in the scarcer of
cpu and memory while leaving the two in proportion, *spread* the emptiest. Source: Nomad's rank iterators; the
proportion follows the measured *least stranded* score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.feasibility import meets
from trueup.models.fit import Demand, NodeUsage
from trueup.models.job import Affinity, Constraint, Job, Spread, TaskGroup
from trueup.models.node import Node, attributes_of
from trueup.models.template import ClusterSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """What a group prefers, gathered once for all of its placements."""

    demand: Demand
    spread_out: bool
    count: int
    affinities: tuple[Affinity, ...]
    spreads: tuple[Spread, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhood:
    """What is around a candidate: *twins* of the same group on the node, *by_value* the group's allocations for
    each spread attribute and value, *avoided* whether an earlier attempt failed there.
    """

    twins: int
    by_value: Mapping[str, Mapping[str, int]]
    avoided: bool


def preferences_of(job: Job, group: TaskGroup, demand: Demand, settings: ClusterSettings) -> Preferences:
    """What *group* prefers."""
    return Preferences(
        demand=demand,
        spread_out=settings.placement == "spread",
        count=max(group.count, 1),
        affinities=(*job.affinities, *group.affinities),
        spreads=(*job.spreads, *group.spreads),
    )


def score(node: Node, used: NodeUsage, wanted: Preferences, around: Neighbourhood) -> float:
    """The mean of the parts that apply, from -1 (worst) to 1."""
    parts = [_room(node, used, wanted)]
    if around.twins and wanted.count > 1:
        parts.append(-(around.twins + 1) / wanted.count if around.twins < wanted.count else -1.0)
    if around.avoided:
        parts.append(-1.0)
    if wanted.affinities:
        parts.append(_affinity(node, wanted.affinities))
    if wanted.spreads:
        parts.append(_spread(node, wanted, around))
    return round(sum(parts) / len(parts), 6)


def _room(node: Node, used: NodeUsage, wanted: Preferences) -> float:
    cpu = (used.cpu_millicores + wanted.demand.cpu_millicores) / max(node.resources.cpu_millicores, 1)
    memory = (used.memory_bytes + wanted.demand.memory_bytes) / max(node.resources.memory_bytes, 1)
    if wanted.spread_out:
        return 1 - (cpu + memory) / 2
    return (cpu + memory) / 2 - abs(cpu - memory) / 2


def _affinity(node: Node, affinities: Sequence[Affinity]) -> float:
    attributes = attributes_of(node)
    total = sum(abs(one.weight) for one in affinities)
    met = sum(one.weight for one in affinities if meets(_as_constraint(one), attributes))
    return met / total if total else 0.0


def _as_constraint(affinity: Affinity) -> Constraint:
    return Constraint(attribute=affinity.attribute, operator=affinity.operator, value=affinity.value)


def _spread(node: Node, wanted: Preferences, around: Neighbourhood) -> float:
    attributes = attributes_of(node)
    total_weight = sum(abs(one.weight) for one in wanted.spreads) or 1
    total = 0.0
    for one in wanted.spreads:
        value = attributes.get(one.attribute)
        if value is None:
            total -= abs(one.weight)
            continue
        total += one.weight * boost(one, value, around.by_value.get(one.attribute, {}), wanted.count)
    return total / total_weight


def boost(spread: Spread, value: str, there: Mapping[str, int], count: int) -> float:
    """How much a spread wants one more at *value*, from -1 to 1, given how many of the group are *there* by value."""
    held = there.get(value, 0)
    if not spread.targets:
        return max(-1.0, min(1.0, _evenness(held, there)))
    aim = count * spread.targets.get(value, _left_over(spread)) / 100
    return max(-1.0, min(1.0, (aim - held - 1) / aim if aim else -1.0))


def _left_over(spread: Spread) -> int:
    return max(0, 100 - sum(spread.targets.values()))


def _evenness(held: int, there: Mapping[str, int]) -> float:
    if not there:
        return 0.0
    least, most = min(there.values()), max(there.values())
    if held == least == most:
        return -1.0 if held else 0.0
    if held == least:
        return 1.0
    return (least - held) / max(least, 1)
