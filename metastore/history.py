"""What happened, read back: events, evaluations and revisions in order of arrival."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import sqlalchemy as sa

from metastore.errors import HistoryCut
from metastore.evaluations import EVALUATIONS
from metastore.events import EVENTS, read_event
from metastore.meta import trimmed
from metastore.revisions import REVISIONS
from trueup.models.codec import from_json
from trueup.models.evaluation import Evaluation, Event
from trueup.models.revision import Revision

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry(Generic[T]):
    """One entry: its number in order of arrival, the index of the change it came with, and itself."""

    number: int
    index: int
    value: T


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History(Generic[T]):
    """One history: its table, and how an entry is read of a row."""

    table: sa.Table
    read: Callable[[Any], T]

    @property
    def name(self) -> str:
        """As people call it: `events`."""
        return str(self.table.name)


EVENT_HISTORY: Final = History(table=EVENTS, read=read_event)
EVALUATION_HISTORY: Final = History(table=EVALUATIONS, read=lambda row: from_json(row.body, Evaluation))
REVISION_HISTORY: Final = History(table=REVISIONS, read=lambda row: from_json(row.body, Revision))


def read_page(
    connection: sa.Connection,
    history: History[T],
    *,
    after: int | None,
    limit: int,
    newest_first: bool,
    filters: Mapping[str, str],
) -> Sequence[HistoryEntry[T]]:
    """Entries behind number *after*, in order of arrival or the reverse, whose columns equal *filters*.

    HistoryCut if entries right behind *after* are gone.
    """
    table = history.table
    if after is not None and not newest_first:
        _check_kept(history.name, after, trimmed(connection, history.name))
    wanted = sa.select(table)
    for column, value in filters.items():
        wanted = wanted.where(table.c[column] == value)
    if after is not None:
        wanted = wanted.where(table.c.number < after if newest_first else table.c.number > after)
    wanted = wanted.order_by(table.c.number.desc() if newest_first else table.c.number).limit(limit)
    return [_entry(row, history) for row in connection.execute(wanted)]


def events_newer(connection: sa.Connection, index: int) -> Sequence[HistoryEntry[Event]]:
    """All events of changes after *index*. HistoryCut if some of them are gone."""
    _check_kept("events", index, trimmed(connection, EVENT_INDEXES))
    # Indexes grow with numbers: looked for from the end, the last that is not newer costs what there is to answer.
    last = sa.select(EVENTS.c.number).where(EVENTS.c.modified_index <= index)
    last = last.order_by(EVENTS.c.number.desc()).limit(1)
    wanted = sa.select(EVENTS)
    wanted = wanted.where(EVENTS.c.number > sa.func.coalesce(last.scalar_subquery(), 0)).order_by(
        EVENTS.c.number
    )
    return [_entry(row, EVENT_HISTORY) for row in connection.execute(wanted)]


EVENT_INDEXES: Final = "events_index"
"""Under this name it is noted up to which index events are gone, beside the number that `events` notes."""


def _entry(row: Any, history: History[T]) -> HistoryEntry[T]:  # noqa: ANN401 - a row of the history's table
    return HistoryEntry(number=row.number, index=row.modified_index, value=history.read(row))


def _check_kept(name: str, after: int, gone: int) -> None:
    if after < gone:
        raise HistoryCut(f"{name} after {after} were dropped by retention up to {gone}")
