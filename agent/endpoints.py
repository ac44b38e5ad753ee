"""The agent's HTTP API, port 7431 (contract, section 4): pushes, reads and logs. A WSGI app for `trueup.serving`.

All but `/healthz` need the node's own secret; while the node has none, nothing is answered. What is pushed is taken
into the runner's durable list and done from there: the answer says that it was written, the heartbeat what came of it.
"""

import hmac
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol
from wsgiref.types import StartResponse, WSGIEnvironment

import msgspec
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from agent.contact import Standing
from agent.heartbeat import Orders
from agent.log_request import BadLogRequest
from agent.logs import LogReader
from agent.task_output import Allocations, TaskOutput
from trueup.agent_client import EPOCH_HEADER
from trueup.models.allocation import Allocation
from trueup.models.codec import from_json, to_json
from trueup.models.ids import AllocationId
from trueup.models.wire import Assignment, StopOrder
from trueup.serving import PATIENCE, PEER_GONE

_ROUTES: Final = Map(
    [
        Rule("/healthz", endpoint="healthz", methods=["GET"]),
        Rule("/allocations", endpoint="list", methods=["GET"]),
        Rule("/allocations", endpoint="start", methods=["POST"]),
        Rule("/allocations/<id>", endpoint="show", methods=["GET"]),
        Rule("/allocations", endpoint="stop", methods=["DELETE"]),
        Rule("/allocations/<id>", endpoint="stop", methods=["DELETE"]),
        Rule("/allocations/<id>/logs", endpoint="logs", methods=["GET"]),
        Rule("/nudge", endpoint="nudge", methods=["POST"]),
    ]
)
_OPEN: Final = frozenset({"healthz"})
WRITE_SECONDS: Final = 4.0
"""How long a push waits for its being written: less than its sender does."""
FOLLOWERS: Final = 16
"""How many logs are followed at once at most: each costs a thread."""
READERS: Final = 16
"""How many are read side by side without being followed: a reader may be slow."""
READER_SECONDS: Final = 2.0
"""How long one more waits for its turn."""
PAGE_SECONDS: Final = 600.0
"""How long a reader may take for the next part."""


class Pushes(Orders, Protocol):
    """Who takes orders, and says when they are written (`agent.runner.Runner`)."""

    def when_written(self, listener: Callable[[], None]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointDeps:
    """All the app needs. *secret* is the node's own, empty while it has none; *trouble* why the server is not heard.

    *nudge* has the next heartbeat sent at once.
    """

    secret: Callable[[], str]
    standing: Standing
    orders: Pushes
    allocations: Allocations
    logs: LogReader
    trouble: Callable[[], str]
    nudge: Callable[[], None]
    stopping: threading.Event


class AgentApp:
    """The WSGI app."""

    def __init__(self, deps: EndpointDeps) -> None:
        self._deps = deps
        self._output = TaskOutput(
            deps.allocations, deps.logs, stopping=deps.stopping.is_set, wait=deps.stopping.wait
        )
        self._readers = threading.BoundedSemaphore(READERS)
        self._followers = threading.BoundedSemaphore(FOLLOWERS)
        self._handlers: Mapping[str, Callable[[Request, Mapping[str, str]], Response]] = {
            "healthz": self._healthz,
            "list": self._list,
            "start": self._start,
            "show": self._show,
            "stop": self._stop,
            "logs": self._logs,
            "nudge": self._nudge,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        try:
            endpoint, values = _ROUTES.bind_to_environ(environ).match()
            if endpoint not in _OPEN:
                self._check_secret(request)
            response = self._handlers[endpoint](request, values)
        except _Problem as problem:
            response = _problem(problem.status, str(problem))
        except NotFound:
            response = _problem(HTTPStatus.NOT_FOUND, f"there is no {request.path} here")
        except MethodNotAllowed as error:
            response = _problem(
                HTTPStatus.METHOD_NOT_ALLOWED, f"{request.path} takes {', '.join(error.valid_methods or ())}"
            )
        except HTTPException as error:
            response = _problem(HTTPStatus(error.code or 400), error.description or "")
        return response(environ, start_response)

    def _check_secret(self, request: Request) -> None:
        secret = self._deps.secret()
        kind, _, shown = request.headers.get("Authorization", "").partition(" ")
        known = bool(secret) and kind.lower() == "bearer"
        if not known or not hmac.compare_digest(shown.strip().encode(), secret.encode()):
            raise _Problem(
                HTTPStatus.UNAUTHORIZED, "the node's own secret is needed: `Authorization: Bearer SECRET`"
            )

    def _healthz(self, _request: Request, _values: Mapping[str, str]) -> Response:
        trouble = self._deps.trouble()
        return _json({"status": "ok", "control_plane": "unreachable" if trouble else "heard"})

    def _list(self, _request: Request, _values: Mapping[str, str]) -> Response:
        return _json({"items": self._deps.allocations.allocations(), "next": None})

    def _show(self, _request: Request, values: Mapping[str, str]) -> Response:
        return _json(self._found(values))

    def _start(self, request: Request, _values: Mapping[str, str]) -> Response:
        body = request.get_data(cache=False)
        try:
            listed = body.lstrip()[:1] == b"["
            assignments = from_json(body, list[Assignment]) if listed else [from_json(body, Assignment)]
        except (msgspec.DecodeError, ValueError) as error:
            raise _Problem(HTTPStatus.BAD_REQUEST, f"the body is no assignment: {error}") from error
        if self._word(request) == "refuse":
            raise _Problem(
                HTTPStatus.CONFLICT, "this push comes from an older copy of the control plane's store"
            )
        self._deps.orders.assign(assignments)
        self._await_written()
        return _json({"accepted": len(assignments)}, HTTPStatus.ACCEPTED)

    def _stop(self, request: Request, values: Mapping[str, str]) -> Response:
        if self._word(request) != "obey":
            raise _Problem(
                HTTPStatus.CONFLICT, "this agent obeys no stop before the control plane has adopted what runs"
            )
        reason = request.args.get("reason", "")
        ids = [values["id"]] if "id" in values else request.args.getlist("id")
        if not ids:
            raise _Problem(
                HTTPStatus.BAD_REQUEST, "say which: DELETE /allocations/ID, or ?id=ID for each of several"
            )
        self._deps.orders.stop([StopOrder(id=AllocationId(one), reason=reason) for one in ids])
        self._await_written()
        return _json({"accepted": len(ids)}, HTTPStatus.ACCEPTED)

    def _nudge(self, _request: Request, _values: Mapping[str, str]) -> Response:
        self._deps.nudge()
        return _json({"status": "ok"}, HTTPStatus.ACCEPTED)

    def _await_written(self) -> None:
        written = threading.Event()
        self._deps.orders.when_written(written.set)
        if not written.wait(WRITE_SECONDS):
            raise _Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the agent cannot write its list now; see its log")

    def _word(self, request: Request) -> str:
        epoch = request.headers.get(EPOCH_HEADER, "")
        return self._deps.standing.judge_push(int(epoch) if epoch.isdecimal() else None)

    def _logs(self, request: Request, values: Mapping[str, str]) -> Response:
        allocation_id = AllocationId(values["id"])
        try:
            asked = self._output.asked(allocation_id, request.args.to_dict())
        except BadLogRequest as error:
            raise _Problem(HTTPStatus(error.status), str(error)) from error
        gone: Callable[[], bool] = request.environ.get(PEER_GONE, lambda: False)
        patience: Callable[[float], None] = request.environ.get(PATIENCE, lambda _seconds: None)
        places = self._followers if asked.follow else self._readers
        if not places.acquire(timeout=0 if asked.follow else READER_SECONDS):
            raise _Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{FOLLOWERS} logs are followed here already; try again later"
                if asked.follow
                else f"{READERS} logs are read here already; try again later",
            )
        # The control plane reads no faster than whoever reads there.
        patience(PAGE_SECONDS)
        chunks = self._output.open(allocation_id, asked, left=gone)
        response = Response(chunks, content_type="text/plain; charset=utf-8")
        response.call_on_close(places.release)
        return response

    def _found(self, values: Mapping[str, str]) -> Allocation:
        allocation = self._deps.allocations.allocation(AllocationId(values["id"]))
        if allocation is None:
            raise _Problem(HTTPStatus.NOT_FOUND, f"this node holds no allocation {values['id']!r}")
        return allocation


class _Problem(Exception):
    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(to_json(value), status=status, content_type="application/json")


def _problem(status: HTTPStatus, detail: str) -> Response:
    """RFC 9457."""
    body = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail}
    return Response(msgspec.json.encode(body), status=status, content_type="application/problem+json")
