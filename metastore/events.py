"""What happened, in order: events."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from metastore.bulk import execute_rows
from metastore.moments import milliseconds
from metastore.schema import history_table, text_column
from trueup.models.codec import Model, from_json, to_json
from trueup.models.evaluation import Event

EVENTS: Final = history_table(
    "events",
    text_column("type"),
    text_column("job"),
    text_column("node"),
    text_column("allocation"),
    text_column("revision"),
    ask_by=("job", "node"),
)
_INSERTION: Final = sa.insert(EVENTS)
_NAMES: Final = ("type", "job", "node", "allocation", "revision", "at", "modified_index", "body")


class _Body(Model, frozen=True, kw_only=True):
    """What of an event has no column of its own: of all that is written, events are the most."""

    at: datetime
    message: str


def write_events(connection: sa.Connection, events: Iterable[Event], index: int) -> None:
    """Appends events."""
    execute_rows(
        connection,
        _INSERTION,
        _NAMES,
        [
            (
                event.type,
                event.job,
                event.node,
                event.allocation,
                event.revision,
                milliseconds(event.at),
                index,
                to_json(_Body(at=event.at, message=event.message)).decode(),
            )
            for event in events
        ],
    )


def read_event(row: Any) -> Event:  # noqa: ANN401 - a row of EVENTS
    """The event of a row."""
    body = from_json(row.body, _Body)
    return Event(
        at=body.at,
        type=row.type,
        message=body.message,
        job=row.job,
        allocation=row.allocation,
        node=row.node,
        revision=row.revision,
    )
