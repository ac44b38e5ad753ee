"""`/status`, and whether the server is up (`/healthz`) and can write (`/readyz`)."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, Literal

import msgspec

from api.ask import Ask
from api.problems import Problem
from api.routing import Route
from api.views.status import StatusView, status_view


class AliveView(msgspec.Struct, frozen=True, kw_only=True):
    """The server answers."""

    status: Literal["ok"] = "ok"


def show_status(ask: Ask) -> StatusView:
    """The whole in one answer."""
    state = ask.state
    return status_view(state, ask.shared.snapshots.summary(state), ask.shared.source, ask.deps.version)


def show_health(_ask: Ask) -> AliveView:
    """Answers as long as the process serves."""
    return AliveView()


def show_readiness(ask: Ask) -> AliveView:
    """200 once the store is writable, whatever the source does; else 503 with the reason."""
    reason = ask.deps.store.not_writable()
    if reason:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, f"the store cannot be written: {reason}", retry_after="5"
        )
    return AliveView()


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/status",
        handler=show_status,
        about="The whole: sync, health, what is held, the source, all errors, and sums.",
        answer=StatusView,
        waits=True,
    ),
    Route(
        path="/healthz",
        handler=show_health,
        about="Whether the server answers.",
        answer=AliveView,
        audience="everyone",
    ),
    Route(
        path="/readyz",
        handler=show_readiness,
        about="Whether the store can be written, whatever the source does.",
        answer=AliveView,
        audience="everyone",
    ),
)
