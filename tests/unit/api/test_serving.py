"""The HTTP server in process, over real sockets."""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest
import requests
import trustme

from trueup.serving import PATIENCE, PEER_GONE, SPARE_THREADS, CannotServe, HttpServer, TlsFiles


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


@contextmanager
def serving(
    app: WSGIApplication, *, stopping: threading.Event | None = None, **options: Any
) -> Iterator[HttpServer]:
    server = HttpServer(app, ("127.0.0.1", 0), stopping=stopping or threading.Event(), **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    folder = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return TlsFiles(certificate=folder / "server.pem", key=folder / "server.pem")


def silent_peers(server: HttpServer, count: int) -> list[socket.socket]:
    return [socket.create_connection(server.address, timeout=5) for _ in range(count)]


def test_port_zero() -> None:
    """Port 0 picks a free port, and the address tells which."""
    with serving(hello) as server:
        assert server.address[1] != 0
        assert requests.get(server.url, timeout=5).text == "hello"


def test_address_in_use() -> None:
    """A taken address is refused by name, with the reason."""
    with serving(hello) as server:
        second = HttpServer(hello, server.address, stopping=threading.Event())
        with pytest.raises(CannotServe, match=rf"127\.0\.0\.1:{server.address[1]}: Address already in use"):
            second.start()


def test_certificate_missing(tmp_path: Path) -> None:
    """A certificate that cannot be read is named."""
    files = TlsFiles(certificate=tmp_path / "none.pem", key=tmp_path / "none.key")
    with pytest.raises(CannotServe, match=r"none\.pem.*No such file"):
        HttpServer(hello, ("127.0.0.1", 0), stopping=threading.Event(), tls=files)


def test_tls_answers(tls: TlsFiles) -> None:
    """With a certificate it speaks TLS."""
    with serving(hello, tls=tls) as server:
        answer = requests.get(server.url, timeout=5, verify=str(tls.certificate.with_name("ca.pem")))
        assert (server.url[:8], answer.text) == ("https://", "hello")


def test_tls_tells_the_scheme(tls: TlsFiles) -> None:
    """The app sees https as the scheme."""
    seen: list[str] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ["wsgi.url_scheme"])
        return hello(environ, start_response)

    with serving(app, tls=tls) as server:
        requests.get(server.url, timeout=5, verify=str(tls.certificate.with_name("ca.pem")))
    assert seen == ["https"]


@pytest.mark.parametrize("encrypted", [True, False])
def test_silent_peers_stall_nobody(encrypted: bool, tls: TlsFiles) -> None:
    """Peers that connect and say nothing, more than there are workers, do not delay others."""
    with serving(hello, tls=tls if encrypted else None) as server:
        silent = silent_peers(server, SPARE_THREADS * 2)
        began = time.monotonic()
        answer = requests.get(server.url, timeout=5, verify=str(tls.certificate.with_name("ca.pem")))
        took = time.monotonic() - began
        for peer in silent:
            peer.close()
    assert answer.status_code == 200
    assert took < 1.5


def test_half_a_handshake_stalls_nobody(tls: TlsFiles) -> None:
    """Peers that begin a TLS handshake and go silent hold a worker each, not the accept loop."""
    with serving(hello, tls=tls) as server:
        silent = silent_peers(server, 5)
        for peer in silent:
            peer.sendall(b"\x16\x03\x01")
        began = time.monotonic()
        answer = requests.get(server.url, timeout=5, verify=str(tls.certificate.with_name("ca.pem")))
        took = time.monotonic() - began
        for peer in silent:
            peer.close()
    assert answer.status_code == 200
    assert took < 1.5


def test_plain_http_to_the_tls_port(tls: TlsFiles, capfd: pytest.CaptureFixture[str]) -> None:
    """Plain HTTP on the TLS port ends that connection alone, and nothing of it reaches stderr."""
    with serving(hello, tls=tls) as server:
        with socket.create_connection(server.address, timeout=5) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            peer.recv(1024)
        context = ssl.create_default_context(cafile=str(tls.certificate.with_name("ca.pem")))
        with (
            socket.create_connection(server.address, timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as peer,
        ):
            assert peer.version() == "TLSv1.3"
    assert capfd.readouterr().err == ""


def test_app_raises(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """An app that raises is a 500 and a debug line; stderr stays clean and the server lives on."""
    caplog.set_level(logging.DEBUG, logger="trueup.serving")

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/broken":
            raise ZeroDivisionError("for the log")
        return hello(environ, start_response)

    with serving(app) as server:
        assert requests.get(server.url + "/broken", timeout=5).status_code == 500
        assert requests.get(server.url, timeout=5).status_code == 200
    assert "for the log" in caplog.text
    assert capfd.readouterr().err == ""


def test_stop_wakes_parked_handlers() -> None:
    """Stop first sets the event that parked handlers wait on, so it does not hang on them."""
    stopping, parked = threading.Event(), threading.Barrier(9)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        parked.wait(5)
        stopping.wait(60)
        return hello(environ, start_response)

    with serving(app, stopping=stopping, watch_cap=8) as server:
        asking = [threading.Thread(target=ask, args=(server.url,)) for _ in range(8)]
        for thread in asking:
            thread.start()
        parked.wait(5)
        began = time.monotonic()
        server.stop()
        took = time.monotonic() - began
        for thread in asking:
            thread.join(5)
    assert took < 2.5
    assert not any(thread.is_alive() for thread in asking)


@pytest.mark.parametrize("encrypted", [True, False])
def test_peer_hangs_up(encrypted: bool, tls: TlsFiles) -> None:
    """A parked handler can tell that its client is gone."""
    asked, noticed, still_there = threading.Event(), threading.Event(), []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        peer_gone = environ[PEER_GONE]
        still_there.append(not peer_gone())
        asked.set()
        if until(peer_gone):
            noticed.set()
        return hello(environ, start_response)

    context = ssl.create_default_context(cafile=str(tls.certificate.with_name("ca.pem")))
    with serving(app, watch_cap=1, tls=tls if encrypted else None) as server:
        raw = socket.create_connection(server.address, timeout=5)
        peer = context.wrap_socket(raw, server_hostname="127.0.0.1") if encrypted else raw
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asked.wait(5)
        peer.close()
        assert noticed.wait(5)
    assert still_there == [True]


def ask(url: str) -> None:
    requests.get(url, timeout=30)


def test_stop_calls_on_stop_after_setting_the_event() -> None:
    """What wakes other waiters is called once the event is set, so that they see it."""
    stopping, seen = threading.Event(), []
    with serving(hello, stopping=stopping, on_stop=lambda: seen.append(stopping.is_set())) as server:
        server.stop()
    assert seen[0] is True


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBig: " + b"x" * 70_000 + b"\r\n\r\n", b"413"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)
def test_limits(request_text: bytes, status: bytes) -> None:
    """Bodies and headers beyond the limits, and what is no HTTP, are refused."""
    with (
        serving(hello, max_body_bytes=1000) as server,
        socket.create_connection(server.address, timeout=5) as peer,
    ):
        peer.sendall(request_text)
        assert peer.recv(1024).split(b" ")[1] == status


def test_unread_body_is_thrown_away() -> None:
    """A body the app did not read does not break the next request on that connection."""
    with serving(hello) as server, requests.Session() as session:
        for _ in range(2):
            assert session.post(server.url, data=b"x" * 200_000, timeout=5).text == "hello"


def test_stream_that_is_silent() -> None:
    """Who asks for a stream learns at once that it was accepted, before there is anything in it."""
    stopping = threading.Event()

    def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return words()

    def words() -> Iterator[bytes]:
        stopping.wait(10)
        yield b"at last"

    with (
        serving(app, stopping=stopping, watch_cap=1) as server,
        requests.get(server.url, stream=True, timeout=2) as answer,
    ):
        assert answer.status_code == 200
        stopping.set()
        assert answer.content == b"at last"


def test_peer_resets() -> None:
    """Peers that reset their connection end no worker."""
    with serving(hello) as server:
        for _ in range(SPARE_THREADS * 2):
            reset(server)
        assert until(lambda: requests.get(server.url, timeout=5).status_code == 200)


def reset(server: HttpServer) -> None:
    with socket.create_connection(server.address, timeout=5) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        peer.sendall(b"GET / HT")


def until(condition: Callable[[], bool], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
    return False


@pytest.mark.parametrize("is_patient", [True, False])
def test_a_reader_that_pauses_is_waited_for_where_the_app_says_so(
    monkeypatch: pytest.MonkeyPatch, is_patient: bool
) -> None:
    """A write that finds no reader in time ends the answer, unless the app has more patience."""
    monkeypatch.setattr("trueup.serving.IO_SECONDS", 0.2)
    ended = threading.Event()
    part = b"x" * 2**20

    def output(patience: Callable[[float], None]) -> Iterator[bytes]:
        if is_patient:
            patience(60)
        try:
            for _ in range(32):
                yield part
        finally:
            ended.set()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return output(environ[PATIENCE])

    with serving(app) as server, requests.get(server.url, stream=True, timeout=30) as answer:
        # Far longer than a write may take; what matters is that nobody reads meanwhile.
        assert ended.wait(1 if is_patient else 30) is not is_patient
        if is_patient:
            assert sum(len(chunk) for chunk in answer.iter_content(2**16)) == 32 * len(part)
        else:
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                list(answer.iter_content(2**16))
