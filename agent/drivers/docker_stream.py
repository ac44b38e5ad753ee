"""An answer of the engine that is read as it comes: output of a container, events, how a pull goes."""

import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import requests

from agent.drivers.docker_errors import BROKEN_STREAM, EngineAway, cause

_PIECE_BYTES: Final = 65536
_FRAME_HEADER: Final = struct.Struct(">BxxxL")


class Stream:
    """An answer that is read by one thread; any other may `interrupt` it.

    Once its head is there, it may be silent for *silence_seconds* (None: for ever). *wait* is called before each read
    of it, may wait for there to be something, and raises what ends the reading.
    """

    def __init__(
        self,
        response: requests.Response,
        silence_seconds: float | None,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        self._response = response
        self._wait = wait
        self._interrupted = False
        self._socket = _socket_of(response)
        if self._socket is not None:
            self._socket.settimeout(silence_seconds)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Output of a container without a terminal: (1 stdout, 2 stderr, 3 the engine's own error; bytes)."""
        held = bytearray()
        for data in self._pieces():
            held += data
            begin = 0
            while len(held) - begin >= _FRAME_HEADER.size:
                kind, length = _FRAME_HEADER.unpack_from(held, begin)
                end = begin + _FRAME_HEADER.size + length
                if len(held) < end:
                    break
                yield kind, bytes(held[begin + _FRAME_HEADER.size : end])
                begin = end
            del held[:begin]

    def messages(self) -> Iterator[dict[str, Any]]:
        """JSON objects, one after another."""
        text, decoder = "", json.JSONDecoder()
        for data in self._pieces():
            text += data.decode("utf-8", "replace")
            while text := text.lstrip():
                try:
                    message, end = decoder.raw_decode(text)
                except ValueError:
                    break
                text = text[end:]
                if isinstance(message, dict):
                    yield message

    def interrupt(self) -> None:
        """Ends the reading: the reader sees the end of the answer."""
        self._interrupted = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Lets go of the connection. Only the reader may."""
        self._response.close()

    def _pieces(self) -> Iterator[bytes]:
        """What has come, as soon as there is any."""
        try:
            while True:
                self._wait()
                data = self._response.raw.read1(_PIECE_BYTES)
                if not data:
                    return
                yield data
        except BROKEN_STREAM as error:
            if not self._interrupted:
                raise EngineAway(f"the connection to the Docker engine broke: {cause(error)}") from None


def _socket_of(response: requests.Response) -> socket.socket | None:
    """The socket beneath an answer, as the SDK itself reaches for it; None where all of it has come already."""
    raw: Any = response.raw
    try:
        found = raw._fp.fp.raw._sock  # noqa: SLF001 - urllib3 and http.client have no other way to it
    except AttributeError:
        return None
    return found if isinstance(found, socket.socket) else None
