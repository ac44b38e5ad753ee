"""The agent's client of the control plane against a real HTTP server."""

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
import trustme

from agent.client import HttpControlPlane
from agent.doors import Refused, Unknown, Unreachable
from trueup.models.codec import from_json, to_json
from trueup.models.ids import NodeId
from trueup.models.node import NodeResources
from trueup.models.wire import HeartbeatRequest, HeartbeatResponse, RegisterRequest, RegisterResponse
from trueup.serving import HttpServer, TlsFiles

REGISTER = RegisterRequest(node_id=NodeId("n1"), name="node-1", resources=NodeResources())
BEAT = HeartbeatRequest(node_id=NodeId("n1"), incarnation=1, sequence=1, holdings_digest="")
REGISTERED = RegisterResponse(
    node_secret="own", cluster_id="c1", epoch=1, index=1, heartbeat_seconds=3, deadline_seconds=10
)
ANSWERED = HeartbeatResponse(epoch=1, index=1, heartbeat_seconds=3, deadline_seconds=10)


class Server:
    """Knows tokens; answers everyone else with 401, and what it is told to instead."""

    def __init__(self) -> None:
        self.tokens = {"own", "cluster"}
        self.heard: list[tuple[str, str]] = []
        self.instead: tuple[str, bytes] | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        token = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        self.heard.append((environ["PATH_INFO"], token))
        if self.instead is not None:
            start_response(self.instead[0], [("Location", "http://127.0.0.1:1/"), ("Retry-After", "5")])
            return [self.instead[1]]
        if token not in self.tokens:
            start_response("401 Unauthorized", [])
            return [b'{"detail": "who is this?"}']
        start_response("200 OK", [("Content-Type", "application/json")])
        if environ["PATH_INFO"] == "/register":
            assert from_json(body, RegisterRequest) == REGISTER
            return [to_json(REGISTERED)]
        assert from_json(body, HeartbeatRequest) == BEAT
        return [to_json(ANSWERED)]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    served = HttpServer(server, ("127.0.0.1", 0), stopping=threading.Event())
    served.start()
    yield served.url
    served.stop()


Making = Callable[..., HttpControlPlane]


@pytest.fixture
def client() -> Iterator[Making]:
    made: list[HttpControlPlane] = []

    def make(
        *urls: str, secret: str = "own", token: str | None = "cluster", ca: Path | None = None
    ) -> HttpControlPlane:
        made.append(HttpControlPlane(urls, secret=lambda: secret, cluster_token=lambda: token, tls_ca=ca))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_it_joins_with_the_cluster_token_and_comes_back_with_its_secret(
    server: Server, url: str, client: Making
) -> None:
    assert client(url, secret="").register(REGISTER) == REGISTERED
    assert client(url, token=None).register(REGISTER) == REGISTERED
    assert client(url).heartbeat(BEAT) == ANSWERED
    assert server.heard == [("/register", "cluster"), ("/register", "own"), ("/heartbeat", "own")]


def test_a_secret_that_is_not_known_any_more_gives_way_to_the_cluster_token(
    server: Server, url: str, client: Making
) -> None:
    server.tokens = {"cluster"}
    with pytest.raises(Unknown, match="who is this"):
        client(url).heartbeat(BEAT)
    assert client(url).register(REGISTER) == REGISTERED
    assert server.heard[1:] == [("/register", "own"), ("/register", "cluster")]


def test_without_a_token_that_counts_the_refusal_says_what_to_do(
    server: Server, url: str, client: Making
) -> None:
    server.tokens = set()
    with pytest.raises(Refused, match="cluster-token"):
        client(url).register(REGISTER)
    with pytest.raises(Refused, match="--token-file"):
        client(url, token=None).register(REGISTER)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        ("409 Conflict", b'{"detail": "name taken"}', Refused),
        ("400 Bad Request", b"", Refused),
        ("404 Not Found", b"<html>", Refused),
        ("503 Service Unavailable", b"", Unreachable),
        ("500 Internal Server Error", b"", Unreachable),
        ("302 Found", b"", Unreachable),
        ("200 OK", b"hello", Unreachable),
    ],
)
def test_what_an_answer_means(
    server: Server, url: str, client: Making, status: str, body: bytes, error: type[Exception]
) -> None:
    server.instead = (status, body)
    with pytest.raises(error) as caught:
        client(url).register(REGISTER)
    assert url in str(caught.value)
    assert b"name taken" not in body or "name taken" in str(caught.value)


def test_the_next_address_is_tried_when_one_does_not_answer(url: str, client: Making) -> None:
    two = client("http://127.0.0.1:1", url)
    with pytest.raises(Unreachable, match="refused"):
        two.register(REGISTER)
    assert two.register(REGISTER) == REGISTERED
    assert two.heartbeat(BEAT) == ANSWERED


def test_tls_is_checked_against_the_given_certificates(
    tmp_path: Path, server: Server, client: Making
) -> None:
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    served = HttpServer(
        server,
        ("127.0.0.1", 0),
        stopping=threading.Event(),
        tls=TlsFiles(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem"),
    )
    served.start()
    try:
        assert client(served.url, ca=tmp_path / "ca.pem").register(REGISTER) == REGISTERED
        with pytest.raises(Unreachable, match="certificate"):
            client(served.url, ca=tmp_path / "other.pem").register(REGISTER)
    finally:
        served.stop()


def test_a_refusal_says_when_to_ask_again(server: Server, url: str, client: Making) -> None:
    server.instead = ("409 Conflict", b'{"detail": "it may be you"}')
    with pytest.raises(Refused, match="it may be you") as refused:
        client(url).register(REGISTER)
    assert refused.value.again_seconds == 5
