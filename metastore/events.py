"""What happened, in order: events."""

from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa

from metastore.bulk import execute_many
from metastore.moments import milliseconds
from metastore.schema import history_table, text_column
from trueup.models.codec import to_json
from trueup.models.evaluation import Event

EVENTS: Final = history_table(
    "events",
    text_column("type"),
    text_column("job"),
    text_column("node"),
    text_column("allocation"),
    text_column("revision"),
    ask_by=("job", "node", "allocation"),
)
_INSERTION: Final = sa.insert(EVENTS)


def write_events(connection: sa.Connection, events: Iterable[Event], index: int) -> None:
    """Appends events."""
    execute_many(
        connection,
        _INSERTION,
        [
            {
                "type": event.type,
                "job": event.job,
                "node": event.node,
                "allocation": event.allocation,
                "revision": event.revision,
                "at": milliseconds(event.at),
                "modified_index": index,
                "body": to_json(event).decode(),
            }
            for event in events
        ],
    )
