"""`POST /notify`: a forge says that something was pushed, and the next poll is due now. Nothing else comes of it.

What it says is not read, only its signature: as GitHub, Gitea and Forgejo sign (HMAC-SHA256 of the body in hex), as
GitLab sends a secret token or signs with a signing token (Standard Webhooks). Any of them opens the door.
"""

import hashlib
import hmac
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from flask import Request, Response

from api.ask import Ask
from api.problems import Problem, not_found
from api.routing import Answer, Route
from trueup import signing

_PIECE: Final = 64 * 1024
_MOST: Final = 8
"""Standard Webhooks puts several signatures in one header while a secret is replaced; so many are looked at."""
_SIGNATURES: Final = ("X-Hub-Signature-256", "X-Forgejo-Signature", "X-Gitea-Signature")
_TOKEN: Final = "X-Gitlab-Token"  # noqa: S105 - the name of a header


def notify(ask: Ask) -> Answer:
    """Takes a signed nudge."""
    secret = ask.deps.notify_secret()
    if secret is None:
        raise not_found(
            "/notify is off: start the server with --notify-secret-file, which holds the secret it shares with the "
            "forge; until then the source is polled"
        )
    if not ask.shared.notifying.acquire(blocking=False):
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "others are being read; the source is polled anyway",
            retry_after="1",
        )
    try:
        signed = _is_signed(ask.request, secret)
    finally:
        ask.shared.notifying.release()
    if not signed:
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            f"no signature of this secret: {', '.join(_SIGNATURES)} or {_TOKEN} is wanted; "
            "compare the secret of the webhook with --notify-secret-file",
        )
    ask.shared.nudge()
    return Response(status=HTTPStatus.ACCEPTED)


def _is_signed(request: Request, secret: str) -> bool:
    token = request.headers.get(_TOKEN)
    if token is not None and _same(token, secret):
        return True
    plain = hmac.new(secret.encode(), digestmod=hashlib.sha256)
    identity = request.headers.get("Webhook-Id", ""), request.headers.get("Webhook-Timestamp", "")
    standard = signing.begin(secret, *identity)
    while piece := request.stream.read(_PIECE):
        plain.update(piece)
        standard.update(piece)
    wanted = plain.hexdigest()
    offered = [request.headers.get(name, "").removeprefix("sha256=") for name in _SIGNATURES]
    offered_standard = request.headers.get("Webhook-Signature", "").split()
    # All of them are compared, whatever the first one says.
    return any(
        [
            *(_same(one, wanted) for one in offered),
            *(_same(one, signing.finish(standard)) for one in offered_standard[:_MOST]),
        ]
    )


def _same(offered: str, wanted: str) -> bool:
    # WSGI hands headers over as latin-1 text; what is no ASCII must not raise.
    return hmac.compare_digest(offered.encode("latin-1", "replace"), wanted.encode())


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/notify",
        method="POST",
        handler=notify,
        about="A forge's signed nudge: the next poll is due now. 404 while no secret for it is given.",
        audience="forges",
        media_type="",
    ),
)
