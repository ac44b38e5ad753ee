"""Constraints on being distinct: at most so many of a group on one node, or at one value of an attribute. Pure."""

from collections.abc import Mapping, Sequence

import numpy as np

from reconciler.columns import Codes, Mask
from reconciler.feasibility import constraints_of
from reconciler.node_table import ABSENT, NodeTable
from trueup.models.job import Job, TaskGroup
from trueup.models.reasons import DISTINCT_HOSTS, Reason, constraint_failed


class Distinct:
    """One such constraint over all rows, and how many of the group are at each value.

    *codes* are the rows' values, *limit* how many of the group may have one, *is_shared*: rows may have the same.
    """

    def __init__(
        self, codes: Codes, *, limit: int, is_shared: bool, too_many: Reason, absent: Reason
    ) -> None:
        self._codes, self._limit, self._is_shared = codes, limit, is_shared
        self._too_many, self._absent = too_many, absent
        self._there: dict[int, int] = {}

    def count(self, row: int, by: int) -> bool:
        """Counts one of the group in or out; whether other rows were closed or opened by that."""
        code = int(self._codes[row])
        before = self._there.get(code, 0)
        self._there[code] = before + by
        return self._is_shared and (before >= self._limit) != (before + by >= self._limit)

    def refuses(self, row: int, leaving: int | None) -> Reason | None:
        """Why one more is refused there, once one on the row *leaving* has gone; None if it is not."""
        code = int(self._codes[row])
        if code == ABSENT:
            return self._absent
        gone = leaving is not None and int(self._codes[leaving]) == code
        return self._too_many if self._there.get(code, 0) - gone >= self._limit else None

    def open(self) -> Mask:
        """The rows that take one more."""
        closed = [code for code, held in self._there.items() if held >= self._limit]
        return ~np.isin(self._codes, np.array([*closed, ABSENT], dtype=np.int64))


def distinct_of(job: Job, group: TaskGroup, table: NodeTable, held: Mapping[int, int]) -> Sequence[Distinct]:
    """The constraints on being distinct of *group*, which has *held* on each row."""
    found = []
    for one in constraints_of(job, group):
        if one.operator == "distinct_hosts":
            codes = np.arange(len(table.nodes), dtype=np.int64)
            found.append(
                Distinct(codes, limit=1, is_shared=False, too_many=DISTINCT_HOSTS, absent=DISTINCT_HOSTS)
            )
        elif one.operator == "distinct_property":
            codes, _ = table.values(one.attribute)
            limit = int(one.value) if one.value.isdigit() else 1
            too_many = constraint_failed(one.attribute, "distinct_property", one.value)
            absent = constraint_failed(one.attribute, "is_set", "")
            found.append(Distinct(codes, limit=limit, is_shared=True, too_many=too_many, absent=absent))
    for distinct in found:
        for row, number in held.items():
            distinct.count(row, number)
    return found
