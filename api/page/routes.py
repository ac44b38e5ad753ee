"""The routes of the status page: itself, what is live of it, the stream that calls for that, and its files."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final

import jinja2
from flask import Response

from api.ask import Ask
from api.page.view import MAX_REVISIONS, PageView, page_view
from api.problems import not_found
from api.routing import Answer, Route
from api.streams import STREAM_TYPE, message, resume_index, stream
from api.text import visible
from api.views.status import status_view
from trueup.models.revision import Revision

_HTML: Final = "text/html; charset=utf-8"
_ASSETS: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_PAUSE_SECONDS: Final = 0.5
"""Between two calls for new content: a person reads no faster, and a busy store changes often."""
_TONES: Final = {
    "good": ("Synced", "Healthy", "running", "complete", "ready", "applied"),
    "busy": ("Progressing", "pending", "starting", "stopping", "draining"),
    "warn": ("OutOfSync", "Unknown", "Missing", "unknown", "disconnected", "ineligible", "held", "unhealthy"),
    "bad": ("Invalid", "Degraded", "failed", "lost", "down", "incompatible", "invalid"),
}


def show_page(ask: Ask) -> Answer:
    """The status page."""
    return Response(_template("page.html").render(page=_view(ask)), content_type=_HTML)


def show_content(ask: Ask) -> Answer:
    """What is live of the page."""
    return Response(_template("content.html").render(page=_view(ask)), content_type=_HTML)


def stream_changes(ask: Ask) -> Answer:
    """A message with the index whenever there is something newer."""
    seen = resume_index(ask)

    def read(_index: int) -> tuple[int, bytes]:
        newest = ask.shared.index
        return newest, message(newest, str(newest).encode())

    return stream(ask, ask.index if seen is None else seen, read, pause_seconds=_PAUSE_SECONDS)


def show_asset(ask: Ask, asset: str) -> Answer:
    """One of the page's files."""
    media_type = _ASSETS.get(asset)
    if media_type is None:
        raise not_found(f"the page has no file {asset!r}")
    content, digest = _asset(asset)
    response = Response(content, content_type=media_type)
    response.set_etag(digest)
    response.headers["Cache-Control"] = "no-cache"
    return response.make_conditional(ask.request)


def _view(ask: Ask) -> PageView:
    state = ask.state
    summary = ask.shared.snapshots.summary(state)
    return page_view(
        state,
        summary,
        status_view(state, summary, ask.shared.source, ask.deps.version),
        _newest_revisions(ask),
        ask.deps.clock.now(),
    )


def _newest_revisions(ask: Ask) -> list[Revision]:
    entries = ask.deps.store.revisions(after=None, limit=MAX_REVISIONS, newest_first=True)
    return [entry.value for entry in entries]


@cache
def _asset(name: str) -> tuple[bytes, str]:
    content = (files("api.page") / "static" / name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:16]


@cache
def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("api.page", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_made_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tone"] = _tone
    environment.filters["stamp"] = _stamp
    environment.filters["reading"] = _reading
    return environment


def _made_visible(value: Any) -> Any:  # noqa: ANN401 - whatever a template prints
    # Markup is our own: macros, whose parts came through here already.
    return visible(value) if type(value) is str else value


def _tone(word: str) -> str:
    return next((tone for tone, words in _TONES.items() if word in words), "plain")


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _reading(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


ROUTES: Final[Sequence[Route]] = (
    Route(path="/", handler=show_page, about="The status page.", media_type="text/html"),
    Route(
        path="/page/content",
        handler=show_content,
        about="What is live of the status page.",
        media_type="text/html",
        listed=False,
    ),
    Route(
        path="/page/stream",
        handler=stream_changes,
        about="Server-sent events: the index, whenever there is something newer.",
        media_type=STREAM_TYPE,
        listed=False,
    ),
    Route(
        path="/page/<asset>",
        handler=show_asset,
        about="The status page's files.",
        media_type="*/*",
        listed=False,
    ),
)
