"""What a change in place leaves where it is, and what no longer fits there. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence

from reconciler.feasibility import check_staying, constraints_of
from reconciler.job_state import JobState, is_of_version
from reconciler.rules import Verdict
from trueup.models.allocation import Allocation
from trueup.models.ids import AllocationId
from trueup.models.job import Constraint, TaskGroup
from trueup.models.node import attributes_of
from trueup.models.record import JobVersion


def misplaced(
    actual: JobState, version: JobVersion, group: TaskGroup, staying: Sequence[Verdict]
) -> frozenset[AllocationId]:
    """Those of *staying* that *version* would not have where they are: they are replaced, by the rollout's pace.

    Of those that may no longer be together the ones that have the version already stay, then the lowest indexes.
    """
    order = sorted(
        (one.allocation for one in staying),
        key=lambda held: (not is_of_version(actual, version, held), held.index),
    )
    alone = {held.id for held in order if not _fits(actual, version, group, held)}
    together = {
        held.id
        for constraint in constraints_of(version.job, group)
        if constraint.operator.startswith("distinct")
        for held in _too_many(actual, constraint, [one for one in order if one.id not in alone])
    }
    return frozenset(alone | together)


def _fits(actual: JobState, version: JobVersion, group: TaskGroup, held: Allocation) -> bool:
    node = actual.nodes.get(held.node_id)
    if node is None or node.status != "ready":
        return True
    return check_staying(node, version.job, group, actual.settings) is None


def _too_many(actual: JobState, constraint: Constraint, order: Sequence[Allocation]) -> Iterator[Allocation]:
    """What is more than the constraint allows at one value; *order* begins with what should stay."""
    by_host = constraint.operator == "distinct_hosts"
    limit = int(constraint.value) if not by_host and constraint.value.isdigit() else 1
    there: Counter[str] = Counter()
    for held in order:
        node = actual.nodes.get(held.node_id)
        if node is None:
            continue
        value = held.node_id if by_host else attributes_of(node).get(constraint.attribute)
        if value is not None:
            there[value] += 1
        if value is None or there[value] > limit:
            yield held
