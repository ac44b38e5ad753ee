"""The best row of a column of points, again and again, while the points of a few rows change. Pure.

Of n rows only the best k can be among k picks when nothing but the picked ones changes. So the best k are kept in a
heap; where what was left out might be better than what is there, the caller is told to make the ranking anew.
"""

import heapq
from collections.abc import Collection
from typing import Final, TypeAlias

import numpy as np

from reconciler.node_table import Column

Entry: TypeAlias = tuple[float, int]
_NEVER: Final = -np.inf


class Stale(Exception):
    """Rows that were left out may be better by now than those that are known."""


class Ranking:
    """The best *picks* rows of *points* and more as they change; ties go to the first row."""

    def __init__(self, points: Column, picks: int) -> None:
        rows, self._bound = _best_rows(points, picks)
        self._points: dict[int, float] = {row: float(points[row]) for row in rows}
        self._heap: list[Entry] = sorted((-held, row) for row, held in self._points.items())

    def best(self, apart: Collection[int] = ()) -> Entry | None:
        """The points and row of the best one that is not *apart*; None if there is none. Raises Stale."""
        aside: list[Entry] = []
        found: Entry | None = None
        while self._heap:
            held, row = self._heap[0]
            if self._points.get(row) != -held:
                heapq.heappop(self._heap)
            elif row in apart:
                aside.append(heapq.heappop(self._heap))
            else:
                found = self._heap[0]
                break
        for entry in aside:
            heapq.heappush(self._heap, entry)
        if self._bound is not None and (found is None or found > self._bound):
            raise Stale
        return None if found is None else (-found[0], found[1])

    def put(self, row: int, points: float) -> None:
        """A row has other points now; minus infinity: it is no longer one to pick."""
        if points == _NEVER:
            self._points.pop(row, None)
        elif self._points.get(row) != points:
            self._points[row] = points
            heapq.heappush(self._heap, (-points, row))


def _best_rows(points: Column, picks: int) -> tuple[list[int], Entry | None]:
    """The best rows, and what is at least as good as the best of the others; None if there are no others."""
    if picks == 1:
        row = int(points.argmax()) if len(points) else 0
        if not len(points) or points[row] == _NEVER:
            return [], None
        return [row], (-float(points[row]), row)
    able = np.flatnonzero(points > _NEVER)
    if len(able) <= picks:
        return able.tolist(), None
    held = points[able]
    limit = float(np.partition(held, len(held) - picks)[len(held) - picks])
    above = able[held > limit].tolist()
    level = able[held == limit].tolist()
    rest = level[picks - len(above) :]
    bound = (-limit, rest[0] - 1) if rest else (-limit, len(points))
    return above + level[: picks - len(above)], bound
