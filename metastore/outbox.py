"""Pushes that are due, oldest first: stored, and kept in memory so that asking costs nothing."""

from collections.abc import Iterable, Sequence
from typing import Final, get_args

import sqlalchemy as sa

from metastore.bulk import execute_many
from metastore.schema import METADATA, NUMBER, text_column
from trueup.models.commit import OutboxEntry, PushKind
from trueup.models.ids import AllocationId, NodeId

OUTBOX: Final = sa.Table(
    "outbox",
    METADATA,
    sa.Column("number", NUMBER, primary_key=True, autoincrement=False),
    text_column("node_id"),
    text_column("allocation_id"),
    text_column("kind"),
)
_INSERTION: Final = sa.insert(OUTBOX)
_DELETION: Final = sa.delete(OUTBOX).where(OUTBOX.c.number == sa.bindparam("taken"))
_KINDS: Final[dict[str, PushKind]] = {kind: kind for kind in get_args(PushKind)}


class Outbox:
    """The pushes in memory. Not thread-safe: the store calls it under its own lock."""

    def __init__(self, entries: Iterable[OutboxEntry]) -> None:
        self._entries = {entry.number: entry for entry in entries}
        self._next_number = max(self._entries, default=0) + 1
        self._listed: tuple[OutboxEntry, ...] | None = None
        self._taken: list[int] = []

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

    def add(self, entries: Iterable[OutboxEntry]) -> None:
        """Makes pushes due."""
        self._entries.update({entry.number: entry for entry in entries})
        self._listed = None

    def take(self, numbers: Iterable[int]) -> None:
        """Takes pushes off; an unknown number is left alone."""
        found = [number for number in numbers if self._entries.pop(number, None) is not None]
        self._taken.extend(found)
        if found:
            self._listed = None

    def taken(self) -> tuple[int, ...]:
        """Numbers taken off whose rows are still stored."""
        return tuple(self._taken)

    def forget(self, numbers: Sequence[int]) -> None:
        """Their rows are gone."""
        del self._taken[: len(numbers)]


def load_outbox(connection: sa.Connection) -> Outbox:
    """The pushes that were due when the store was left."""
    rows = connection.execute(sa.select(OUTBOX).order_by(OUTBOX.c.number))
    return Outbox(
        OutboxEntry(
            number=row.number,
            node_id=NodeId(row.node_id),
            allocation_id=AllocationId(row.allocation_id),
            kind=_KINDS[row.kind],
        )
        for row in rows
    )


def write_outbox(connection: sa.Connection, added: Sequence[OutboxEntry], taken: Sequence[int]) -> None:
    """Adds pushes, and deletes those that were taken off since the last write."""
    if taken:
        execute_many(connection, _DELETION, [{"taken": one} for one in taken])
    if added:
        execute_many(
            connection,
            _INSERTION,
            [
                {
                    "number": entry.number,
                    "node_id": entry.node_id,
                    "allocation_id": entry.allocation_id,
                    "kind": entry.kind,
                }
                for entry in added
            ],
        )
