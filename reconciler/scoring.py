"""How well nodes suit a group: a sum of parts, the higher the better, of all nodes at once or of one.

The first part is how well their room suits it (`packing`). The others are a soft distance from others of the group (the
share of the group that would be lost with the node), affinities, spreads, and nodes where an earlier attempt failed.
The same operations in the same order make the score of one node and of all, so that both are equal to the last bit.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from reconciler.columns import Column
from reconciler.node_table import NodeTable
from reconciler.packing import Packing
from reconciler.spreading import Spreading
from trueup.models.fit import NodeUsage
from trueup.models.job import Affinity, Job, TaskGroup

_TWINS: Final = 1.0
_PART: Final = 2.0
"""What an affinity, a spread or an earlier failure weighs at most: as much as the whole range of `room`."""


class Score:
    """The score of one group. *spreading* is None where it has no spreads."""

    def __init__(self, table: NodeTable, job: Job, group: TaskGroup, packing: Packing) -> None:
        self._packing = packing
        count = max(group.count, 1)
        self._by_twin = _TWINS / count if count > 1 else 0.0
        affinities = (*job.affinities, *group.affinities)
        self._affinity = _affinity(table, affinities) if affinities else None
        spreads = (*job.spreads, *group.spreads)
        self.spreading = Spreading(table, spreads, count) if spreads else None
        self._range = 2 * (1 + bool(affinities) + bool(spreads))

    def of_all(self, twins: Mapping[int, int]) -> Column:
        """Every row's score but for what it gains by spreads; minus infinity where the group may not go or has no room.

        *twins* are the group's own, by row. Not to be changed by the caller.
        """
        total = self._packing.of_all()
        if twins or self._affinity is not None:
            total = total.copy()
        for row, held in twins.items():
            if held > 0:
                total[row] -= min(held * self._by_twin, _TWINS)
        if self._affinity is not None:
            total += self._affinity
        return total

    def with_room(self, row: int, used: NodeUsage, twins: int) -> float:
        """One row's score as in `of_all`, for *used* taken of it, if the group may go there."""
        return self._with_parts(self._packing.with_room(row, used), row, twins)

    def of_one(self, row: int, used: NodeUsage, twins: int, *, failed: bool = False) -> float:
        """One row's score but for what it gains by spreads, for *used* taken of it, whether there is room or not."""
        total = self._with_parts(self._packing.of_one(row, used), row, twins)
        return total - _PART if failed else total

    def parts(self, row: int, used: NodeUsage, twins: int) -> dict[str, float]:
        """What a row's whole score, as people see it, is the sum of; only parts that a group has."""
        found = {"room": (self._packing.of_one(row, used) + 1) / self._range}
        if twins > 0 and self._by_twin:
            found["others of the group there"] = -min(twins * self._by_twin, _TWINS) / self._range
        if self._affinity is not None:
            found["affinities"] = float(self._affinity[row]) / self._range
        if self.spreading is not None:
            found["spreads"] = self.of_spreads_on(row) / self._range
        return found

    def _with_parts(self, total: float, row: int, twins: int) -> float:
        if twins > 0:
            total -= min(twins * self._by_twin, _TWINS)
        return total if self._affinity is None else total + float(self._affinity[row])

    def of_spreads(self) -> Column | float:
        """What every row gains by spreads."""
        return 0.0 if self.spreading is None else self.spreading.of_all() * _PART

    def of_spreads_on(self, row: int) -> float:
        """What one row gains by spreads."""
        return 0.0 if self.spreading is None else self.spreading.of_one(row) * _PART

    def shown(self, total: float) -> float:
        """A whole score (with spreads) as people see it: the mean of its parts, 1 at best."""
        return (total + 1) / self._range


def _affinity(table: NodeTable, affinities: Sequence[Affinity]) -> Column:
    weights = sum(abs(one.weight) for one in affinities) or 1
    total = np.zeros(len(table.nodes))
    for one in affinities:
        total += np.where(table.meets(one), _PART * one.weight / weights, 0.0)
    return total


def rows_held(rows: Iterable[int]) -> dict[int, int]:
    """How often each row occurs."""
    found: dict[int, int] = {}
    for row in rows:
        found[row] = found.get(row, 0) + 1
    return found
