"""Images from a registry: when one is asked, and as whom. The registry is a small one of our own."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agent.doors import DriverError
from tests.docker_engine import DockerEngine, client
from tests.unit.agent_drivers.docker_world import DockerWorld

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry(ThreadingHTTPServer):
    """Serves one image of one file under every name and tag.

    *password*: what it wants of user `puller`. *asked*: how often it was asked what a tag is.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.password = ""
        self.asked = 0
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
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not a word."""


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _part(kind: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(blob), "digest": _digest(blob)}


@pytest.fixture
def registry(docker_engine: DockerEngine) -> Iterator[Registry]:
    server = Registry()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    engine = client(docker_engine.host)
    for image in engine.images():
        for tag in image["RepoTags"] or ():
            if tag.startswith(server.image("").removesuffix(":")):
                engine.remove_image(tag, force=True)
    engine.close()


def _try(world: DockerWorld, image: str, attempt: int = 1, **fields: object) -> str:
    """Why the image's container does not start: it has no such program. Any other reason is returned as well."""
    with pytest.raises(DriverError) as failed:
        world.start(image=image, attempt=attempt, init=False, **fields)
    return str(failed.value)


def test_an_image_that_is_missing_is_pulled_once(docker_world: DockerWorld, registry: Registry) -> None:
    image = registry.image("1")

    for attempt in (1, 2):
        assert "the image has no such program" in _try(docker_world, image, attempt)

    assert registry.asked == 1


def test_with_pull_always_the_registry_is_asked_before_each_start(
    docker_world: DockerWorld, registry: Registry
) -> None:
    image = registry.image("2")

    for attempt in (1, 2):
        assert "the image has no such program" in _try(docker_world, image, attempt, pull="always")

    assert registry.asked == 2


def test_a_registry_that_wants_to_know_who_pulls_is_told(
    docker_world: DockerWorld, registry: Registry
) -> None:
    image = registry.image("3")
    registry.password = "made-up"

    refused = _try(docker_world, image)
    wrong = _try(docker_world, image, auth={"username": "puller", "password": "not-the-one"})
    told = _try(docker_world, image, auth={"username": "puller", "password": "made-up"})

    assert "config.auth has to name who may pull it" in refused
    assert "config.auth has to name who may pull it" in wrong
    assert "not-the-one" not in wrong
    assert "the image has no such program" in told


def test_a_secret_that_was_not_read_is_said_by_its_field(
    docker_world: DockerWorld, registry: Registry
) -> None:
    why = _try(
        docker_world, registry.image("4"), auth={"username": "puller", "password": {"secret": "registry"}}
    )

    assert why == "config.auth.password is no text: its secret was not read"
