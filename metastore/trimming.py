"""Drops old entries of histories, and notes up to where, so that a cursor into what is gone is told so."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from metastore.evaluations import EVALUATIONS
from metastore.events import EVENTS
from metastore.history import EVENT_INDEXES
from metastore.meta import trimmed, write_trimmed
from metastore.moments import milliseconds
from metastore.revisions import REVISIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """What goes: entries from before a time, and revisions beyond the newest *revisions* but those named in *kept*."""

    events_before: datetime
    evaluations_before: datetime
    revisions: int
    kept: Collection[str]


def trim(connection: sa.Connection, wanted: Trim) -> int:
    """Drops what *wanted* says; returns how many entries went.

    Entries go from the oldest on without a gap, so that one number says what is gone: an entry whose time is out of
    order (the clock was set) stays until those before it go.
    """
    dropped = _drop_before(connection, EVALUATIONS, wanted.evaluations_before)
    up_to = _last_before(connection, EVENTS, wanted.events_before)
    if up_to:
        index = connection.scalar(sa.select(EVENTS.c.modified_index).where(EVENTS.c.number == up_to))
        dropped += _drop_before(connection, EVENTS, wanted.events_before)
        write_trimmed(connection, EVENT_INDEXES, max(index or 0, trimmed(connection, EVENT_INDEXES)))
    return dropped + _drop_revisions(connection, wanted)


def _drop_before(connection: sa.Connection, table: sa.Table, moment: datetime) -> int:
    up_to = _last_before(connection, table, moment)
    if not up_to:
        return 0
    write_trimmed(connection, table.name, up_to)
    return connection.execute(sa.delete(table).where(table.c.number <= up_to)).rowcount


def _last_before(connection: sa.Connection, table: sa.Table, moment: datetime) -> int:
    """The number of the last entry from before *moment* with none of a later time ahead of it; 0 if there is none."""
    first_kept = connection.scalar(
        sa.select(sa.func.min(table.c.number)).where(table.c.at >= milliseconds(moment))
    )
    older = sa.select(sa.func.max(table.c.number))
    if first_kept is not None:
        older = older.where(table.c.number < first_kept)
    return connection.scalar(older) or 0


def _drop_revisions(connection: sa.Connection, wanted: Trim) -> int:
    newest = (
        sa.select(REVISIONS.c.number).order_by(REVISIONS.c.number.desc()).offset(wanted.revisions).limit(1)
    )
    up_to = connection.scalar(newest)
    if up_to is None:
        return 0
    old = connection.execute(sa.select(REVISIONS.c.number, REVISIONS.c.id).where(REVISIONS.c.number <= up_to))
    going = [row.number for row in old if row.id not in wanted.kept]
    if going:
        connection.execute(
            sa.delete(REVISIONS).where(REVISIONS.c.number == sa.bindparam("going")),
            [{"going": one} for one in going],
        )
        write_trimmed(connection, REVISIONS.name, max(going))
    return len(going)
