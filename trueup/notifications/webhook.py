"""One POST to a webhook: to allowed hosts alone, no redirect, certificates checked, over within seconds whatever comes.

What went wrong is said without the address: its path is often a secret itself.
"""

import base64
import http.client
import socket
import ssl
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from trueup import __version__

SECONDS: Final = 10.0
"""How long one delivery may take in all, however slowly its receiver reads or answers."""
_PORTS: Final = {"https": 443, "http": 80}
_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (ssl.SSLCertVerificationError, "its certificate is not trusted"),
    (ssl.SSLError, "TLS fails with it"),
    (socket.gaierror, "its name is not found"),
    (ConnectionRefusedError, "it refuses connections"),
    (TimeoutError, "it does not answer in time"),
    (OSError, "the connection breaks off"),
    (http.client.HTTPException, "it does not answer in HTTP"),
    (ValueError, "its address cannot be used"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """*problem* is empty if it was taken (2xx); *retry_after_seconds*: as the receiver asks."""

    problem: str = ""
    retry_after_seconds: int = 0


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allowed_hosts: Collection[str],
    seconds: float = SECONDS,
) -> Outcome:
    """Posts *body* as JSON. *allowed_hosts* are `HOST`, for the scheme's own port, or `HOST:PORT`."""
    try:
        parts = urlsplit(url)
        problem = _refused(parts, allowed_hosts)
        return Outcome(problem=problem) if problem else _post(parts, body, headers, seconds)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Outcome(problem=next(words for kind, words in _WORDS if isinstance(error, kind)))


def _refused(parts: SplitResult, allowed_hosts: Collection[str]) -> str:
    host, scheme = (parts.hostname or "").lower(), parts.scheme
    if scheme not in _PORTS or not host:
        return "its address is neither https:// nor http://"
    port = parts.port or _PORTS[scheme]
    allowed = {one.lower() for one in allowed_hosts}
    shown = f"[{host}]" if ":" in host else host
    if f"{shown}:{port}" in allowed or (port == _PORTS[scheme] and {host, shown} & allowed):
        return ""
    return "its host is not allowed: start the server with --notification-host for it"


def _post(parts: SplitResult, body: bytes, headers: Mapping[str, str], seconds: float) -> Outcome:
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    connection = (
        http.client.HTTPSConnection(host, port, timeout=seconds, context=ssl.create_default_context())
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=seconds)
    )
    late = threading.Event()

    def cut() -> None:
        late.set()
        if connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    # The timeout of a socket is that of each read: a receiver that sends a byte now and then would hold us for ever.
    deadline = threading.Timer(seconds, cut)
    deadline.daemon = True
    deadline.start()
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {**_headers(parts), **headers})
        outcome = _outcome(connection.getresponse())
    except (OSError, http.client.HTTPException):
        if late.is_set():
            raise TimeoutError from None
        raise
    else:
        if late.is_set():
            # Half of an answer that was cut reads like a whole one.
            raise TimeoutError
        return outcome
    finally:
        deadline.cancel()
        connection.close()


def _headers(parts: SplitResult) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": f"trueup/{__version__}"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return headers


def _outcome(answer: http.client.HTTPResponse) -> Outcome:
    if 200 <= answer.status < 300:
        return Outcome()
    wait = answer.getheader("Retry-After", "")
    more = ", a redirect, which is not followed" if 300 <= answer.status < 400 else ""
    return Outcome(
        problem=f"it answers {answer.status}{more}",
        retry_after_seconds=int(wait) if wait.isascii() and wait.isdecimal() and len(wait) < 6 else 0,
    )
