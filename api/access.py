"""Who may ask: the read token of people, the tokens of agents, and the Host check where there is no token.

Tokens are compared as bytes in constant time. A token travels as `Bearer`, or as the password of `Basic` so that a
browser can send it; agents use `Bearer` alone.
"""

import base64
import hmac
import ipaddress
from collections.abc import Callable, Sequence
from http import HTTPStatus

from flask import Request

from api.problems import Problem


class Access:
    """Checks requests against the tokens of the moment."""

    def __init__(
        self,
        *,
        read_token: Callable[[], str | None],
        cluster_token: Callable[[], str],
        allowed_hosts: Sequence[str],
    ) -> None:
        self._read_token = read_token
        self._cluster_token = cluster_token
        self._allowed_hosts = frozenset({"localhost", *(host.lower().rstrip(".") for host in allowed_hosts)})

    def check_reader(self, request: Request) -> None:
        """Lets a reader pass, or ends the request: 401 without the token, 421 for a Host that is not ours."""
        token = self._read_token()
        if token is None:
            self._check_host(request)
        elif not any(_same(offered, token) for offered in (bearer(request), _basic_password(request))):
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "the read token is needed: send it as `Authorization: Bearer TOKEN`, or as the password of Basic",
                www_authenticate='Basic realm="trueup", charset="UTF-8"',
            )

    def has_cluster_token(self, request: Request) -> bool:
        """Whether an agent shows the token that lets a node join."""
        return _same(bearer(request), self._cluster_token())

    def _check_host(self, request: Request) -> None:
        # A page of another site can make its own name resolve to this machine and then read what we answer (DNS
        # rebinding); its requests still carry that name. An address cannot be rebound.
        written = request.environ.get("HTTP_HOST")
        if written is None:
            return
        host = _host_name(written)
        if host in self._allowed_hosts or _is_address(host):
            return
        raise Problem(
            HTTPStatus.MISDIRECTED_REQUEST,
            f"{host!r} is not a name of this server; start it with --allowed-host for that name, "
            "or ask by its address",
        )


def bearer(request: Request) -> bytes | None:
    """The token of an `Authorization: Bearer …` header, or None."""
    scheme, _, token = _authorization(request).partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" and token.strip() else None


def _basic_password(request: Request) -> bytes | None:
    scheme, _, encoded = _authorization(request).partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        _, separator, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return password if separator else None


def _authorization(request: Request) -> bytes:
    # WSGI hands header bytes over as latin-1 text.
    return str(request.environ.get("HTTP_AUTHORIZATION", "")).encode("latin-1")


def _same(offered: bytes | None, token: str) -> bool:
    # An empty token would let everyone in whose header is empty.
    return offered is not None and token != "" and hmac.compare_digest(offered, token.encode())


def _host_name(written: str) -> str:
    host = written.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, separator, port = host.rpartition(":")
    return (name if separator and port.isdecimal() else host).rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
