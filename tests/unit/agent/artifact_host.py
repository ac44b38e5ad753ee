"""An HTTP server that artifacts are fetched from, and what a task wants of it."""

import base64
import hashlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme

from agent.doors import WantedArtifact
from trueup.models.artifacts import ArtifactPolicy, shown_source

ANY_HOST = ArtifactPolicy(hosts=("*",))


@dataclass
class ArtifactHost:
    """Serves *files* by path; *redirects* and *statuses* come first. *held* holds answers up half way."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    promised: dict[str, int] = field(default_factory=dict)
    held: threading.Event | None = None
    requests: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        self.requests.append(path)
        header = handler.headers.get("Authorization", "")
        self.credentials.append(base64.b64decode(header.removeprefix("Basic ")).decode())
        if path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[path])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if path in self.statuses or path not in self.files:
            handler.send_error(self.statuses.get(path, 404))
            return
        content = self.files[path]
        handler.send_response(200)
        handler.send_header("Content-Length", str(self.promised.get(path, len(content))))
        if path.endswith("gz"):
            # As servers do that take an archive for a page.
            handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        half = len(content) // 2
        handler.wfile.write(content[:half])
        if self.held is not None:
            handler.wfile.flush()
            self.held.wait(60)
        handler.wfile.write(content[half:])


@contextmanager
def an_artifact_host(authority: trustme.CA | None = None, name: str = "127.0.0.1") -> Iterator[ArtifactHost]:
    """A server on loopback, with a certificate of *authority* for *name* if there is one."""
    host = ArtifactHost()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.serve(self)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that went away is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if authority is None else "https"
    host.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=lambda: server.serve_forever(0.02))
    thread.start()
    try:
        yield host
    finally:
        if host.held is not None:
            host.held.set()
        server.shutdown()
        thread.join()
        server.server_close()


def sha256(content: bytes) -> str:
    """The checksum of a document's form."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def a_wanted(
    source: str, content: bytes = b"", *, destination: str = "local/", checksum: str = ""
) -> WantedArtifact:
    """What a task wants from *source*, which has *content*."""
    return WantedArtifact(
        source=source,
        shown=shown_source(source),
        checksum=checksum or sha256(content),
        destination=destination,
    )
