"""A container's output as the files that `agent/logs.py` reads, continued where an earlier agent left off.

The engine gives each piece of output its time. The position, a small file beside the logs, says of each stream which
piece was the last when it was written, and how long the stream was then; whatever was appended after that is skipped
by its length. So an agent that ends at any instant neither loses nor doubles a line, as long as the engine keeps it.
"""

import contextlib
import os
import time
from datetime import datetime
from types import TracebackType
from typing import Final, Self

import msgspec

from agent.drivers.docker_spec import LogTarget
from agent.drivers.shim.output_log import OutputLog
from trueup.models.codec import understood

_SAVE_SECONDS: Final = 1.0
_SLACK_SECONDS: Final = 1
"""How much earlier than the last piece reading begins: pieces of two streams are not quite in order of their times."""
_TIME_LENGTH: Final = len("2006-01-02T15:04:05.000000000Z")
STREAMS: Final = {1: "stdout", 2: "stderr"}


class StreamPosition(msgspec.Struct, frozen=True, kw_only=True):
    """The last piece taken in: its time, how many of that very time, and the stream's length in bytes after it."""

    at: str = ""
    same: int = 0
    offset: int = 0


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far the output of one container was taken in."""

    container: str
    streams: dict[str, StreamPosition]


class ResumedLog(OutputLog):
    """The files of one stream, which one attempt may open several times."""

    __slots__ = ()

    def resume(self) -> None:
        """Goes on behind what is there. OSError if the current file cannot be opened.

        It is closed again until output comes: a node's quiet containers hold no files open.
        """
        self._start_is_due = self._is_unused()
        if self._start_is_due:
            return
        self._open_current()
        self.offset = self._begin_of_current() + self._size
        self._remove_beyond_limit()
        self.close()

    def mark_start(self) -> None:
        """Says that an attempt begins here; where there are no files yet, with the first output."""
        if not self._start_is_due:
            self._mark("start")


class ContainerOutput:
    """Both streams of one container's output. Used by one thread at a time. OSError if the files cannot be opened."""

    def __init__(self, target: LogTarget, task: str, attempt: int, container: str) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._folder = os.open(target.folder, flags)
        self._file = f"{task}.position"
        self._container = container
        self._saved_at = 0.0
        try:
            self._logs = {
                name: ResumedLog(
                    self._folder,
                    f"{task}.{name}",
                    max_files=target.max_files,
                    max_bytes=target.max_bytes,
                    attempt=attempt,
                )
                for name in STREAMS.values()
            }
            for log in self._logs.values():
                log.resume()
            self._positions = self._resumed()
        except OSError:
            self.close()
            raise
        self._catching_up = dict.fromkeys(self._logs, True)
        self._seen_again = dict.fromkeys(self._logs, 0)
        self._skip_bytes = {
            name: max(0, log.offset - self._positions[name].offset) for name, log in self._logs.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def since(self) -> str:
        """From when on the engine's output is needed, in seconds as its API wants them; `0` for all of it."""
        newest = max(position.at for position in self._positions.values())
        if not newest:
            return "0"
        seconds = int(msgspec.convert(newest, datetime).timestamp()) - _SLACK_SECONDS
        return f"{seconds}.{newest[20:29]}"

    def read_again(self) -> None:
        """The engine's output is read once more, from `since` on."""
        self._catching_up = dict.fromkeys(self._logs, True)
        self._seen_again = dict.fromkeys(self._logs, 0)

    def take(self, stream: str, piece: bytes) -> None:
        """Appends one piece of output, as the engine gives it (its time, a space, the bytes), unless it is there."""
        at, data = _timed(piece)
        position = self._positions[stream]
        if at and self._is_known(stream, at, position):
            return
        skipped = min(self._skip_bytes[stream], len(data))
        self._skip_bytes[stream] -= skipped
        log = self._logs[stream]
        if skipped < len(data):
            log.write(data[skipped:])
        # With bytes still to skip, the stream is longer than what is accounted for.
        offset = log.offset - self._skip_bytes[stream]
        same = position.same + 1 if at == position.at else 1
        self._positions[stream] = StreamPosition(at=at or position.at, same=same, offset=offset)
        if time.monotonic() - self._saved_at >= _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Writes the position down. Where that fails, what follows is found by its length once more."""
        self._saved_at = time.monotonic()
        held = Position(container=self._container, streams=self._positions)
        new = f"{self._file}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            written = os.open(new, flags, 0o600, dir_fd=self._folder)
            try:
                os.write(written, msgspec.json.encode(held))
            finally:
                os.close(written)
            os.rename(new, self._file, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def close(self) -> None:
        """Closes the files. A repeat does nothing."""
        for log in getattr(self, "_logs", {}).values():
            log.close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def _is_known(self, stream: str, at: str, position: StreamPosition) -> bool:
        """Only at the begin of a reading, up to the first new piece: later, a lower time is a clock set back."""
        if not self._catching_up[stream]:
            return False
        if at == position.at:
            self._seen_again[stream] += 1
        known = at < position.at or (at == position.at and self._seen_again[stream] <= position.same)
        self._catching_up[stream] = known
        return known

    def _resumed(self) -> dict[str, StreamPosition]:
        """The position an earlier agent wrote for this container, or the beginning of an attempt."""
        found = self._read()
        if (
            found is not None
            and found.container == self._container
            and found.streams.keys() == self._logs.keys()
        ):
            return dict(found.streams)
        for log in self._logs.values():
            log.mark_start()
        self._positions = {name: StreamPosition(offset=log.offset) for name, log in self._logs.items()}
        self.save()
        return self._positions

    def _read(self) -> Position | None:
        try:
            opened = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError:
            return None
        with (
            os.fdopen(opened, "rb") as text,
            contextlib.suppress(msgspec.ValidationError, msgspec.DecodeError),
        ):
            return msgspec.json.decode(text.read(), type=understood(Position))
        return None


def _timed(piece: bytes) -> tuple[str, bytes]:
    """The time before a piece of output, empty if there is none, and the output itself."""
    time_text = piece[:_TIME_LENGTH]
    if (
        piece[_TIME_LENGTH : _TIME_LENGTH + 1] != b" "
        or time_text[-1:] != b"Z"
        or not time_text[:4].isdigit()
    ):
        return "", piece
    return time_text.decode("ascii", "replace"), piece[_TIME_LENGTH + 1 :]
