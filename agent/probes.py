"""Asks an address whether it works: http and tcp checks, as `agent.doors.Prober`.

A check has one deadline for all of it (a peer that sends a byte a second does not stretch it), reads a bounded
answer, follows no redirect and knows no proxy.
"""

import http.client
import io
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from agent.doors import Probe

MAX_BODY_BYTES: Final = 64 * 1024
_STATUS_OK: Final = range(200, 400)


class SocketProber:
    """Real sockets."""

    def probe(self, probe: Probe) -> str | None:
        """None if the address answered well within the timeout, else why not."""
        deadline = time.monotonic() + probe.timeout_seconds
        where = f"[{probe.host}]:{probe.port}" if ":" in probe.host else f"{probe.host}:{probe.port}"
        try:
            if probe.type == "tcp":
                socket.create_connection((probe.host, probe.port), timeout=probe.timeout_seconds).close()
                return None
            return _ask(probe, where, deadline)
        except TimeoutError:
            return f"no answer from {where} within {probe.timeout_seconds:g}s"
        except OSError as error:
            return f"cannot reach {where}: {error.strerror or error}"
        except http.client.HTTPException as error:
            return f"{where} speaks no HTTP: {type(error).__name__}"


def _ask(probe: Probe, where: str, deadline: float) -> str | None:
    connection = http.client.HTTPConnection(probe.host, probe.port, timeout=probe.timeout_seconds)
    connection.connect()
    inner = connection.sock
    connection.sock = _DeadlineSocket(inner, deadline)
    try:
        connection.request("GET", probe.path, headers={"User-Agent": "trueup-check", "Connection": "close"})
        response = connection.getresponse()
        try:
            # An answer that never ends counts by its status; what is read of it is bounded.
            response.read(MAX_BODY_BYTES)
        except TimeoutError:
            seconds = f"{probe.timeout_seconds:g}s"
            return f"GET {probe.path} on {where}: status {response.status}, but no end within {seconds}"
        if response.status in _STATUS_OK:
            return None
        return f"GET {probe.path} on {where}: status {response.status}"
    finally:
        inner.close()


class _DeadlineSocket:
    """A socket whose every read and write may take what is left until one deadline."""

    def __init__(self, inner: socket.socket, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._arm()
        self._inner.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._inner, self._arm))

    def close(self) -> None:
        """Leaves the socket open: http.client closes it as soon as it has the head, and reads the body after that."""

    def _arm(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._inner.settimeout(left)


class _DeadlineReader(io.RawIOBase):
    """Reads of a socket, each armed with what is left of the time."""

    def __init__(self, inner: socket.socket, arm: Callable[[], None]) -> None:
        self._inner = inner
        self._arm = arm

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - any writable buffer
        self._arm()
        return self._inner.recv_into(buffer)
