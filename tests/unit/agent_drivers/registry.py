"""A registry of our own, on a free port of this machine: one image of one file under every name and tag."""

import base64
import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.docker_engine import client

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry(ThreadingHTTPServer):
    """*password*: what it wants of user `puller`. *asked*: how often it was asked what a tag is. *broken*: it says 503.

    *held*: it answers no such question before that is set; *waiting*: how many have waited for it.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.password = ""
        self.asked = 0
        self.broken = False
        self.held: threading.Event | None = None
        self.waiting = 0
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("a-file"))
        plain = archive.getvalue()
        layer = gzip.compress(plain, mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/a-program"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(plain)]},
            }
        ).encode()
        self.blobs = {_digest(blob): blob for blob in (layer, config)}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _part("application/vnd.docker.container.image.v1+json", config),
                "layers": [_part("application/vnd.docker.image.rootfs.diff.tar.gzip", layer)],
            }
        ).encode()

    def image(self, tag: str) -> str:
        return f"127.0.0.1:{self.server_address[1]}/shop:{tag}"


class _Handler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(f"puller:{self.server.password}".encode()).decode()
        if self.server.password and self.headers.get("Authorization") != wanted:
            self._answer(401, b"{}", "application/json")
        elif "/manifests/" in self.path:
            self.server.asked += self.command == "HEAD"
            if self.server.broken:
                self._answer(503, b"{}", "application/json")
                return
            if self.server.held is not None:
                self.server.waiting += 1
                self.server.held.wait()
            self._answer(200, self.server.manifest, _MANIFEST)
        elif "/blobs/" in self.path:
            self._answer(200, self.server.blobs[self.path.rsplit("/", 1)[1]], "application/octet-stream")
        else:
            self._answer(200, b"{}", "application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="shop"')
        if kind == _MANIFEST:
            self.send_header("Docker-Content-Digest", _digest(body))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        with contextlib.suppress(ConnectionError):
            self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not a word."""


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _part(kind: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(blob), "digest": _digest(blob)}


@contextlib.contextmanager
def a_registry(host: str) -> Iterator[Registry]:
    """One for the engine at *host*, which keeps none of its images afterwards."""
    server = Registry()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        if server.held is not None:
            server.held.set()
        server.shutdown()
        thread.join()
        server.server_close()
        with contextlib.closing(client(host)) as engine:
            for image in engine.images():
                for tag in image["RepoTags"] or ():
                    if tag.startswith(server.image("").removesuffix(":")):
                        engine.remove_image(tag, force=True)
