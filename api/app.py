"""The control plane's HTTP API as a WSGI app, made from the route table. It changes nothing but what agents report."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Final

from flask import Flask, Response, g, request
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from api import (
    agent_output,
    agents,
    allocations,
    evaluations,
    events,
    jobs,
    metrics,
    nodes,
    notify,
    openapi,
    revisions,
    services,
    state,
    status,
    templates,
)
from api.ask import Ask
from api.doors import ApiDeps
from api.hints import READ_ONLY, hint_for
from api.page import routes as page
from api.problems import Problem, problem_response
from api.routing import Audience, Route
from api.shared import Shared
from api.waiting import DEFAULT_WAIT, MAX_WAIT
from trueup.models.codec import to_json
from trueup.serving import MAX_BODY_BYTES

ROUTES: Final[Sequence[Route]] = (
    *jobs.ROUTES,
    *templates.ROUTES,
    *nodes.ROUTES,
    *services.ROUTES,
    *allocations.ROUTES,
    *revisions.ROUTES,
    *evaluations.ROUTES,
    *events.ROUTES,
    *state.ROUTES,
    *status.ROUTES,
    *metrics.ROUTES,
    *openapi.ROUTES,
    *page.ROUTES,
    *agents.ROUTES,
    *agent_output.ROUTES,
    *notify.ROUTES,
)
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_POSTED_BY: Final = {"/notify": "the forge of the specs"}
_log = logging.getLogger(__name__)


def create_app(deps: ApiDeps) -> Flask:
    """The WSGI app over *deps*."""
    app = Flask("trueup", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    shared = Shared(deps, ROUTES)
    for route in ROUTES:
        app.add_url_rule(
            route.path,
            endpoint=f"{route.method} {route.path}",
            view_func=_view(shared, route),
            methods=[route.method],
            provide_automatic_options=False,
        )
    audiences = {f"{route.method} {route.path}": route.audience for route in ROUTES}
    app.before_request(lambda: _begin(shared, audiences))
    app.after_request(lambda response: _finish(shared, response))
    app.register_error_handler(Problem, problem_response)
    app.register_error_handler(HTTPException, lambda error: _http_error(shared, error))
    app.register_error_handler(Exception, _crash)
    return app


def _view(shared: Shared, route: Route) -> Callable[..., Response]:
    def view(**variables: str) -> Response:
        # Not the proxy: what is streamed is made after Flask has let go of the request.
        ask = Ask(shared, request_ctx.request)
        if route.waits:
            _wait(ask)
        answer = route.handler(ask, **variables)
        g.index = ask.answered_index
        return answer if isinstance(answer, Response) else _json(answer)

    return view


def _wait(ask: Ask) -> None:
    """Blocks as `?index=N&wait=30s` asks for, until something newer is there."""
    index = ask.integer("index")
    wait = ask.span("wait")
    if index is None:
        return
    wait = DEFAULT_WAIT if wait is None else min(wait, MAX_WAIT)
    ask.shared.waiter.check_index(index)
    if ask.shared.index > index or wait == timedelta():
        return
    g.waited = True
    with ask.shared.watchers.one():
        ask.shared.waiter.until_newer(index, at_most=wait, peer_gone=ask.peer_gone)


def _json(answer: object) -> Response:
    return Response(to_json(answer), content_type="application/json")


def _begin(shared: Shared, audiences: Mapping[str, Audience]) -> None:
    g.began = shared.deps.clock.monotonic()
    g.waited = False
    # What is answered is at least as new as this, also where an error ends the request before it reads anything.
    g.index = shared.index
    # Also where no route matches: what to do instead of a refused write is for readers.
    if audiences.get(request.endpoint or "", "readers") == "readers":
        shared.access.check_reader(request)


def _finish(shared: Shared, response: Response) -> Response:
    response.headers["X-Index"] = str(g.index)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    route = request.url_rule.rule if request.url_rule is not None else "none"
    seconds = None if g.waited or response.is_streamed else shared.deps.clock.monotonic() - g.began
    method = request.method if request.method in {"GET", "HEAD", "POST"} else "other"
    shared.metrics.count(method=method, route=route, status=response.status_code, seconds=seconds)
    return response


def _http_error(shared: Shared, error: HTTPException) -> Response:
    """What routing and parsing found wrong, as a problem; a refused write says what to change instead."""
    method, path = request.method, request.path
    if isinstance(error, MethodNotAllowed):
        allowed = sorted(error.valid_methods or ())
        hint = hint_for(shared.snapshots.at(shared.index), method, path)
        detail = (
            f"{path} is only POSTed to, by {_POSTED_BY.get(path, 'agents')}"
            if "POST" in allowed
            else hint or READ_ONLY
        )
        return problem_response(Problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, allow=", ".join(allowed)))
    if isinstance(error, NotFound):
        hint = (
            None if method in {"GET", "HEAD"} else hint_for(shared.snapshots.at(shared.index), method, path)
        )
        if hint is not None:
            return problem_response(Problem(HTTPStatus.METHOD_NOT_ALLOWED, hint, allow="GET, HEAD"))
        return problem_response(
            Problem(HTTPStatus.NOT_FOUND, f"there is nothing at {path}; /openapi.json lists what there is")
        )
    code = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    return problem_response(Problem(code, error.description or HTTPStatus(code).phrase))


def _crash(error: Exception) -> Response:
    _log.error("request failed: %s %s", request.method, request.path, exc_info=error)
    return problem_response(
        Problem(
            HTTPStatus.INTERNAL_SERVER_ERROR, "this is a fault of trueup; the server's log has the details"
        )
    )
