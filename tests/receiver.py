"""A real HTTP receiver of webhooks: keeps what came, answers as it is told to."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.e2e.cluster import eventually


@dataclass(kw_only=True)
class Received:
    """One request: its headers by lower-case name, and its body."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def what(self) -> tuple[str, str, str]:
        """Status, cause and subject in short."""
        return (
            self.document["status"],
            self.document["cause"],
            self.document["job"] or self.document["node"],
        )


@dataclass(kw_only=True)
class Receiver:
    """*answer* is called with the handler of each request, after its body was read, and answers it."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    requests: list[Received] = field(default_factory=list)
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def host(self) -> str:
        """As `--notification-host` names it."""
        return self.url.partition("://")[2]

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return [one.what for one in self.requests]

    def until(self, count: int) -> list[Received]:
        """Waits for so many requests."""
        eventually(lambda: len(self.requests) >= count, picture=lambda: str(self.told))
        return self.requests


def taken(handler: BaseHTTPRequestHandler) -> None:
    """204."""
    handler.send_response(204)
    handler.end_headers()


@contextmanager
def receiving(
    answer: Callable[[BaseHTTPRequestHandler], None] = taken, *, tls: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    """A receiver on a free port of loopback, until the block ends."""
    receiver = Receiver(answer=answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append(Received(path=self.path, headers=headers, body=body))
            self.close_connection = True
            receiver.answer(self)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ended.set()
        server.shutdown()
        server.server_close()
