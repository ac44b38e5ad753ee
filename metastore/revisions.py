"""Revisions of the spec source, in order of arrival."""

from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa

from metastore.bulk import Row
from metastore.moments import milliseconds
from metastore.schema import history_table, text_column
from trueup.models.codec import from_json, to_json
from trueup.models.ids import RevisionId
from trueup.models.revision import Revision

REVISIONS: Final = history_table("revisions", text_column("id"), text_column("state"), ask_by=("id",))

_BY_ID: Final = (
    sa.select(REVISIONS.c.body)
    .where(REVISIONS.c.id == sa.bindparam("id"))
    .order_by(REVISIONS.c.number.desc())
    .limit(1)
)
_NEWEST: Final = sa.select(REVISIONS.c.body).order_by(REVISIONS.c.number.desc()).limit(1)


def write_revisions(connection: sa.Connection, revisions: Iterable[Revision], index: int) -> None:
    """Writes revisions by id. One that is seen again after another came since moves to the end.

    A directory whose content is put back has an old revision's id: it arrives anew, and is the newest again.
    """
    for revision in revisions:
        row = _row(revision, index)
        known = connection.execute(
            sa.select(REVISIONS.c.number, REVISIONS.c.at).where(REVISIONS.c.id == revision.id)
        ).one_or_none()
        if known is None:
            connection.execute(sa.insert(REVISIONS), row)
        elif known.at == row["at"] or known.number == _newest_number(connection):
            connection.execute(sa.update(REVISIONS).where(REVISIONS.c.number == known.number).values(row))
        else:
            connection.execute(sa.delete(REVISIONS).where(REVISIONS.c.number == known.number))
            connection.execute(sa.insert(REVISIONS), row)


def read_revision(connection: sa.Connection, revision_id: RevisionId) -> Revision | None:
    """The revision of that id, or None."""
    body = connection.scalar(_BY_ID, {"id": revision_id})
    return None if body is None else from_json(body, Revision)


def read_newest(connection: sa.Connection) -> Revision | None:
    """The revision that arrived last, or None."""
    body = connection.scalar(_NEWEST)
    return None if body is None else from_json(body, Revision)


def _row(revision: Revision, index: int) -> Row:
    return {
        "id": revision.id,
        "state": revision.state,
        "at": milliseconds(revision.seen_at),
        "modified_index": index,
        "body": to_json(revision).decode(),
    }


def _newest_number(connection: sa.Connection) -> int:
    return connection.scalar(sa.select(sa.func.max(REVISIONS.c.number))) or 0
