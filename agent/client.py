"""The control plane over HTTP, as `agent.doors.ControlPlane`. Every call has a deadline.

No proxy of the environment is used and no redirect is followed: the requests carry the node's secret.
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec
import requests
from requests.adapters import HTTPAdapter

from agent.doors import Refused, Unknown, Unreachable
from trueup.models.codec import Model, from_json, to_json
from trueup.models.log_order import ListenRequest, ListenResponse, LogTaken
from trueup.models.wire import HeartbeatRequest, HeartbeatResponse, RegisterRequest, RegisterResponse

CONNECT_SECONDS: Final = 3.0
READ_SECONDS: Final = 10.0
"""How long an answer may take: the server may hold a beat open for less than this."""
LISTEN_SECONDS: Final = 30.0
"""As `READ_SECONDS`, of a request that the server holds open."""
_CONNECTIONS: Final = 72
"""How many are kept at most: for heartbeats, for listening, and for output that is brought (`agent.log_courier`)."""
_MAX_DETAIL: Final = 500
_FOR_GOOD: Final = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}

T = TypeVar("T")


class HttpControlPlane:
    """One control plane, known by one or more addresses; the next is tried when one does not answer."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        secret: Callable[[], str],
        cluster_token: Callable[[], str | None],
        tls_ca: Path | None = None,
    ) -> None:
        """*secret* is the node's own, empty while it has none; *cluster_token* lets it join."""
        self._urls = [url.rstrip("/") for url in urls]
        self._current = 0
        self._secret = secret
        self._cluster_token = cluster_token
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = True if tls_ca is None else str(tls_ca)
        adapter = HTTPAdapter(pool_connections=len(self._urls), pool_maxsize=_CONNECTIONS)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def register(self, request: RegisterRequest) -> RegisterResponse:
        """Comes back with the node's secret, else joins with the cluster token. Unreachable, Refused."""
        secret = self._secret()
        if secret:
            try:
                return self._ask("/register", request, secret, RegisterResponse)
            except Unknown:
                pass
        token = self._cluster_token()
        if not token:
            raise Refused(
                "the control plane does not know this node, and there is no cluster token: give --token-file"
            )
        try:
            return self._ask("/register", request, token, RegisterResponse)
        except Unknown as error:
            raise Refused(
                f"the control plane refuses the cluster token ({error}): give the content of its DATA/cluster-token"
            ) from error

    def heartbeat(self, request: HeartbeatRequest) -> HeartbeatResponse:
        """One beat. Unreachable; Unknown where the secret is not known; Refused."""
        return self._ask("/heartbeat", request, self._secret(), HeartbeatResponse)

    def listen(self, request: ListenRequest) -> ListenResponse:
        """Waits for what there is to do before the next heartbeat. Unreachable, Unknown, Refused."""
        return self._told(
            "/listen", to_json(request), ListenResponse, content="application/json", seconds=LISTEN_SECONDS
        )

    def bring(self, order_id: str, piece: bytes, *, at: int, is_last: bool) -> LogTaken:
        """Brings a piece of output that was ordered. Unreachable; Unknown; Refused where nobody waits for it."""
        path = f"/log-orders/{quote(order_id, safe='')}?at={at}{'&last=true' if is_last else ''}"
        return self._told(path, piece, LogTaken, content="application/octet-stream")

    def bring_refusal(self, order_id: str, status: int, detail: str) -> None:
        """Says why there is no output. Unreachable; Unknown; Refused where nobody waits for it."""
        problem = {"title": HTTPStatus(status).phrase, "status": int(status), "detail": detail}
        path = f"/log-orders/{quote(order_id, safe='')}"
        self._told(path, msgspec.json.encode(problem), LogTaken, content="application/problem+json")

    def close(self) -> None:
        """Closes kept connections."""
        self._session.close()

    def _ask(self, path: str, body: Model, token: str, kind: type[T]) -> T:
        url = self._urls[self._current]
        try:
            response = self._post(url + path, to_json(body), token)
        except requests.RequestException as error:
            self._current = (self._current + 1) % len(self._urls)
            raise Unreachable(f"{url}: {_in_words(error)}") from error
        if response.status_code == HTTPStatus.OK:
            try:
                return from_json(response.content, kind)
            except (msgspec.DecodeError, ValueError) as error:
                raise Unreachable(f"{url}: no answer of a control plane: {error}") from error
        detail = f"{url}: {_detail(response)}"
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            raise Unknown(detail)
        if response.status_code in _FOR_GOOD:
            raise Refused(detail, again_seconds=_again_seconds(response))
        self._current = (self._current + 1) % len(self._urls)
        raise Unreachable(detail)

    def _told(
        self, path: str, body: bytes, kind: type[T], *, content: str, seconds: float = READ_SECONDS
    ) -> T:
        """Asks whom the heartbeats ask: where that one is away, they find the next."""
        url = self._urls[self._current] + path
        try:
            response = self._post(url, body, self._secret(), content=content, seconds=seconds)
        except requests.RequestException as error:
            raise Unreachable(_in_words(error)) from error
        if response.status_code == HTTPStatus.OK:
            try:
                return from_json(response.content, kind)
            except (msgspec.DecodeError, ValueError) as error:
                raise Unreachable(f"no answer of a control plane: {error}") from error
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            raise Unknown(_detail(response))
        if response.status_code in _FOR_GOOD:
            raise Refused(_detail(response))
        raise Unreachable(_detail(response))

    def _post(
        self,
        url: str,
        body: bytes,
        token: str,
        *,
        content: str = "application/json",
        seconds: float = READ_SECONDS,
    ) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": content}
        return self._session.post(
            url, data=body, headers=headers, timeout=(CONNECT_SECONDS, seconds), allow_redirects=False
        )


def _in_words(error: requests.RequestException) -> str:
    if isinstance(error, requests.ConnectTimeout | requests.ReadTimeout):
        return "no answer in time"
    cause: BaseException = error
    while cause.args and isinstance(cause.args[0], BaseException):
        cause = cause.args[0]
    reason = getattr(cause, "reason", None)
    return str(reason or cause)[:_MAX_DETAIL]


def _again_seconds(response: requests.Response) -> float | None:
    told = response.headers.get("Retry-After", "")
    return float(told) if told.isascii() and told.isdigit() else None


def _detail(response: requests.Response) -> str:
    try:
        document = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("detail"), str):
        return str(document["detail"])[:_MAX_DETAIL]
    return f"answered {response.status_code} {response.reason}"
