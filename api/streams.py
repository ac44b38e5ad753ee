"""Server-sent events: ids are indexes, so that a client that comes back names the last change it has seen whole."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Final

from flask import Response

from api.ask import Ask
from api.problems import bad_request
from metastore.errors import HistoryCut

STREAM_TYPE: Final = "text/event-stream"
_KEEP_ALIVE: Final = timedelta(seconds=15)
_RETRY_MILLISECONDS: Final = 2000

Read = Callable[[int], tuple[int, bytes]]
"""Given the index that was seen last, the newer index up to which it read, and the messages until there."""


def resume_index(ask: Ask) -> int | None:
    """The index a client saw last: of `Last-Event-ID`, else of `?index=`. 410 if it is of another epoch."""
    written = ask.request.headers.get("Last-Event-ID")
    if written:
        if not (written.isascii() and written.isdecimal() and len(written) <= 18):
            raise bad_request(f"Last-Event-ID {written!r} is no id of this stream; ids are indexes")
        index: int | None = int(written)
    else:
        index = ask.integer("index")
    if index is not None:
        ask.shared.waiter.check_index(index)
    return index


def message(index: int, data: bytes) -> bytes:
    """One message; *data* is one line."""
    return b"id: %d\ndata: %s\n\n" % (index, data)


def stream(ask: Ask, index: int, read: Read, *, pause_seconds: float = 0.0) -> Response:
    """Streams what *read* finds newer than *index*, until the client or the server goes.

    After a message it rests for *pause_seconds*, so that a busy store does not flood. 503 beyond the cap of watchers.
    """
    if ask.request.method == "HEAD":
        return Response(content_type=STREAM_TYPE)
    with ExitStack() as opening:
        opening.enter_context(ask.shared.watchers.one())
        opened = opening.pop_all()
    response = Response(_messages(ask, index, read, pause_seconds), content_type=STREAM_TYPE)
    # Not in a finally of the generator: it does not run when the generator was never begun.
    response.call_on_close(opened.close)
    return response


def _messages(ask: Ask, index: int, read: Read, pause_seconds: float) -> Iterator[bytes]:
    stopping = ask.deps.stopping
    yield b"retry: %d\n\n" % _RETRY_MILLISECONDS
    while not stopping.is_set():
        if ask.shared.waiter.until_newer(index, at_most=_KEEP_ALIVE, peer_gone=ask.peer_gone):
            try:
                index, found = read(index)
            except HistoryCut:
                # It fell behind. Its client comes back with the last id it saw, and is told so by a status.
                return
            if found:
                yield found
                stopping.wait(pause_seconds)
        elif ask.peer_gone():
            return
        else:
            # An id without data is no message, but the client then comes back with it: a filter that lets nothing
            # through for days does not end in 410.
            yield b": nothing new\nid: %d\n\n" % index
