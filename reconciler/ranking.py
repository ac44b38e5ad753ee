"""The best row of a column of points, again and again, while the points of a few rows change. Pure.

Rows that were never touched keep their order, so only as many of them are taken out of the column as are needed to know
the best: one, then as many again as are known already. What is known is in a heap, in which older points of a row stay
until they come up.
"""

import heapq
from collections.abc import Collection
from typing import Final, TypeAlias

import numpy as np

from reconciler.columns import Column

Entry: TypeAlias = tuple[float, int]
_NEVER: Final = -np.inf
_ONE_BY_ONE: Final = 32
"""Up to that many rows, looking for each is cheaper than sorting them apart together."""


class Ranking:
    """The best row of *points* as they change; ties go to the first row. *points* itself stays as it is."""

    def __init__(self, points: Column) -> None:
        self._rest = points
        self._is_own = False
        self._first: int | None = None
        """The first row taken out: it is marked in the column with the second, for many need but one."""
        self._known: dict[int, float] = {}
        """Points of the rows that were taken out, negated as in the heap."""
        self._heap: list[Entry] = []
        self._bound: Entry | None = (_NEVER, -1) if len(points) else None
        """Nothing left in the column comes before it; None: nothing is left."""

    def best(self, apart: Collection[int] = ()) -> Entry | None:
        """The points and row of the best one that is not *apart*; None if there is none."""
        heap, known = self._heap, self._known
        aside: list[Entry] = []
        while heap or self._bound is not None:
            if not heap or (self._bound is not None and heap[0] > self._bound):
                self._take_more()
                continue
            top = heap[0]
            row = top[1]
            if known.get(row) != top[0]:
                heapq.heappop(heap)
            elif row in apart:
                aside.append(heapq.heappop(heap))
            else:
                break
        found = (-heap[0][0], heap[0][1]) if heap else None
        for entry in aside:
            heapq.heappush(heap, entry)
        return found

    def put(self, row: int, points: float) -> None:
        """A row has other points now; minus infinity: it is no longer one to pick."""
        heap, known = self._heap, self._known
        if row not in known:
            self._own()[row] = _NEVER
        if points == _NEVER:
            known.pop(row, None)
        elif known.get(row) != -points:
            known[row] = -points
            if heap and heap[0][1] == row:
                heapq.heapreplace(heap, (-points, row))
            else:
                heapq.heappush(heap, (-points, row))

    def _take_more(self) -> None:
        if self._first is None and not self._is_own:
            self._first = int(self._rest.argmax())
            self._take(float(self._rest[self._first]), self._first)
            return
        rest, known = self._own(), len(self._known)
        rows = [int(rest.argmax())] if known <= _ONE_BY_ONE else _best_rows(rest, known)
        for row in rows:
            self._take(float(rest[row]), row)
            rest[row] = _NEVER
        if not rows:
            self._bound = None

    def _take(self, points: float, row: int) -> None:
        if points == _NEVER:
            self._bound = None
            return
        self._bound = (-points, row)
        self._known[row] = -points
        heapq.heappush(self._heap, self._bound)

    def _own(self) -> Column:
        """The column, to be changed."""
        if not self._is_own:
            self._rest, self._is_own = self._rest.copy(), True
            if self._first is not None:
                self._rest[self._first] = _NEVER
        return self._rest


def _best_rows(points: Column, number: int) -> list[int]:
    """The best rows, best first."""
    able = np.flatnonzero(points > _NEVER)
    held = points[able]
    if len(able) > number:
        limit = np.partition(held, len(held) - number)[len(held) - number]
        able = np.concatenate((able[held > limit], able[held == limit]))[:number]
        held = points[able]
    return [int(row) for row in able[np.lexsort((able, -held))]]
