"""`POST /register` and `POST /heartbeat`: agents only. What they mean is `metastore.membership`'s."""

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from flask import Response

from api.access import bearer
from api.ask import Ask
from api.problems import Problem, bad_request
from api.routing import Answer, Route
from metastore.errors import NameTaken, StoreUnavailable, UnknownNode
from trueup.models.codec import from_json, to_json
from trueup.models.wire import HeartbeatRequest, HeartbeatResponse, RegisterRequest, RegisterResponse

T = TypeVar("T")


def register(ask: Ask) -> Answer:
    """Takes a node in: with the cluster token, or with the secret it was given before."""
    joined = ask.shared.access.has_cluster_token(ask.request)
    secret = None if joined else secret_of(ask)
    request = body_of(ask, RegisterRequest)
    try:
        answer = ask.deps.membership.register(
            request, joined=joined, secret=secret, peer=ask.request.remote_addr or ""
        )
    except UnknownNode as error:
        raise refused(str(error) or "neither the cluster token nor the secret of a known node") from error
    except NameTaken as error:
        raise _taken(error) from error
    except StoreUnavailable as error:
        raise _not_now(error) from error
    return _json(answer)


def heartbeat(ask: Ask) -> Answer:
    """Takes one beat of a node."""
    secret = secret_of(ask)
    request = body_of(ask, HeartbeatRequest)
    try:
        answer = ask.deps.membership.heartbeat(request, secret=secret)
    except UnknownNode as error:
        raise refused(str(error) or "register again with the cluster token") from error
    except StoreUnavailable as error:
        raise _not_now(error) from error
    brought = ask.deps.brought_logs
    if brought is not None:
        answer = brought.answer(request, answer, ask.deps.store.state.nodes.get(request.node_id))
    return _json(answer)


def secret_of(ask: Ask) -> str:
    """The secret an agent shows; 401 without."""
    token = bearer(ask.request)
    if token is None:
        raise refused("a token is needed: send it as `Authorization: Bearer TOKEN`")
    # What is no text cannot be a secret we gave out; it fails at the comparison like any other.
    return token.decode("utf-8", "replace")


def body_of(ask: Ask, kind: type[T]) -> T:
    """What an agent says; 400 if it is none."""
    try:
        return from_json(ask.request.get_data(cache=False), kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise bad_request(f"the body is no {kind.__name__}: {error}") from error


def refused(detail: str) -> Problem:
    """401."""
    return Problem(HTTPStatus.UNAUTHORIZED, detail, www_authenticate='Bearer realm="trueup agents"')


def _taken(error: NameTaken) -> Problem:
    again = error.again_seconds
    headers = {} if again is None else {"retry_after": str(math.floor(again) + 1)}
    return Problem(HTTPStatus.CONFLICT, str(error), **headers)


def _not_now(error: StoreUnavailable) -> Problem:
    # What the agent said is not kept; it says it again with its next beat.
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"the store cannot be written: {error}", retry_after="5")


def _json(answer: object) -> Response:
    return Response(to_json(answer), content_type="application/json")


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/register",
        method="POST",
        handler=register,
        about="A node makes itself known, with all it holds.",
        body=RegisterRequest,
        answer=RegisterResponse,
        audience="agents",
    ),
    Route(
        path="/heartbeat",
        method="POST",
        handler=heartbeat,
        about="A node reports what changed, and hears what to do.",
        body=HeartbeatRequest,
        answer=HeartbeatResponse,
        audience="agents",
    ),
)
