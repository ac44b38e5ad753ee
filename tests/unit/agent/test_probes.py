"""http and tcp checks against real sockets: healthy, ill, silent, endless."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import pytest

from agent.doors import Probe
from agent.probes import SocketProber


@contextmanager
def listening(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose every connection is handled by *talk*, on a thread of its own."""
    server = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                talk(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        over.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def a_probe(port: int, kind: Literal["http", "tcp"] = "http", timeout_seconds: float = 0.5) -> Probe:
    return Probe(type=kind, host="127.0.0.1", port=port, path="/health", timeout_seconds=timeout_seconds)


def saying(text: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(text)

    return talk


@pytest.mark.parametrize(
    ("status", "passes"),
    [
        (b"200 OK", True),
        (b"204 No Content", True),
        (b"302 Found", True),
        (b"404 Not Found", False),
        (b"503 Busy", False),
    ],
)
def test_a_check_passes_by_its_status(status: bytes, passes: bool) -> None:
    with listening(saying(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")) as port:
        why_not = SocketProber().probe(a_probe(port))
    assert (why_not is None) is passes
    assert passes or (why_not is not None and f"status {status.split()[0].decode()}" in why_not)


def test_the_path_is_asked_for() -> None:
    heard: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        heard.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with listening(talk) as port:
        assert SocketProber().probe(a_probe(port)) is None
    assert heard[0].startswith(b"GET /health HTTP/1.1\r\n")


def test_a_port_where_nobody_listens_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for kind in ("http", "tcp"):
        why_not = SocketProber().probe(a_probe(port, kind))
        assert why_not == f"cannot reach 127.0.0.1:{port}: Connection refused"


def test_tcp_needs_no_more_than_a_listener() -> None:
    with listening(lambda _connection: None) as port:
        assert SocketProber().probe(a_probe(port, "tcp")) is None


def test_what_speaks_no_http_is_ill() -> None:
    with listening(saying(b"hello\r\n\r\n")) as port:
        why_not = SocketProber().probe(a_probe(port))
    assert why_not is not None
    assert "no HTTP" in why_not


@pytest.mark.parametrize("endless", ["silent", "head", "body"])
def test_one_deadline_holds_for_all_of_a_check(endless: str) -> None:
    """A peer that sends a byte now and then does not stretch it."""
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        if endless == "body":
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not over.wait(0.05):
            if endless != "silent":
                connection.sendall(b"x")

    with listening(talk) as port:
        begun = time.monotonic()
        why_not = SocketProber().probe(a_probe(port))
        took = time.monotonic() - begun
        over.set()
    assert took < 2
    assert why_not is not None
    assert "within 0.5s" in why_not


def test_a_flood_is_read_no_further_than_needed() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with listening(talk) as port:
        assert SocketProber().probe(a_probe(port, timeout_seconds=5)) is None
