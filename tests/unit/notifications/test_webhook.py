"""One delivery: where it may go, and that no receiver can make it last."""

import socket
import ssl
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import pytest
import trustme

from tests.receiver import receiving, taken
from trueup.notifications.webhook import Outcome, post

BODY = b'{"version": 1}'


def test_it_arrives() -> None:
    """Body, headers, path and query arrive as they are; a login of the address travels as Basic."""
    with receiving() as receiver:
        url = receiver.url.replace("://", "://ann:p%40ss@") + "/hook/x?topic=a%20b"
        assert post(url, BODY, {"webhook-id": "1"}, allowed_hosts=[receiver.host]) == Outcome()
    (came,) = receiver.requests
    assert (came.path, came.body) == ("/hook/x?topic=a%20b", BODY)
    assert came.headers["webhook-id"] == "1"
    assert came.headers["content-type"] == "application/json"
    assert came.headers["authorization"] == "Basic YW5uOnBAc3M="


@pytest.mark.parametrize("allowed", [[], ["127.0.0.1"], ["example.org"], ["127.0.0.1:1"], ["0.1"]])
def test_a_host_that_is_not_allowed(allowed: list[str]) -> None:
    """Nothing goes to a host, or a port of it, that the server was not started with."""
    with receiving() as receiver:
        outcome = post(receiver.url, BODY, {}, allowed_hosts=allowed)
    assert "--notification-host" in outcome.problem
    assert receiver.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "https://",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:{port}/\r\nX: y",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    """What is no address is a problem like any other, and smuggles in nothing."""
    with receiving() as receiver:
        port = receiver.host.rpartition(":")[2]
        outcome = post(
            url.replace("{port}", port), BODY, {}, allowed_hosts=["127.0.0.1", "::1", receiver.host]
        )
        assert outcome.problem
        assert all("x" not in came.headers for came in receiver.requests)


def test_a_redirect_leads_nowhere() -> None:
    """Where a receiver points to is not asked, be it allowed or not."""
    with receiving() as elsewhere:

        def redirect(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(307)
            handler.send_header("Location", elsewhere.url)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        with receiving(redirect) as receiver:
            outcome = post(receiver.url, BODY, {}, allowed_hosts=[receiver.host, elsewhere.host])
        assert "redirect" in outcome.problem
        assert elsewhere.requests == []


def test_what_it_answers_counts() -> None:
    """Any 2xx is taken; else the status is told, and when to come again."""

    def busy(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(429)
        handler.send_header("Retry-After", "17")
        handler.end_headers()

    with receiving(busy) as receiver:
        outcome = post(receiver.url, BODY, {}, allowed_hosts=[receiver.host])
    assert outcome == Outcome(problem="it answers 429", retry_after_seconds=17)


def dribble(sock: socket.socket, ended: threading.Event) -> None:
    """Sends a byte of a header now and then, for ever."""
    with suppress(OSError):
        sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not ended.wait(0.05):
            sock.sendall(b"x")


@pytest.mark.parametrize("behaviour", ["silent", "dribbling"])
def test_no_receiver_holds_it_for_long(behaviour: str) -> None:
    """One that says nothing, or a byte now and then, is given up when its time is over."""
    ended = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if behaviour == "silent":
            ended.wait(60)
        else:
            dribble(handler.connection, ended)

    with receiving(answer) as receiver:
        outcome = post(receiver.url, BODY, {}, allowed_hosts=[receiver.host], seconds=0.5)
        ended.set()
    assert "does not answer" in outcome.problem


def test_nobody_there() -> None:
    """A port where nobody listens, and a name that nobody has."""
    with receiving() as receiver:
        gone = receiver.url
    assert post(gone, BODY, {}, allowed_hosts=[receiver.host]).problem == "it refuses connections"
    assert "not found" in post("http://nobody.invalid", BODY, {}, allowed_hosts=["nobody.invalid"]).problem


def test_a_certificate_is_checked(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is said to a receiver whose certificate nobody trusts; with its authority it is."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with receiving(taken, tls=tls) as receiver:
        outcome = post(receiver.url, BODY, {}, allowed_hosts=[receiver.host])
        assert (outcome.problem, receiver.requests) == ("its certificate is not trusted", [])
        file = tmp_path_factory.mktemp("ca") / "ca.pem"
        authority.cert_pem.write_to_path(file)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert post(receiver.url, BODY, {}, allowed_hosts=[receiver.host]) == Outcome()
