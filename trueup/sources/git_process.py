"""Runs one program for a git source: in a process group of its own, within bounds, and none of it outlives the call.

The bounds are the kernel's where it has some (the largest file, memory), else kept here (time, output). A peer that
streams for ever, or a tree that unfolds without end, costs what they allow and no more.
"""

import os
import resource
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

_GRACE_SECONDS: Final = 0.5
"""Between TERM, on which git takes its lock files away, and KILL."""
_CHUNK_BYTES: Final = 64 * 1024
_KEPT_ERROR_BYTES: Final = 64 * 1024
"""Of what is said on stderr the end is kept: there stands why it failed."""
_LIMITED: Final = 'ulimit -f "$1" && ulimit -d "$2" && shift 2 && exec "$@"'
"""By a shell, since a limit set on a process that runs already comes too late for what it has started."""
_FILE_UNIT_BYTES: Final = 512
_MEMORY_UNIT_BYTES: Final = 1024


class GitFailed(Exception):
    """A git process ended with an error. *text* is what it said, in one line."""

    def __init__(self, text: str, *, timed_out: bool = False, said_too_much: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.timed_out = timed_out
        self.said_too_much = said_too_much


@dataclass(frozen=True, slots=True, kw_only=True)
class GitLimits:
    """How much a git source may take: memory of each process, bytes of the whole mirror."""

    memory_bytes: int = 1024**3
    mirror_bytes: int = 4 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one call may take. *file_bytes* is the largest file it may write."""

    deadline_seconds: float
    output_bytes: int
    file_bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended: a status as `Popen.returncode` has it, what it printed, the end of what it complained."""

    status: int
    output: bytes
    errors: bytes


class ProcessGroups:
    """Starts programs in *folder*; `close` ends all that run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def run(
        self, words: Sequence[str], environment: Mapping[str, str], bounds: Bounds, stdin: bytes = b""
    ) -> Ended:
        """Runs a program to its end. GitFailed at a bound, when closed, and if there is no such program."""
        deadline = time.monotonic() + bounds.deadline_seconds
        with tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            process = self._start(words, environment, bounds, given)
        try:
            output, errors = _read_to_the_end(process, deadline, bounds)
        finally:
            self._end(process)
        return Ended(status=process.returncode, output=output, errors=errors)

    @contextmanager
    def converse(
        self, words: Sequence[str], environment: Mapping[str, str], bounds: Bounds
    ) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Input and output of a program, for questions and answers.

        Leaving the block ends the program; at the deadline both end.
        """
        process = self._start(words, environment, bounds, subprocess.PIPE)
        timer = threading.Timer(bounds.deadline_seconds, self._kill, (process,))
        timer.daemon = True
        timer.start()
        try:
            if process.stdin is None or process.stdout is None:
                raise GitFailed("no pipe to git")
            yield process.stdin, process.stdout
        finally:
            timer.cancel()
            self._end(process)

    def close(self) -> None:
        """Ends what runs, from another thread, and starts nothing more."""
        with self._lock:
            self._closed = True
            for process in self._running:
                _signal_group(process, signal.SIGKILL)

    def _start(
        self, words: Sequence[str], environment: Mapping[str, str], bounds: Bounds, stdin: int | IO[bytes]
    ) -> subprocess.Popen[bytes]:
        program = words[0]
        if shutil.which(program, path=environment.get("PATH")) is None:
            raise GitFailed(f"the {program} program is not installed; install {program}")
        with self._lock:
            if self._closed:
                raise GitFailed("the source is closed")
            try:
                process = subprocess.Popen(
                    ["/bin/sh", "-c", _LIMITED, "sh", *_limits(bounds), *words],
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE if stdin != subprocess.PIPE else subprocess.DEVNULL,
                    cwd=self._folder,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise GitFailed(f"{program} could not be started: {error.strerror}") from None
            self._running.add(process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Ends a program and all it started, and collects it.

        The program is collected last: until then its number is its group's and nobody else's.
        """
        if not _has_exited(process):
            _signal_group(process, signal.SIGTERM)
            _wait_for_exit(process, _GRACE_SECONDS)
        _signal_group(process, signal.SIGKILL)
        with self._lock:
            self._running.discard(process)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if process in self._running:
                _signal_group(process, signal.SIGKILL)


def _read_to_the_end(
    process: subprocess.Popen[bytes], deadline: float, bounds: Bounds
) -> tuple[bytes, bytes]:
    """What it prints until it has ended, and its group with it. GitFailed at a bound."""
    output, errors = bytearray(), bytearray()
    exited = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for stream, kept in ((process.stdout, output), (process.stderr, errors)):
                if stream is not None:
                    selector.register(stream, selectors.EVENT_READ, kept)
            selector.register(exited, selectors.EVENT_READ)
            while selector.get_map():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise GitFailed(f"gave no answer within {bounds.deadline_seconds:g} s", timed_out=True)
                for key, _ in selector.select(left):
                    if key.fd == exited:
                        _signal_group(process, signal.SIGKILL)  # what it left behind holds its pipes open
                        selector.unregister(exited)
                    elif chunk := os.read(key.fd, _CHUNK_BYTES):
                        key.data.extend(chunk)
                    else:
                        selector.unregister(key.fileobj)
                if len(output) > bounds.output_bytes:
                    raise GitFailed(
                        f"printed more than {bounds.output_bytes // 1024**2} MiB", said_too_much=True
                    )
                del errors[:-_KEPT_ERROR_BYTES]
    finally:
        os.close(exited)
    return bytes(output), bytes(errors)


def _limits(bounds: Bounds) -> tuple[str, str]:
    """The arguments of `ulimit`, within what this process may have itself."""
    return (
        str(_within(resource.RLIMIT_FSIZE, bounds.file_bytes) // _FILE_UNIT_BYTES),
        str(_within(resource.RLIMIT_DATA, bounds.memory_bytes) // _MEMORY_UNIT_BYTES),
    )


def _within(kind: int, wanted: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _has_exited(process: subprocess.Popen[bytes]) -> bool:
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _wait_for_exit(process: subprocess.Popen[bytes], seconds: float) -> None:
    exited = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(exited, selectors.EVENT_READ)
            selector.select(seconds)
    finally:
        os.close(exited)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
