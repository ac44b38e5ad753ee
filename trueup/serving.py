"""Serves a WSGI app over HTTP or TLS inside this process: control plane and agent alike, on cheroot.

Eight things cheroot does not do by itself, each the answer to a measured fault:
- A connection waits in the selector until its first byte is there, and TLS handshakes happen in a worker. As
  shipped, cheroot hands a new connection to a worker at once and shakes hands in the accept loop: some silent
  peers then stop every other client.
- `stop` first sets *stopping*, on which parked handlers wait. Without it, cheroot's stop hangs on them for ever.
- Each watcher costs a thread, so the pool is the cap of watchers and `SPARE_THREADS` more: watchers never starve
  heartbeats. The app enforces the cap.
- A refused request's body is thrown away piece by piece, not read into memory.
- A stream's status and headers are sent when the app has made them, not with its first words.
- A parked handler can ask whether its client is still there (`PEER_GONE`).
- What a person reads page by page is not broken off when that takes longer than a write may (`PATIENCE`).
- Whatever peers do wrong goes to a logger at debug, never to stderr.
"""

import contextlib
import logging
import os
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from cheroot.server import HTTPConnection
from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Gateway_10, Server

SPARE_THREADS: Final = 32
"""Workers that are never parked: for heartbeats, and for reads that answer at once."""
IO_SECONDS: Final = 10.0
"""How long a peer may take for one read or write; also how long a new connection may stay silent."""
KEEP_ALIVE_SECONDS: Final = 75.0
"""How long an idle connection that has spoken before is kept; longer than an agent's heartbeat interval."""
MAX_BODY_BYTES: Final = 16 * 1024**2
MAX_HEADER_BYTES: Final = 64 * 1024
_BACKLOG: Final = 512
_SHUTDOWN_SECONDS: Final = 3.0
_DISCARD_BYTES: Final = 64 * 1024

PEER_GONE: Final = "trueup.peer_gone"
"""Key of the environ: a `Callable[[], bool]` that tells whether the client hung up."""

PATIENCE: Final = "trueup.patience"
"""Key of the environ: a `Callable[[float], None]` that says how many seconds the client may take to read the next part
of this answer. Only for handlers of which there are no more than `watch_cap`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """A certificate (with its chain) and its private key, both PEM."""

    certificate: Path
    key: Path


def tls_files(certificate: Path | None, key: Path | None) -> TlsFiles | None:
    """The pair, or None where one of them is not given."""
    return None if certificate is None or key is None else TlsFiles(certificate=certificate, key=key)


class CannotServe(Exception):
    """The address cannot be bound, or the certificate cannot be used; says which and why."""


class HttpServer:
    """One listener with its pool of threads. Started once, stopped once; `stop` may be repeated."""

    def __init__(
        self,
        app: WSGIApplication,
        bind: tuple[str, int],
        *,
        stopping: threading.Event,
        on_stop: Callable[[], None] = lambda: None,
        watch_cap: int = 0,
        tls: TlsFiles | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """Prepares a server of *app*; binds nothing yet.

        *stopping* is the event the app's parked handlers wait on, *on_stop* wakes those that wait on something
        else; both happen first in `stop`. *watch_cap* is how many handlers the app parks at most.
        """
        self._bind = bind
        self._stopping = stopping
        self._on_stop = on_stop
        self._server = _Server(bind, _mended(app), numthreads=watch_cap + SPARE_THREADS)
        self._server.max_request_body_size = max_body_bytes
        if tls is not None:
            self._server.ssl_adapter = _tls_adapter(tls)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; once started, the real port where 0 was asked for."""
        host, port = self._server.bind_addr
        return str(host), int(port)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:7430`."""
        host, port = self.address
        scheme = "http" if self._server.ssl_adapter is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def start(self) -> None:
        """Binds and serves from threads of its own. CannotServe if the address cannot be bound.

        The threads are daemons, so that an error elsewhere can end the process.
        """
        # cheroot would take file descriptor 3 for its listener where some parent was started by a systemd socket.
        os.environ.pop("LISTEN_PID", None)
        bound = threading.Event()
        thread = threading.Thread(target=self._serve, args=(bound,), name="http-accept", daemon=True)
        thread.start()
        bound.wait()
        if self._server.failure is not None:
            host, port = self._bind
            detail = self._server.failure.strerror or str(self._server.failure)
            raise CannotServe(f"cannot listen on {host}:{port}: {detail}") from self._server.failure

    def stop(self) -> None:
        """Wakes parked handlers, ends the others gracefully, closes the listener; within some seconds, always."""
        self._stopping.set()
        self._on_stop()
        # A handler stuck in a call without a deadline must not keep the process: cheroot would join it for ever.
        thread = threading.Thread(target=self._server.stop, name="http-stop", daemon=True)
        thread.start()
        self._wake_accept_loop(thread)
        thread.join(2 * _SHUTDOWN_SECONDS)

    def _wake_accept_loop(self, stopping: threading.Thread) -> None:
        """Spares cheroot's stop the half second that its accept loop sleeps between looks at its flag."""
        for _ in range(10):
            stopping.join(0.02)
            if not stopping.is_alive():
                return
            with contextlib.suppress(OSError):
                socket.create_connection(self.address, timeout=1).close()

    def _serve(self, bound: threading.Event) -> None:
        try:
            self._server.prepare()
        except OSError as error:
            self._server.failure = self._server.failure or error
            return
        finally:
            bound.set()
        self._server.serve()


class _Server(Server):
    """cheroot's server with bounded queues, silent peers kept out of the pool, and its errors at debug."""

    def __init__(self, bind: tuple[str, int], app: WSGIApplication, *, numthreads: int) -> None:
        super().__init__(
            bind,
            app,
            numthreads=numthreads,
            max=numthreads,
            server_name="trueup",
            request_queue_size=_BACKLOG,
            timeout=KEEP_ALIVE_SECONDS,  # type: ignore[arg-type] # the stub says int; it is compared and slept on
            shutdown_timeout=_SHUTDOWN_SECONDS,  # type: ignore[arg-type] # as above
            accepted_queue_size=_BACKLOG,
            accepted_queue_timeout=0,
        )
        self.failure: OSError | None = None
        self.max_request_header_size = MAX_HEADER_BYTES
        self.keep_alive_conn_limit = _connection_limit()
        self.ConnectionClass = _Connection
        self.gateway = _Gateway

    def bind(self, family: int, type: int, proto: int = 0) -> Any:  # noqa: A002, ANN401 - cheroot's signature
        """Remembers why binding failed: cheroot raises it as one flat text."""
        try:
            return super().bind(family, type, proto)
        except OSError as error:
            self.failure = error
            raise

    def process_conn(self, conn: "_Connection") -> None:
        """Queues a connection for a worker once it has something to say; a new one waits for its first byte."""
        if conn.waited:
            super().process_conn(conn)
        elif self.can_add_keepalive_connection:
            conn.waited = True
            self.put_conn(conn)
            conn.expire_after(IO_SECONDS)
        else:
            conn.close()

    def put_conn(self, conn: "_Connection") -> None:
        """Takes an idle connection back; what fails while the server stops must not end a worker."""
        try:
            super().put_conn(conn)
        except (OSError, ValueError, KeyError, RuntimeError):
            conn.close()

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Writes what peers did wrong at debug, whatever cheroot thinks of its level."""
        _log.debug("%s (%s)", msg, logging.getLevelName(level), exc_info=traceback)
        if msg == "Error in HTTPServer.serve":
            # The accept loop failed, for want of file descriptors most likely: breathe before the next try.
            threading.Event().wait(0.1)


class _Connection(HTTPConnection):
    """A connection whose end cannot end a worker, and whose reads and writes have their own time limit."""

    waited = False
    """Whether it has waited for its first byte already."""

    def __init__(self, server: _Server, sock: socket.socket, makefile: Any) -> None:  # noqa: ANN401 - cheroot's
        sock.settimeout(IO_SECONDS)
        super().__init__(server, sock, makefile)

    def expire_after(self, seconds: float) -> None:
        """Lets the idle connection live *seconds* from now, where others have `KEEP_ALIVE_SECONDS`."""
        self.last_used = time.time() - KEEP_ALIVE_SECONDS + seconds

    def close(self) -> None:
        """Closes the socket; an error in it would stop the whole server in cheroot's worker loop."""
        with contextlib.suppress(OSError, ValueError):
            super().close()


class _Gateway(Gateway_10):
    """Lets a parked handler ask whether anyone still listens: WSGI itself notices only at the next write."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # the stub's base says None
        """The usual environ, `PEER_GONE` and `PATIENCE`."""
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        connection = self.req.conn.socket
        environ[PEER_GONE] = lambda: _is_shut(connection)
        environ[PATIENCE] = connection.settimeout
        return environ

    def respond(self) -> None:
        """Answers; the next request on the connection has the usual time."""
        try:
            super().respond()
        finally:
            with contextlib.suppress(OSError):
                self.req.conn.socket.settimeout(IO_SECONDS)


class _LazyTls(BuiltinSSLAdapter):
    """TLS whose handshake happens at a worker's first read, under its time limit."""

    def wrap(self, sock: socket.socket) -> tuple[socket.socket, dict[str, str]]:
        """Wraps without a word on the wire; no cipher is known yet, so the environ names the scheme only."""
        wrapped = self.context.wrap_socket(sock, do_handshake_on_connect=False, server_side=True)
        return wrapped, {"wsgi.url_scheme": "https", "HTTPS": "on"}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _tls_adapter(tls: TlsFiles) -> _LazyTls:
    try:
        return _LazyTls(str(tls.certificate), str(tls.key))
    except OSError as error:  # ssl.SSLError is one
        detail = error.strerror or str(error)
        raise CannotServe(f"cannot use certificate {tls.certificate} with key {tls.key}: {detail}") from error


def _is_shut(connection: socket.socket) -> bool:
    poll = select.poll()
    try:
        # What is left to read does not matter, so this holds for TLS as well.
        poll.register(connection, select.POLLRDHUP)
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return True


def _connection_limit() -> int:
    """Half of the file descriptors this process may open: the others are for store, source and clients."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(32, min(4096, soft // 2))


def _mended(app: WSGIApplication) -> WSGIApplication:
    """*app*, with what it left unread of the body thrown away, and the head of a stream sent at once."""

    def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        heads: list[tuple[Callable[[bytes], object], set[str]]] = []

        def begin(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:  # noqa: ANN401 - PEP 3333
            write = start_response(status, headers, exc_info)
            heads.append((write, {name.lower() for name, _ in headers}))
            return write

        answer = app(environ, begin)
        _discard(environ)
        for write, names in heads[-1:]:
            if "content-length" not in names:
                write(b"")
        return answer

    return wrapped


def _discard(environ: WSGIEnvironment) -> None:
    body: _Readable = environ["wsgi.input"]
    if not environ.get("wsgi.input_terminated"):
        while getattr(body, "remaining", 0) and body.read(_DISCARD_BYTES):
            pass
