"""`/events`: what happened, as pages, or as a stream of what happens.

In the stream one message holds all events of one change, `{"index": 42, "items": […]}`, and its id is that index. So
a client that comes back with the id of the last message it got misses nothing and gets nothing twice, also when the
connection broke between two events of one change.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

import msgspec

from api.ask import Ask
from api.doors import Entry
from api.history import history_page
from api.paging import Page
from api.problems import gone
from api.routing import PAGING, REVERSE, Answer, Parameter, Route, by_job, by_node, by_revision
from api.streams import STREAM_TYPE, message, resume_index, stream
from api.views.history import EventView, event_view
from metastore.errors import HistoryCut
from trueup.models.codec import to_json
from trueup.models.evaluation import Event

_FILTERS: Final = ("job", "node", "type", "revision")


class ChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """All events of one change."""

    index: int
    items: tuple[EventView, ...]


def list_events(ask: Ask) -> Answer:
    """Events in order of arrival; as a stream where that is what the client accepts."""
    accepted = ask.request.accept_mimetypes.best_match(["application/json", STREAM_TYPE])
    if accepted == STREAM_TYPE:
        return stream_events(ask)
    return history_page(
        ask,
        ask.deps.store.events,
        show=lambda entry: event_view(entry.value, entry.index),
        filters=_filters(ask),
    )


def stream_events(ask: Ask) -> Answer:
    """Events as they happen; with `Last-Event-ID` or `index`, those since. 410 where some of these are gone."""
    seen = resume_index(ask)
    filters = {name: value for name, value in _filters(ask).items() if value is not None}
    store = ask.deps.store
    if seen is not None:
        _check_kept(ask, seen)

    def read(index: int) -> tuple[int, bytes]:
        newest = ask.shared.index
        found = [
            entry
            for entry in store.events_newer(index)
            if entry.index <= newest and _matches(entry.value, filters)
        ]
        return newest, _messages(found)

    return stream(ask, ask.index if seen is None else seen, read)


def _check_kept(ask: Ask, index: int) -> None:
    """410 before the stream begins: once it has begun there is no status left to say so with."""
    try:
        ask.deps.store.events_newer(index)
    except HistoryCut as error:
        raise gone(f"{error}; begin without Last-Event-ID") from error


def _filters(ask: Ask) -> dict[str, str | None]:
    return {name: ask.text(name) for name in _FILTERS}


def _matches(event: Event, filters: dict[str, str]) -> bool:
    return all(getattr(event, name) == value for name, value in filters.items())


def _messages(entries: Iterable[Entry[Event]]) -> bytes:
    found = b""
    for index, group in groupby(entries, key=lambda entry: entry.index):
        items = tuple(event_view(entry.value, index) for entry in group)
        found += message(index, to_json(ChangeView(index=index, items=items)))
    return found


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/events",
        handler=list_events,
        about="What happened, in order of arrival; with `Accept: text/event-stream` what happens, as a stream "
        "of messages `{index, items}`, one a change, whose ids are indexes.",
        answer=Page[EventView],
        other_media_types=(STREAM_TYPE,),
        parameters=(
            by_job(),
            by_node(),
            Parameter(name="type", about="Only events of this type."),
            by_revision(),
            *PAGING,
            REVERSE,
        ),
        waits=True,
    ),
)
