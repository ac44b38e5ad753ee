"""`/state`: STATE.json of one index, streamed: what `plan` and `export` read, planning in the client."""

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from flask import Response

from api.ask import Ask
from api.routing import Answer, Route
from trueup.models.state import ClusterState
from trueup.models.state_document import allocation_document, state_document

_BATCH: Final = 200


def show_state(ask: Ask) -> Answer:
    """The whole state at one index."""
    state, now = ask.state, ask.deps.clock.now()
    if ask.request.method == "HEAD":
        return Response(content_type="application/json")
    return Response(state_chunks(state, now), content_type="application/json")


def state_chunks(state: ClusterState, now: datetime) -> Iterator[bytes]:
    """The JSON of `state_document(state, now)` in pieces; *state* must not change meanwhile.

    Allocations are by far the most of it: they come last, and are never all in memory in this form.
    """
    allocations = sorted(state.allocations.values(), key=lambda held: (held.job, held.name, held.id))
    head = state_document(dataclasses.replace(state, allocations={}), now)
    del head["allocations"]
    yield msgspec.json.encode(head)[:-1] + b',"allocations":['
    for start in range(0, len(allocations), _BATCH):
        batch: list[Any] = [allocation_document(held) for held in allocations[start : start + _BATCH]]
        yield (b"," if start else b"") + msgspec.json.encode(batch)[1:-1]
    yield b"]}"


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/state",
        handler=show_state,
        about="STATE.json of one index: what `trueup plan` and `trueup export` read.",
        answer=dict[str, Any],
        waits=True,
    ),
)
