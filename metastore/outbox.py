"""Pushes that are due, oldest first: stored, and kept in memory so that asking costs nothing.

Those of one commit are one row, numbered by the first of them and gone with the last: after a crash some of them come
a second time, which does no harm.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

import sqlalchemy as sa

from metastore.bulk import execute_many
from metastore.schema import METADATA, NUMBER, text_column
from trueup.models.codec import from_json, to_json
from trueup.models.commit import OutboxEntry, PushKind
from trueup.models.ids import AllocationId, NodeId

PUSHES: Final = sa.Table(
    "pushes",
    METADATA,
    sa.Column("number", NUMBER, primary_key=True, autoincrement=False),
    text_column("body"),
)
_INSERTION: Final = sa.insert(PUSHES)
_DELETION: Final = sa.delete(PUSHES).where(PUSHES.c.number == sa.bindparam("taken"))
_Body = list[tuple[NodeId, AllocationId, PushKind]]


class Outbox:
    """The pushes in memory. Not thread-safe: the store calls it under its own lock."""

    def __init__(self, rows: Iterable[Sequence[OutboxEntry]]) -> None:
        """*rows* are those of the store, each with at least one push."""
        self._entries: dict[int, OutboxEntry] = {}
        self._left: dict[int, int] = {}
        self._firsts: list[int] = []
        self._next_number = 1
        self._listed: tuple[OutboxEntry, ...] | None = None
        self._emptied: list[int] = []
        for entries in rows:
            self.add(entries)
            self._next_number = entries[-1].number + 1

    def due(self) -> tuple[OutboxEntry, ...]:
        """All pushes that are due, oldest first; the same object until something changes."""
        if self._listed is None:
            self._listed = tuple(self._entries.values())
        return self._listed

    def new_entry(self, node_id: NodeId, allocation_id: AllocationId, kind: PushKind) -> OutboxEntry:
        """A numbered push, not yet among those that are due. No number is given out twice."""
        number = self._next_number
        self._next_number += 1
        return OutboxEntry(number=number, node_id=node_id, allocation_id=allocation_id, kind=kind)

    def add(self, entries: Sequence[OutboxEntry]) -> None:
        """Makes the pushes of one commit due."""
        if entries:
            first = entries[0].number
            self._firsts.append(first)
            self._left[first] = len(entries)
            self._entries.update({entry.number: entry for entry in entries})
            self._listed = None

    def take(self, numbers: Iterable[int]) -> None:
        """Takes pushes off; an unknown number is left alone."""
        for number in numbers:
            if self._entries.pop(number, None) is None:
                continue
            self._listed = None
            place = bisect_right(self._firsts, number) - 1
            first = self._firsts[place]
            self._left[first] -= 1
            if not self._left[first]:
                del self._left[first], self._firsts[place]
                self._emptied.append(first)

    def emptied(self) -> tuple[int, ...]:
        """Numbers of rows that are still stored though all of their pushes were taken off."""
        return tuple(self._emptied)

    def forget(self, numbers: Sequence[int]) -> None:
        """Their rows are gone."""
        del self._emptied[: len(numbers)]


def load_outbox(connection: sa.Connection) -> Outbox:
    """The pushes that were due when the store was left."""
    rows = connection.execute(sa.select(PUSHES).order_by(PUSHES.c.number))
    return Outbox(
        [
            OutboxEntry(number=number, node_id=node_id, allocation_id=allocation_id, kind=kind)
            for number, (node_id, allocation_id, kind) in enumerate(from_json(row.body, _Body), row.number)
        ]
        for row in rows
    )


def write_outbox(connection: sa.Connection, added: Sequence[OutboxEntry], emptied: Sequence[int]) -> None:
    """Adds the pushes of a commit, and deletes rows that were emptied since the last write."""
    if emptied:
        execute_many(connection, _DELETION, [{"taken": one} for one in emptied])
    if added:
        body: _Body = [(entry.node_id, entry.allocation_id, entry.kind) for entry in added]
        execute_many(connection, _INSERTION, [{"number": added[0].number, "body": to_json(body).decode()}])
