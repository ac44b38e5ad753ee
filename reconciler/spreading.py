"""What spreads make of each node: how much a group wants one more at the values that the node has. Pure.

Source: Nomad's spread iterator (targets by percentage, or evenness), weighted and averaged over a group's spreads.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from reconciler.columns import Codes, Column, Mask
from reconciler.node_table import ABSENT, NodeTable
from trueup.models.job import Spread


class Spreading:
    """The spreads of one group with *count* allocations, and where those it has are, by value."""

    def __init__(self, table: NodeTable, spreads: Sequence[Spread], count: int) -> None:
        weight = sum(abs(one.weight) for one in spreads) or 1
        self._spreads = [_OneSpread(one, *table.values(one.attribute), count, weight) for one in spreads]
        self._may_run: Mask = np.zeros(0, dtype=np.bool_)

    def begin(self, may_run: Mask, held: Mapping[int, int]) -> None:
        """Counts what the group has on each row. Values that no node offers which may run it are not aimed at."""
        self._may_run = may_run
        for one in self._spreads:
            one.begin(may_run)
        for row, number in held.items():
            self.count(row, max(number, 0))

    def count(self, row: int, by: int) -> None:
        """Counts an allocation of the group in or out."""
        if self._may_run[row]:
            for one in self._spreads:
                one.count(row, by)

    def of_all(self) -> Column:
        """What each row gains."""
        total = np.zeros(len(self._may_run))
        for one in self._spreads:
            total += one.gains()[one.codes]
        return total

    def of_one(self, row: int) -> float:
        """What one row gains."""
        total = 0.0
        for one in self._spreads:
            total += float(one.gains()[one.codes[row]])
        return total


class _OneSpread:
    """One spread: how many there are at each value, by its code."""

    def __init__(self, spread: Spread, codes: Codes, values: Sequence[str], count: int, weights: int) -> None:
        self.codes = codes
        self._share = spread.weight / weights
        self._absent = -abs(spread.weight) / weights
        self._there = np.zeros(len(values), dtype=np.int64)
        self._offered = np.ones(len(values), dtype=np.bool_)
        self._aims: Column | None = None
        if spread.targets:
            left_over = max(0, 100 - sum(spread.targets.values()))
            self._aims = np.array([count * spread.targets.get(value, left_over) / 100 for value in values])
        self._gains: Column | None = None

    def begin(self, may_run: Mask) -> None:
        self._there[:] = 0
        self._offered[:] = False
        present = self.codes[may_run]
        self._offered[present[present != ABSENT]] = True
        self._gains = None

    def count(self, row: int, by: int) -> None:
        if self.codes[row] != ABSENT:
            self._there[self.codes[row]] += by
            self._gains = None

    def gains(self) -> Column:
        """By code; the last stands for nodes without a value: ABSENT counts from the end."""
        if self._gains is None:
            wanted = self._evenness() if self._aims is None else _towards(self._aims, self._there)
            self._gains = np.append(np.clip(wanted, -1.0, 1.0) * self._share, self._absent)
        return self._gains

    def _evenness(self) -> Column:
        """1 where there are fewest, less the more there are than that; -1 where all are alike, or 0 where none is."""
        there = self._there.astype(np.float64)
        offered = there[self._offered]
        if not len(offered):
            return np.zeros(len(there))
        least, most = offered.min(), offered.max()
        if least == most:
            return np.where(there == least, -1.0 if least else 0.0, (least - there) / max(least, 1.0))
        return np.where(there == least, 1.0, (least - there) / max(least, 1.0))


def _towards(aims: Column, there: Codes) -> Column:
    """How much of each value's aim is missing once one more is there."""
    return np.where(aims > 0, (aims - there - 1) / np.where(aims > 0, aims, 1.0), -1.0)
