"""Why an allocation runs where it runs and nowhere else, as the planner would judge now: asked on demand for one. Pure.

It is judged as if it were placed anew with all else as it is. What was decided once may be judged otherwise today;
then this says so too, for what runs is not moved for a better score.
"""

from typing import Final

from reconciler.changes import Place
from reconciler.room import Room
from reconciler.search import Search
from reconciler.standing import Whereabouts
from trueup.models.allocation import Allocation
from trueup.models.state import ClusterState

_SAME: Final = 0.005
"""Scores are shown with two digits: what differs by less is as good."""


def whereabouts(state: ClusterState, allocation: Allocation) -> Whereabouts | None:
    """How all nodes stand to *allocation*; None if its version is not known any more."""
    version = state.versions.get((allocation.job, allocation.job_version))
    group = None if version is None else version.job.group(allocation.group)
    if version is None or group is None:
        return None
    others = state.copy()
    others.drop_allocation(allocation.id)
    is_pinned = version.job.type in {"system", "sysbatch"}
    place = Place(
        version=version,
        group=group,
        index=allocation.index,
        run=allocation.run,
        node_id=allocation.node_id if is_pinned else None,
    )
    search = Search(place, Room(others))
    score, parts = None, dict[str, float]()
    rest: list[tuple[str, float]] = []
    for points, row in search.standings(place):
        node = search.node_of(row)
        if node.id == allocation.node_id:
            score, parts = points, search.parts(row)
        else:
            rest.append((node.name, points))
    rest.sort(key=lambda one: (-one[1], one[0]))
    mine = 0.0 if score is None else score
    return Whereabouts(
        score=score,
        parts=parts,
        refused=dict(search.reasons(place)),
        lower=tuple(one for one in rest if one[1] < mine - _SAME),
        equal=tuple(one for one in rest if abs(one[1] - mine) <= _SAME),
        higher=tuple(one for one in rest if one[1] > mine + _SAME),
    )
