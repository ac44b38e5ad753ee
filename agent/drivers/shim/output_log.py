"""One stream of a task's output as files that stay within a limit: written here, read by `agent/logs.py`.

The form of the files is written down there. Writing never raises and never waits: output that finds no room on the
disk is dropped and counted, and the first bytes that are written again stand behind a line that says how many.
"""

import contextlib
import os
import stat
import time

_MARKS_LIMIT_BYTES = 128 * 1024
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class OutputLog:
    """The files of one stream: *name* (`server.stdout`), `name.1` …, `name.marks`, in an open *folder*."""

    __slots__ = (
        "_dropped_bytes",
        "_folder",
        "_last_error",
        "_marked_at",
        "_max_bytes",
        "_max_files",
        "_name",
        "_open",
        "_size",
        "_start_is_due",
        "attempt",
        "offset",
    )

    def __init__(self, folder: int, name: str, *, max_files: int, max_bytes: int, attempt: int) -> None:
        self._folder = folder
        self._name = name
        self._max_files = max(1, max_files)
        self._max_bytes = max(1, max_bytes)
        self._open = -1
        self._size = 0
        self._marked_at = 0.0
        self._dropped_bytes = 0
        self._last_error = ""
        self._start_is_due = False
        self.attempt = attempt
        self.offset = 0

    def begin(self) -> None:
        """Opens the current file behind what earlier attempts wrote. OSError if that is not possible.

        A stream that never had any output has no files until it has: creating them is a good part of what a start
        costs, and most tasks are silent on one of the two.
        """
        if self._is_unused():
            self._start_is_due = True
            return
        self._open_current()
        self.offset = self._begin_of_current() + self._size
        self._remove_beyond_limit()
        self._mark("start")

    def write(self, data: bytes) -> None:
        """Appends output."""
        notice = self._what_was_dropped() if self._dropped_bytes else b""
        offset_before = self.offset
        try:
            self._append(notice + data)
        except OSError as error:
            self._last_error = error.strerror or "write failed"
            written_bytes = self.offset - offset_before
            earlier = self._dropped_bytes if written_bytes < len(notice) else 0
            self._dropped_bytes = earlier + len(data) - max(0, written_bytes - len(notice))
        else:
            self._dropped_bytes = 0

    def close(self) -> None:
        """Closes the current file; a later `write` opens it again."""
        if self._open >= 0:
            os.close(self._open)
            self._open = -1

    def _what_was_dropped(self) -> bytes:
        return f"\n[trueup] {self._dropped_bytes} bytes of output were dropped: {self._last_error}\n".encode()

    def _append(self, data: bytes) -> None:
        if self._start_is_due:
            self._start_is_due = False
            self._mark("start")
        now = time.time()
        if now - self._marked_at >= 1 or now < self._marked_at:
            self._marked_at = now
            self._mark("time")
        left = memoryview(data)
        while left:
            if self._open < 0:
                self._open_current()
            part = left[: _share(left, self._max_bytes - self._size, fresh=self._size == 0)]
            if not part:
                self._rotate()
                continue
            count = os.write(self._open, part)
            self._size += count
            self.offset += count
            left = left[count:]

    def _open_current(self) -> None:
        opened = os.open(self._name, _FLAGS, 0o600, dir_fd=self._folder)
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            os.close(opened)
            raise OSError(0, f"{self._name} in the logs folder is no regular file")
        self._open, self._size = opened, found.st_size

    def _rotate(self) -> None:
        self.close()
        if self._max_files == 1:
            os.unlink(self._name, dir_fd=self._folder)
        for number in range(self._max_files - 1, 1, -1):
            self._rename(f"{self._name}.{number - 1}", f"{self._name}.{number}")
        if self._max_files > 1:
            self._rename(self._name, f"{self._name}.1")
        self._open_current()
        with contextlib.suppress(OSError):
            self._shorten_marks()
        self._mark("rotate")

    def _is_unused(self) -> bool:
        for name in (self._name, f"{self._name}.1"):
            try:
                os.stat(name, dir_fd=self._folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            return False
        return True

    def _rename(self, before: str, after: str) -> None:
        try:
            os.rename(before, after, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except FileNotFoundError:
            return

    def _remove_beyond_limit(self) -> None:
        """Removes what an earlier attempt with a higher limit left."""
        number = self._max_files
        while True:
            try:
                os.unlink(f"{self._name}.{number}", dir_fd=self._folder)
            except OSError:
                return
            number += 1

    def _size_of_rotated(self) -> int:
        size, number = 0, 1
        while True:
            try:
                size += os.stat(f"{self._name}.{number}", dir_fd=self._folder, follow_symlinks=False).st_size
            except OSError:
                return size
            number += 1

    def _begin_of_current(self) -> int:
        """The stream's offset at which the current file begins, from the marks or else from what is still there."""
        for line in reversed(self._read_marks()):
            fields = line.split()
            if len(fields) == 4 and fields[0] == b"rotate" and fields[1].isdigit():
                return int(fields[1])
        return self._size_of_rotated()

    def _mark(self, kind: str) -> None:
        line = f"{kind} {self.offset} {int(time.time() * 1000)} {self.attempt}\n".encode()
        try:
            marks = os.open(f"{self._name}.marks", _FLAGS, 0o600, dir_fd=self._folder)
        except OSError:
            return
        try:
            os.write(marks, line)
            if os.fstat(marks).st_size > _MARKS_LIMIT_BYTES:
                self._shorten_marks()
        except OSError:
            pass
        finally:
            os.close(marks)

    def _read_marks(self) -> list[bytes]:
        try:
            marks = os.open(
                f"{self._name}.marks", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder
            )
        except OSError:
            return []
        with open(marks, "rb") as lines:
            return lines.readlines()

    def _shorten_marks(self) -> None:
        """Drops the marks of bytes that are gone; if that is not enough every second time, then the oldest."""
        oldest = self.offset - self._size - self._size_of_rotated()
        kept = [line for line in self._read_marks() if _offset_of(line) >= oldest]
        if sum(map(len, kept)) > _MARKS_LIMIT_BYTES // 2:
            kept = [line for number, line in enumerate(kept) if number % 2 or not line.startswith(b"time")]
        if sum(map(len, kept)) > _MARKS_LIMIT_BYTES // 2:
            kept = kept[len(kept) // 2 :]
        temporary = f"{self._name}.marks.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        written = os.open(temporary, flags, 0o600, dir_fd=self._folder)
        with open(written, "wb") as lines:
            lines.writelines(kept)
        self._rename(temporary, f"{self._name}.marks")


def _share(data: memoryview, room: int, *, fresh: bool) -> int:
    """How many bytes of *data* go into a file with *room* left: whole lines where possible, 0 if a new one is due."""
    if room <= 0 or len(data) <= room:
        return max(0, min(room, len(data)))
    whole_lines = bytes(data[:room]).rfind(b"\n") + 1
    return whole_lines or (room if fresh else 0)


def _offset_of(line: bytes) -> int:
    fields = line.split()
    return int(fields[1]) if len(fields) == 4 and fields[1].isdigit() else -1
