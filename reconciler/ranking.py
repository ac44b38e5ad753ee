"""The best row of a column of points, again and again, while the points of a few rows change. Pure.

Rows that were never touched keep their order, so only as many of them are taken out of the column as are needed to know
the best: one, then as many again as are known already. What is known is in a heap, in which older points of a row stay
until they come up.
"""

import heapq
from collections.abc import Collection
from typing import Final, TypeAlias

import numpy as np

from reconciler.node_table import Column

Entry: TypeAlias = tuple[float, int]
_NEVER: Final = -np.inf
_ONE_BY_ONE: Final = 32
"""Up to that many rows, looking for each is cheaper than sorting them apart together."""


class Ranking:
    """The best row of *points* as they change; ties go to the first row. *points* becomes its own."""

    def __init__(self, points: Column) -> None:
        self._rest = points
        self._points: dict[int, float] = {}
        self._heap: list[Entry] = []
        self._bound: Entry | None = (_NEVER, -1) if len(points) else None
        """Nothing left in the column comes before it; None: nothing is left."""

    def best(self, apart: Collection[int] = ()) -> Entry | None:
        """The points and row of the best one that is not *apart*; None if there is none."""
        aside: list[Entry] = []
        while True:
            top = self._heap[0] if self._heap else None
            if self._bound is not None and (top is None or top > self._bound):
                self._take_more()
            elif top is None or (self._points.get(top[1]) == -top[0] and top[1] not in apart):
                break
            else:
                heapq.heappop(self._heap)
                if self._points.get(top[1]) == -top[0]:
                    aside.append(top)
        for entry in aside:
            heapq.heappush(self._heap, entry)
        return None if top is None else (-top[0], top[1])

    def put(self, row: int, points: float) -> None:
        """A row has other points now; minus infinity: it is no longer one to pick."""
        self._rest[row] = _NEVER
        if points == _NEVER:
            self._points.pop(row, None)
        elif self._points.get(row) != points:
            self._points[row] = points
            heapq.heappush(self._heap, (-points, row))

    def _take_more(self) -> None:
        rows = _best_rows(self._rest, max(len(self._points), 1))
        for row in rows:
            points = float(self._rest[row])
            self._points[row] = points
            heapq.heappush(self._heap, (-points, row))
            self._bound = (-points, row)
        self._rest[rows] = _NEVER
        if not rows:
            self._bound = None


def _best_rows(points: Column, number: int) -> list[int]:
    """The best rows, best first."""
    if number <= _ONE_BY_ONE:
        number = 1
    if number == 1:
        row = int(points.argmax())
        return [] if points[row] == _NEVER else [row]
    able = np.flatnonzero(points > _NEVER)
    held = points[able]
    if len(able) > number:
        limit = np.partition(held, len(held) - number)[len(held) - number]
        able = np.concatenate((able[held > limit], able[held == limit]))[:number]
        held = points[able]
    return [int(row) for row in able[np.lexsort((able, -held))]]
