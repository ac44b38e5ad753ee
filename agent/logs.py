"""Reads the output of tasks, from files that a shim (or a follower of a container's output) writes.

The form of the files, which writer and reader share. For each task and stream (`stdout`, `stderr`), in the
allocation's logs folder, which the task's own user cannot write:

- `<task>.<stream>`: the newest output, raw bytes, appended to over all attempts of the task;
- `<task>.<stream>.1` … `.N`: rotated, 1 the newest; `max_files` counts the current one too. Rotation renames
  `.N-1` to `.N`, …, the current one to `.1`, and opens a new current one; it never copies or truncates;
- `<task>.<stream>.marks`: one line `KIND OFFSET UNIX_MS ATTEMPT` each, appended with one write. OFFSET counts the
  bytes of the stream since the task's first attempt, over rotations. KIND is `start` (an attempt begins here),
  `rotate` (the current file begins here) or `time` (output arrived: at most one line a second). On rotation the
  writer may replace the file (write, rename) by one without the lines below the oldest byte still kept.

Marks only make `since`, `timestamps` and `previous` possible: where they are absent or torn, reading goes on
without. Files are opened with O_NOFOLLOW.
"""

import contextlib
import os
import stat
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from agent.doors import TaskFolders
from agent.log_request import LogRequest
from trueup.models.clock import Clock
from trueup.models.ids import AllocationId

CHUNK_BYTES: Final = 64 * 1024
POLL_SECONDS: Final = 0.2
"""How often a followed log is looked at; output is shown that much later at most."""
_LISTING_SECONDS: Final = 0.001
_LONGEST_LISTING_SECONDS: Final = 0.3
_MISSING: Final = b"\n[trueup] output is missing here: it was rotated away before it was read\n"
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LogFolders(Protocol):
    """Where logs are (`agent.doors.Folders`)."""

    def paths(self, allocation_id: AllocationId, task: str) -> TaskFolders: ...


class LogReader:
    """Reads tasks' output. What is not there reads as empty: a task that has not started has written nothing."""

    def __init__(self, folders: LogFolders, clock: Clock) -> None:
        self._folders = folders
        self._clock = clock

    def read(self, allocation_id: AllocationId, asked: LogRequest) -> Iterator[bytes]:
        """The output there is now, in pieces."""
        with contextlib.ExitStack() as opened:
            files = self._open(allocation_id, asked, opened)
            begin, end = self._range(files, asked)
            stamps = _Stamps(begin, wanted=asked.timestamps)
            yield from stamps.put(files.drained(begin, end), files.marks)

    def follow(
        self,
        allocation_id: AllocationId,
        asked: LogRequest,
        *,
        ended: Callable[[], bool],
        left: Callable[[], bool],
        wait: Callable[[float], object],
    ) -> Iterator[bytes]:
        """The output there is and all that comes, until *ended* says the task has and all of it is read, or *left*.

        Nothing is kept for a slow reader: where files were rotated away before it came to them, a line says so.
        """
        with contextlib.ExitStack() as following:
            with contextlib.ExitStack() as opened:
                files = self._open(allocation_id, asked, opened)
                begin, end = self._range(files, asked)
                stamps = _Stamps(begin, wanted=asked.timestamps)
                follower = _Follower(self._folders.paths(allocation_id, asked.task), asked, files, end)
                following.callback(follower.close)
                yield from stamps.put(files.drained(begin, end), files.marks)
            while not left():
                # Asked before the look: what was written until then is seen by it.
                is_last = ended()
                for piece in follower.news():
                    if isinstance(piece, int):
                        yield _MISSING
                        stamps.move_to(piece)
                    else:
                        yield from stamps.put([piece], follower.marks(asked))
                if is_last:
                    return
                wait(POLL_SECONDS)

    def _open(self, allocation_id: AllocationId, asked: LogRequest, opened: contextlib.ExitStack) -> "_Files":
        folder = _open_folder(self._folders.paths(allocation_id, asked.task).logs, opened)
        return _Files() if folder is None else _open_files(folder, f"{asked.task}.{asked.stream}", opened)

    def _range(self, files: "_Files", asked: LogRequest) -> tuple[int, int]:
        """Where to begin and to end, as offsets of the stream."""
        begin, end = files.begin, files.end
        if asked.previous:
            starts = [mark.offset for mark in files.marks if mark.kind == "start"]
            begin, end = (starts[-2], starts[-1]) if len(starts) > 1 else (end, end)
        if asked.offset is not None:
            begin = max(begin, asked.offset)
        if asked.since is not None and files.marks:
            oldest_ms = (self._clock.now() - asked.since).timestamp() * 1000
            fresh = (mark.offset for mark in files.marks if mark.unix_ms >= oldest_ms)
            begin = max(begin, min(fresh, default=end))
        begin = min(max(begin, files.begin), end)
        if asked.tail is not None:
            begin = files.last_lines(begin, end, asked.tail)
        return begin, end


@dataclass(frozen=True, slots=True)
class _Mark:
    kind: str
    offset: int
    unix_ms: int


@dataclass(frozen=True, slots=True)
class _File:
    stream: BinaryIO
    inode: int
    begin: int
    size: int


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of one stream, oldest first, open as of one moment."""

    files: Sequence[_File] = ()
    marks: Sequence[_Mark] = field(default=())

    @property
    def begin(self) -> int:
        return self.files[0].begin if self.files else 0

    @property
    def end(self) -> int:
        return self.files[-1].begin + self.files[-1].size if self.files else 0

    def between(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes of that range, in pieces."""
        for file in self.files:
            yield from self._part(file, begin, end)

    def drained(self, begin: int, end: int) -> Iterator[bytes]:
        """As `between`, once: lets go of each file that is not needed (any more), for the reader may be slow."""
        for file in self.files:
            if file.begin + file.size <= begin:
                file.stream.close()
        for file in self.files:
            if not file.stream.closed:
                yield from self._part(file, begin, end)
                file.stream.close()

    @staticmethod
    def _part(file: _File, begin: int, end: int) -> Iterator[bytes]:
        first, last = max(begin, file.begin), min(end, file.begin + file.size)
        if first < last:
            file.stream.seek(first - file.begin)
            yield from _pieces(file.stream, last - first)

    def last_lines(self, begin: int, end: int, count: int) -> int:
        """Where the last *count* lines of that range begin; a last line without an end counts."""
        if count == 0:
            return end
        position, found = end, 0
        while position > begin:
            size = min(CHUNK_BYTES, position - begin)
            position -= size
            piece = b"".join(self.between(position, position + size))
            at = len(piece)
            while (at := piece.rfind(b"\n", 0, at)) >= 0:
                if position + at + 1 == end:
                    continue
                found += 1
                if found == count:
                    return position + at + 1
        return begin


class _Follower:
    """Goes on reading behind *position*, over rotations.

    It holds the file it reads open, which is read to its end whatever became of its name; and as long as it is open
    no newer file can have its inode.
    """

    def __init__(self, folders: TaskFolders, asked: LogRequest, files: _Files, position: int) -> None:
        self._logs = folders.logs
        self._name = f"{asked.task}.{asked.stream}"
        self._held: BinaryIO | None = None
        self._position = position
        if files.files:
            self._hold(files.files[-1])

    def news(self) -> Iterator[bytes | int]:
        """What was written since the last call; an offset where what stood before it is gone."""
        while True:
            yield from self._rest()
            with contextlib.ExitStack() as opened:
                newer = self._newer(opened)
                if newer:
                    # Written between the look at the file and its rotation.
                    yield from self._rest()
                    if newer[0].begin > self._position:
                        yield newer[0].begin
                    self._position = newer[0].begin
                    self._hold(newer[0])
            if not newer:
                return

    def marks(self, asked: LogRequest) -> Sequence[_Mark]:
        """The stream's marks as they are now; only timestamps need them."""
        if not asked.timestamps:
            return ()
        with contextlib.ExitStack() as opened:
            folder = _open_folder(self._logs, opened)
            return () if folder is None else _read_marks(folder, self._name, opened)

    def close(self) -> None:
        """Lets go of the file."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def _hold(self, file: _File) -> None:
        self.close()
        self._held = os.fdopen(os.dup(file.stream.fileno()), "rb", buffering=0)
        self._begin = file.begin

    def _rest(self) -> Iterator[bytes]:
        if self._held is None:
            return
        # pread: the descriptor shares its place in the file with those it was made from.
        while piece := os.pread(self._held.fileno(), CHUNK_BYTES, self._position - self._begin):
            self._position += len(piece)
            yield piece

    def _newer(self, opened: contextlib.ExitStack) -> Sequence[_File]:
        """Files behind the one that is held, oldest first; all there are if that is gone."""
        folder = _open_folder(self._logs, opened)
        if folder is None:
            return ()
        held = None if self._held is None else os.fstat(self._held.fileno()).st_ino
        if held is not None and _inode(folder, self._name) in {held, None}:
            return ()
        files = _open_files(folder, self._name, opened)
        inodes = [file.inode for file in files.files]
        return files.files[inodes.index(held) + 1 :] if held in inodes else files.files


def _open_files(folder: int, name: str, opened: contextlib.ExitStack) -> _Files:
    """Opens all files of a stream as of one moment: anew where a rotation came between."""
    pause_seconds = _LISTING_SECONDS
    while True:
        with contextlib.ExitStack() as looking:
            files, is_settled = _look(folder, name, looking)
            # One that was killed while it renamed them leaves them so.
            if is_settled or pause_seconds > _LONGEST_LISTING_SECONDS:
                opened.push(looking.pop_all())
                return files
        # What renames them needs the processor, too.
        time.sleep(pause_seconds)
        pause_seconds *= 2


def _look(folder: int, name: str, opened: contextlib.ExitStack) -> tuple[_Files, bool]:
    """The files, and whether no rotation was under way."""
    inodes = _list_inodes(folder, name)
    # Oldest first, the current one last.
    names = [f"{name}.{number}" if number else name for number in sorted(inodes, reverse=True)]
    streams = [stream for one in names if (stream := _open_file(folder, one, opened)) is not None]
    marks = _read_marks(folder, name, opened)
    found = [os.fstat(stream.fileno()) for stream in streams]
    sizes = [one.st_size for one in found]
    rotated = [mark.offset for mark in marks if mark.kind == "rotate"]
    begin = (rotated[-1] if rotated else sum(sizes[:-1])) - sum(sizes[:-1])
    files = []
    for stream, one in zip(streams, found, strict=True):
        files.append(_File(stream, one.st_ino, max(0, begin), one.st_size))
        begin += one.st_size
    # Renamed one after another, and marked before the first byte of the new one is written.
    is_whole = list(inodes) == list(range(len(inodes))) and sizes[-1:] != [0]
    same = list(inodes.values()) == [one.st_ino for one in reversed(found)]
    return _Files(files, marks), is_whole and same and inodes == _list_inodes(folder, name)


def _list_inodes(folder: int, name: str) -> dict[int, int]:
    """By number, 0 the current one. While files are renamed one number may be without a file, but not two."""
    inodes: dict[int, int] = {}
    number = missing = 0
    while missing < 2:
        inode = _inode(folder, f"{name}.{number}" if number else name)
        missing = missing + 1 if inode is None else 0
        if inode is not None:
            inodes[number] = inode
        number += 1
    return inodes


def _open_file(folder: int, name: str, opened: contextlib.ExitStack) -> BinaryIO | None:
    try:
        descriptor = os.open(name, _FILE_FLAGS, dir_fd=folder)
    except OSError:
        return None
    stream = opened.enter_context(os.fdopen(descriptor, "rb"))
    return stream if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _open_folder(path: Path, opened: contextlib.ExitStack) -> int | None:
    try:
        folder = os.open(path, _FOLDER_FLAGS)
    except OSError:
        return None
    opened.callback(os.close, folder)
    return folder


def _inode(folder: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino
    except OSError:
        return None


def _read_marks(folder: int, name: str, opened: contextlib.ExitStack) -> Sequence[_Mark]:
    stream = _open_file(folder, f"{name}.marks", opened)
    if stream is None:
        return ()
    marks = []
    with stream:
        read = stream.read()
    for line in read.splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[1].isdigit() and fields[2].isdigit():
            marks.append(_Mark(fields[0].decode("ascii", "replace"), int(fields[1]), int(fields[2])))
    return marks


def _pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    left = size
    while left > 0:
        piece = stream.read(min(CHUNK_BYTES, left))
        if not piece:
            return
        left -= len(piece)
        yield piece


class _Stamps:
    """Puts each line's time before it, where that is wanted and known; a line may come in several pieces."""

    def __init__(self, begin: int, *, wanted: bool) -> None:
        self._wanted = wanted
        self._position = begin
        self._fresh = True

    def move_to(self, position: int) -> None:
        """What comes next begins at *position*, and a line with it."""
        self._position, self._fresh = position, True

    def put(self, pieces: Iterable[bytes], marks: Sequence[_Mark]) -> Iterator[bytes]:
        """*pieces*, which go on where those before ended, with stamps by *marks*."""
        if not self._wanted:
            yield from pieces
            return
        ordered = sorted(marks, key=lambda mark: (mark.offset, mark.unix_ms))
        offsets = [mark.offset for mark in ordered]
        for piece in pieces:
            stamped = []
            for line in piece.splitlines(keepends=True):
                if self._fresh:
                    stamped.append(_stamp(ordered, offsets, self._position))
                stamped.append(line)
                self._position += len(line)
                self._fresh = line.endswith(b"\n")
            yield b"".join(stamped)


def _stamp(ordered: Sequence[_Mark], offsets: Sequence[int], position: int) -> bytes:
    number = bisect_right(offsets, position) - 1
    if number < 0:
        return b""
    at = datetime.fromtimestamp(ordered[number].unix_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z ").encode()
