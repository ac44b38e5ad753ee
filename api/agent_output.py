"""`POST /listen` and `POST /log-orders/<id>`, agents only: one that cannot be reached brings its tasks' output."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from flask import Response

from api.agents import body_of, refused, secret_of
from api.ask import Ask
from api.doors import BroughtLogs, LogsUnavailable, NoSuchOrder
from api.problems import PROBLEM_TYPE, Problem, ProblemDocument, bad_request, not_found
from api.routing import Answer, Parameter, Route
from trueup.models.codec import to_json, understood
from trueup.models.log_order import ListenRequest, ListenResponse, LogTaken

PIECE_BYTES: Final = 1024 * 1024
"""How large a piece may be; agents send smaller ones."""
_UNKNOWN: Final = "register again with the cluster token"
_NOT_WAITED_FOR: Final = "nobody waits for this output any more"


def listen(ask: Ask) -> Answer:
    """Holds the agent until there is output to bring, or something else to say."""
    secret, request = secret_of(ask), body_of(ask, ListenRequest)
    brought, node = _brought(ask), ask.deps.store.state.nodes.get(request.node_id)
    if node is None:
        raise refused(_UNKNOWN)
    try:
        answer = brought.listen(node, secret, peer_gone=ask.peer_gone)
    except NoSuchOrder:
        raise refused(_UNKNOWN) from None
    return Response(to_json(answer), content_type="application/json")


def take_output(ask: Ask, id: str) -> Answer:  # noqa: A002 - the path's variable is called so
    """Takes in a piece of output, or the problem that says why there is none."""
    secret, brought = secret_of(ask), _brought(ask)
    length = ask.request.content_length
    if length is None:
        raise Problem(HTTPStatus.LENGTH_REQUIRED, "a piece says its Content-Length")
    if length > PIECE_BYTES:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a piece has {PIECE_BYTES} bytes at most, not {length}"
        )
    try:
        if ask.request.mimetype == PROBLEM_TYPE:
            brought.refuse(id, secret, _refusal(ask.request.get_data(cache=False)))
            taken = LogTaken(received=0, room=0)
        else:
            at, is_last = ask.integer("at") or 0, ask.flag("last")
            taken = brought.take(id, secret, ask.request.get_data(cache=False), at=at, is_last=is_last)
    except NoSuchOrder:
        raise not_found(_NOT_WAITED_FOR) from None
    except ValueError as error:
        raise bad_request(str(error)) from error
    return Response(to_json(taken), content_type="application/json")


def _brought(ask: Ask) -> BroughtLogs:
    brought = ask.deps.brought_logs
    if brought is None:
        raise not_found(_NOT_WAITED_FOR)
    return brought


def _refusal(body: bytes) -> LogsUnavailable:
    try:
        told = msgspec.json.decode(body, type=understood(ProblemDocument))
    except msgspec.DecodeError as error:
        raise ValueError(f"the body is no problem: {error}") from error
    passed_on = told.status in {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
    return LogsUnavailable(told.status if passed_on else HTTPStatus.BAD_GATEWAY, told.detail)


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/listen",
        method="POST",
        handler=listen,
        about="An agent that cannot be reached waits for what there is to say before its next heartbeat.",
        body=ListenRequest,
        answer=ListenResponse,
        audience="agents",
    ),
    Route(
        path="/log-orders/<id>",
        method="POST",
        handler=take_output,
        about="An agent that cannot be reached brings a piece of output it was told of, as raw bytes, or a problem.",
        raw_body="application/octet-stream",
        answer=LogTaken,
        parameters=(
            Parameter(
                name="at", kind="integer", about="Where the piece begins, in bytes brought before (0)."
            ),
            Parameter(name="last", kind="boolean", about="All of it was brought."),
        ),
        audience="agents",
    ),
)
