"""The agent's end of the spawner: has one shim forked for each order, and hears whether its task started.

The order goes to the shim itself over a socket of its own; the spawner only passes that socket on. It is started
when first needed, again when it is gone, and ends when the agent does.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.doors import DriverError

_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from shim.spawner import main; "
    "main(int(sys.argv[2]), sys.argv[3], sys.argv[4:])"
)
_ATTEMPTS = 3


class Spawner:
    """Forks shims on demand. Thread-safe; *cgroup_folders* are where it and its shims live, *scratch* is its folder."""

    def __init__(self, scratch: Path, cgroup_folders: Sequence[Path], *, timeout_seconds: float = 30) -> None:
        self._scratch = scratch
        self._cgroup_folders = cgroup_folders
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._asking: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The spawner's process, or None before the first order."""
        return self._process.pid if self._process else None

    def order(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """What the shim of one order answers. DriverError (temporary) if none does in time.

        A repeat of an order is safe: shims of one attempt exclude each other.
        """
        text = json.dumps(order).encode()
        for _ in range(_ATTEMPTS):
            answer = self._ask(text)
            if answer:
                return dict(json.loads(answer))
        raise DriverError(
            "no shim could be forked for the task: is the machine out of processes or memory?", temporary=True
        )

    def warm_up(self) -> None:
        """Starts the spawner, so that the first task need not wait for it."""
        with self._lock:
            self._ensure()

    def close(self) -> None:
        """Ends the spawner; shims and tasks run on."""
        with self._lock:
            self._discard()

    def _ask(self, text: bytes) -> bytes:
        """Sends one order; an empty answer if spawner or shim went away instead of answering."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._pass_on(theirs)
            deadline = time.monotonic() + self._timeout_seconds
            try:
                ours.settimeout(self._timeout_seconds)
                ours.sendall(text)
                ours.shutdown(socket.SHUT_WR)
                return _read_to_end(ours, deadline)
            except TimeoutError:
                self._replace_hung()
                raise DriverError("the task's shim did not answer in time", temporary=True) from None
            except OSError:
                return b""

    def _replace_hung(self) -> None:
        """Ends a spawner that may hang; a new one is started for the next order."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
            self._discard()

    def _pass_on(self, theirs: socket.socket) -> None:
        with self._lock:
            try:
                socket.send_fds(self._ensure(), [b"1"], [theirs.fileno()])
            except OSError:
                self._discard()
                socket.send_fds(self._ensure(), [b"1"], [theirs.fileno()])

    def _ensure(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._discard()
        if self._asking is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = _start(theirs.fileno(), self._scratch, self._cgroup_folders)
            ours.settimeout(self._timeout_seconds)
            self._asking = ours
        return self._asking

    def _discard(self) -> None:
        if self._asking is not None:
            self._asking.close()
            self._asking = None
        if self._process is not None:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _start(asking: int, scratch: Path, cgroup_folders: Sequence[Path]) -> subprocess.Popen[bytes]:
    here = Path(__file__).parent
    return subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _BOOT,
            str(here),
            str(asking),
            str(scratch / secrets.token_hex(4)),
            *map(str, cgroup_folders),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        pass_fds=[asking],
        start_new_session=True,
    )


def _read_to_end(answering: socket.socket, deadline: float) -> bytes:
    answer = b""
    while True:
        answering.settimeout(max(0.001, deadline - time.monotonic()))
        part = answering.recv(65536)
        if not part:
            return answer
        answer += part


def connect_to_control(folder: Path, name: str) -> socket.socket:
    """A connection to a shim's control socket. OSError if the shim is gone.

    By a descriptor of its folder, as the name of a socket may have 107 bytes at most.
    """
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(f"/proc/self/fd/{held}/{name}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(held)
    return connection
