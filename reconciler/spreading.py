"""What spreads make of each node: how much a group wants one more at the values that the node has. Pure.

Source: Nomad's spread iterator (targets by percentage, or evenness), weighted and averaged over a group's spreads.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from reconciler.node_table import ABSENT, Column, Mask, NodeTable
from trueup.models.job import Spread


class Spreading:
    """The spreads of one group with *count* allocations, and where those it has are, by value."""

    def __init__(self, table: NodeTable, spreads: Sequence[Spread], count: int) -> None:
        self._spreads, self._count = spreads, count
        self._columns = [table.values(one.attribute) for one in spreads]
        self._weight = sum(abs(one.weight) for one in spreads) or 1
        self._there: list[Counter[str]] = []
        self._may_run: Mask = np.zeros(0, dtype=np.bool_)

    def begin(self, may_run: Mask, held: Mapping[int, int]) -> None:
        """Counts what the group has on each row. Values that no node offers which may run it are not aimed at."""
        self._may_run = may_run
        self._there = []
        for codes, values in self._columns:
            present = [int(code) for code in np.unique(codes[may_run]) if code != ABSENT]
            self._there.append(Counter({values[code]: 0 for code in present}))
        for row, number in held.items():
            self.count(row, max(number, 0))

    def count(self, row: int, by: int) -> None:
        """Counts an allocation of the group in or out."""
        if not self._may_run[row]:
            return
        for (codes, values), there in zip(self._columns, self._there, strict=True):
            if codes[row] != ABSENT:
                there[values[codes[row]]] += by

    def of_all(self) -> Column:
        """What each row gains."""
        total = np.zeros(len(self._may_run))
        for one, (codes, values), there in zip(self._spreads, self._columns, self._there, strict=True):
            by_code = [one.weight * boost(one, value, there, self._count) / self._weight for value in values]
            # The last stands for nodes without a value: ABSENT counts from the end.
            total += np.array([*by_code, -abs(one.weight) / self._weight], dtype=np.float64)[codes]
        return total

    def of_one(self, row: int) -> float:
        """What one row gains."""
        total = 0.0
        for one, (codes, values), there in zip(self._spreads, self._columns, self._there, strict=True):
            code = codes[row]
            if code == ABSENT:
                total += -abs(one.weight) / self._weight
            else:
                total += one.weight * boost(one, values[code], there, self._count) / self._weight
        return total


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
