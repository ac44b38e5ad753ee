"""The output of tasks, fetched from the agent that ran them, or brought by it where it cannot be reached.

`http.client` and not requests: a followed log is silent for hours, and only who holds the socket can end a read that
waits on it. It follows no redirects and knows no proxies, which is wanted here: the request carries the node's secret.
"""

import contextlib
import http.client
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final, TypeAlias
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from api.doors import LogsUnavailable
from api.log_relay import LogRelay
from api.problems import ProblemDocument
from api.reach import Reach
from trueup.models.codec import understood
from trueup.models.ids import AllocationId, NodeId
from trueup.models.node import Node

_CONNECT_SECONDS: Final = 1.5
_READ_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 1.0
_CHUNK_BYTES: Final = 64 * 1024
_CHUNKS_AHEAD: Final = 8
_END: Final = None
_TOLD: Final = {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE}

_Chunks: TypeAlias = "queue.Queue[bytes | Exception | None]"
"""What was read ahead; an exception or `_END` is the last."""


class AgentLogs:
    """A `LogSource` that asks the agent, with the node's own secret; where that fails, the agent is to bring it."""

    def __init__(
        self,
        secret_of: Callable[[NodeId], str | None],
        *,
        tls: Callable[[Node], ssl.SSLContext] | None = None,
        reach: Reach | None = None,
        relay: LogRelay | None = None,
    ) -> None:
        """*secret_of* gives a node's secret; *tls* the context for endpoints that speak https.

        *reach* remembers who could not be reached; without *relay* no agent brings output.
        """
        self._secret_of = secret_of
        self._tls = tls
        self._reach = reach
        self._relay = relay

    @contextmanager
    def logs(
        self, node: Node, allocation_id: AllocationId, params: Mapping[str, str]
    ) -> Iterator[Iterator[bytes]]:
        """Opens the output. LogsUnavailable says why not, in the agent's own words where it answered."""
        path = f"/allocations/{quote(allocation_id, safe='')}/logs?{urlencode(params)}"
        with contextlib.ExitStack() as opened:
            try:
                chunks = self._fetched(node, path, opened, follows=params.get("follow") == "true")
            except _NotReached as error:
                chunks = self._brought(node, allocation_id, params, error, opened)
            yield chunks

    def _fetched(
        self, node: Node, path: str, opened: contextlib.ExitStack, *, follows: bool
    ) -> Iterator[bytes]:
        if self._reach is not None and self._reach.is_away(node):
            raise _NotReached(HTTPStatus.BAD_GATEWAY, f"node {node.name} cannot be reached from here")
        try:
            connection = opened.enter_context(contextlib.closing(self._connect(node)))
            # http.client forgets its socket when the answer ends with the connection.
            held = connection.sock
            response = opened.enter_context(contextlib.closing(self._ask(node, connection, path)))
        except _NotReached:
            self._note(node, reached=False)
            raise
        self._note(node, reached=True)
        if follows:
            return opened.enter_context(_read_ahead(node, held, response))
        return _chunks(node, response)

    def _brought(
        self,
        node: Node,
        allocation_id: AllocationId,
        params: Mapping[str, str],
        error: "_NotReached",
        opened: contextlib.ExitStack,
    ) -> Iterator[bytes]:
        if self._relay is None:
            raise error
        why_not = self._relay.why_not(node)
        if why_not is not None:
            raise LogsUnavailable(error.status, f"{error.detail}; {why_not}")
        return opened.enter_context(self._relay.output(node, allocation_id, params))

    def _note(self, node: Node, *, reached: bool) -> None:
        if self._reach is not None:
            self._reach.note(node, reached=reached)

    def _connect(self, node: Node) -> http.client.HTTPConnection:
        endpoint = urlsplit(node.endpoint)
        if endpoint.hostname is None:
            raise _NotReached(
                HTTPStatus.BAD_GATEWAY, f"node {node.name} offers no endpoint to read its output from"
            )
        connection: http.client.HTTPConnection
        if endpoint.scheme == "https":
            context = None if self._tls is None else self._tls(node)
            connection = http.client.HTTPSConnection(
                endpoint.hostname, endpoint.port, timeout=_CONNECT_SECONDS, context=context
            )
        else:
            connection = http.client.HTTPConnection(
                endpoint.hostname, endpoint.port, timeout=_CONNECT_SECONDS
            )
        try:
            connection.connect()
        except OSError as error:
            raise _not_reached(node, error) from error
        connection.sock.settimeout(_READ_SECONDS)
        return connection

    def _ask(self, node: Node, connection: http.client.HTTPConnection, path: str) -> http.client.HTTPResponse:
        secret = self._secret_of(node.id)
        try:
            connection.request(
                "GET", path, headers={"Authorization": f"Bearer {secret}", "Connection": "close"}
            )
            response = connection.getresponse()
            if response.status == HTTPStatus.OK:
                return response
            detail = _detail(response)
        except (OSError, http.client.HTTPException) as error:
            raise _not_reached(node, error) from error
        if response.status in _TOLD:
            raise LogsUnavailable(response.status, f"node {node.name}: {detail}")
        # Whoever answers so is not the agent: another node's, or a program that came to its address.
        raise _NotReached(HTTPStatus.BAD_GATEWAY, f"node {node.name}: {detail}")


class _NotReached(LogsUnavailable):
    """The agent itself said nothing."""


def _chunks(node: Node, response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(_CHUNK_BYTES):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _not_reached(node, error) from error


@contextmanager
def _read_ahead(
    node: Node, held: socket.socket, response: http.client.HTTPResponse
) -> Iterator[Iterator[bytes]]:
    """The chunks of an answer that may be silent for long: b"" whenever there was nothing for a while."""
    chunks: _Chunks = queue.Queue(_CHUNKS_AHEAD)
    left = threading.Event()
    held.settimeout(None)
    _notice_a_dead_peer(held)
    thread = threading.Thread(target=_fill, args=(response, chunks, left), name="log-follow", daemon=True)
    thread.start()
    try:
        yield _drain(node, chunks)
    finally:
        left.set()
        with contextlib.suppress(OSError):
            held.shutdown(socket.SHUT_RDWR)
        thread.join(_READ_SECONDS)


def _fill(response: http.client.HTTPResponse, chunks: _Chunks, left: threading.Event) -> None:
    chunk: bytes | Exception | None = b""
    while isinstance(chunk, bytes) and not left.is_set():
        try:
            chunk = response.read1(_CHUNK_BYTES) or _END
        except (OSError, ValueError, http.client.HTTPException) as error:
            chunk = error
        _put(chunks, chunk, left)


def _put(chunks: _Chunks, chunk: bytes | Exception | None, left: threading.Event) -> None:
    """Waits for room as long as anyone reads: a slow reader slows its task's log down nowhere but here."""
    while not left.is_set():
        with contextlib.suppress(queue.Full):
            chunks.put(chunk, timeout=_IDLE_SECONDS)
            return


def _drain(node: Node, chunks: _Chunks) -> Iterator[bytes]:
    while True:
        try:
            chunk = chunks.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            chunk = b""
        if chunk is _END:
            return
        if isinstance(chunk, Exception):
            raise _not_reached(node, chunk) from chunk
        yield chunk


def _notice_a_dead_peer(held: socket.socket) -> None:
    """A node that lost its power sends no end of stream: probe it after half a minute of silence."""
    held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    held.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    held.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    held.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def _detail(response: http.client.HTTPResponse) -> str:
    text = response.read(_CHUNK_BYTES)
    try:
        return msgspec.json.decode(text, type=understood(ProblemDocument)).detail
    except (msgspec.DecodeError, ValueError):
        return f"answered {response.status} {response.reason}"


def _not_reached(node: Node, error: Exception) -> _NotReached:
    status = HTTPStatus.GATEWAY_TIMEOUT if isinstance(error, TimeoutError) else HTTPStatus.BAD_GATEWAY
    return _NotReached(
        status, f"node {node.name} gives no output now ({error}); its tasks go on all the same"
    )
