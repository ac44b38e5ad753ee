"""Reading tasks' output from the files that a shim really writes."""

import itertools
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from agent.doors import TaskFolders
from agent.drivers.shim.output_log import OutputLog
from agent.log_request import BadLogRequest, LogRequest, parse_log_request
from agent.logs import LogReader
from cli.system import SystemClock
from tests.unit.agent.world import VirtualClock
from trueup.models.ids import AllocationId

A1 = AllocationId("a1")


class Output:
    """One stream's files in a folder, written as a shim does, and a reader of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = os.open(folder, os.O_RDONLY)
        self.log: OutputLog | None = None
        self.reader = LogReader(self, SystemClock())

    def paths(self, allocation_id: AllocationId, task: str) -> TaskFolders:
        return TaskFolders(task=self.folder, shared=self.folder, logs=self.folder)

    def attempt(self, number: int, *, max_files: int = 3, max_bytes: int = 20) -> OutputLog:
        if self.log is not None:
            self.log.close()
        self.log = OutputLog(
            self._open, "server.stdout", max_files=max_files, max_bytes=max_bytes, attempt=number
        )
        self.log.begin()
        return self.log

    def read(self, **asked: object) -> bytes:
        return b"".join(self.reader.read(A1, LogRequest(task="server", **asked)))  # type: ignore[arg-type]

    def close(self) -> None:
        if self.log is not None:
            self.log.close()
        os.close(self._open)


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    output = Output(tmp_path)
    yield output
    output.close()


def lines(first: int, last: int) -> bytes:
    return b"".join(b"line %03d\n" % number for number in range(first, last))


def test_what_was_never_written_reads_as_empty(output: Output, tmp_path: Path) -> None:
    assert output.read() == b""
    output.folder = tmp_path / "absent"
    assert output.read(tail=3) == b""


def test_rotated_files_are_read_in_order_as_far_as_they_are_kept(output: Output) -> None:
    log = output.attempt(1)
    for number in range(10):
        log.write(lines(number, number + 1))
    assert output.read() == lines(4, 10)
    assert output.read(offset=0) == lines(4, 10)
    assert output.read(offset=9 * 7) == lines(7, 10)
    assert output.read(offset=10_000) == b""


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 6, 100])
def test_the_tail_counts_lines_over_rotations(output: Output, count: int) -> None:
    log = output.attempt(1)
    for number in range(10):
        log.write(lines(number, number + 1))
    assert output.read(tail=count) == lines(max(4, 10 - count), 10)


def test_a_last_line_without_an_end_counts_as_a_line(output: Output) -> None:
    output.attempt(1, max_bytes=1000).write(b"one\ntwo\nthree")
    assert output.read(tail=1) == b"three"
    assert output.read(tail=2) == b"two\nthree"


def test_the_tail_of_one_endless_line_is_that_line(output: Output) -> None:
    output.attempt(1, max_bytes=1_000_000).write(b"x" * 300_000)
    assert len(output.read(tail=1)) == 300_000


def test_previous_is_the_attempt_before_the_newest(output: Output) -> None:
    output.attempt(1, max_bytes=1000).write(b"first\n")
    output.attempt(2, max_bytes=1000).write(b"second\n")
    assert output.read(previous=True) == b"first\n"
    output.attempt(3, max_bytes=1000).write(b"third\n")
    assert output.read(previous=True) == b"second\n"
    assert output.read() == b"first\nsecond\nthird\n"


def test_there_is_no_previous_attempt_of_the_first(output: Output) -> None:
    output.attempt(1).write(b"first\n")
    assert output.read(previous=True) == b""


def test_since_leaves_out_what_came_before(output: Output) -> None:
    marks = output.folder / "server.stdout.marks"
    (output.folder / "server.stdout").write_bytes(b"old\nnew\n")
    now = VirtualClock()
    output.reader = LogReader(output, now)
    new_ms = int(now.wall.timestamp() * 1000)
    marks.write_text(f"start 0 {new_ms - 60_000} 1\ntime 4 {new_ms} 1\n")
    assert output.read(since=timedelta(seconds=10)) == b"new\n"
    assert output.read(since=timedelta(minutes=2)) == b"old\nnew\n"
    now.move(timedelta(hours=1))
    assert output.read(since=timedelta(seconds=10)) == b""


def test_timestamps_stand_before_lines_whose_time_is_known(output: Output) -> None:
    (output.folder / "server.stdout").write_bytes(b"one\ntwo\n")
    assert output.read(timestamps=True) == b"one\ntwo\n"
    (output.folder / "server.stdout.marks").write_text("start 0 1700000000000 1\ntime 4 1700000001500 1\n")
    assert output.read(timestamps=True) == b"2023-11-14T22:13:20.000Z one\n2023-11-14T22:13:21.500Z two\n"


@pytest.mark.parametrize("torn", [b"", b"start", b"rotate x y z\n\xff\xff", b"rotate 99999999 1 1\n"])
def test_marks_that_are_torn_or_wrong_lose_no_output(output: Output, torn: bytes) -> None:
    (output.folder / "server.stdout.marks").write_bytes(torn)
    (output.folder / "server.stdout").write_bytes(b"one\n")
    assert output.read() == b"one\n"
    assert output.read(tail=1, timestamps=True).endswith(b"one\n")


def test_no_link_is_followed(output: Output, tmp_path: Path) -> None:
    secret = tmp_path / "shadow"
    secret.write_text("root:x")
    (output.folder / "server.stdout").symlink_to(secret)
    (output.folder / "server.stdout.1").symlink_to(secret)
    assert output.read() == b""


def test_following_sees_everything_once_over_rotations_and_restarts(output: Output) -> None:
    log = output.attempt(1)
    log.write(lines(0, 1))
    turns = 0

    def wait(_seconds: float) -> None:
        nonlocal turns, log
        turns += 1
        if turns == 3:
            log = output.attempt(2)
        # Up to four lines a turn: the file of the turn before may have been renamed twice.
        log.write(lines(turns * 4 - 3, turns * 4 + 1))

    followed = output.reader.follow(
        A1, LogRequest(task="server", follow=True), ended=lambda: turns >= 6, left=lambda: False, wait=wait
    )
    assert b"".join(followed) == lines(0, 25)


def test_a_follower_that_is_too_slow_is_told_that_output_is_missing(output: Output) -> None:
    log = output.attempt(1)
    log.write(lines(0, 2))
    turns = 0

    def wait(_seconds: float) -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            for number in range(2, 20):
                log.write(lines(number, number + 1))

    followed = output.reader.follow(
        A1, LogRequest(task="server", follow=True), ended=lambda: turns >= 2, left=lambda: False, wait=wait
    )
    # Its own file is read to the end, though it has no name any more.
    missing = b"\n[trueup] output is missing here: it was rotated away before it was read\n"
    assert b"".join(followed) == lines(0, 2) + missing + lines(14, 20)


@pytest.mark.parametrize("max_files", [1, 3])
def test_a_follower_sees_whole_lines_in_order_however_fast_the_files_turn(
    output: Output, max_files: int
) -> None:
    log = output.attempt(1, max_files=max_files, max_bytes=900)
    written = threading.Event()

    def write() -> None:
        for number in range(5000):
            log.write(b"line %06d\n" % number)
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    followed = output.reader.follow(
        A1,
        LogRequest(task="server", follow=True),
        ended=written.is_set,
        left=lambda: False,
        wait=lambda _seconds: None,
    )
    seen = b"".join(followed).splitlines()
    writer.join()
    assert {len(line) for line in seen if not line.startswith(b"[trueup]")} <= {0, 11}
    numbers = [int(line[5:]) for line in seen if line.startswith(b"line")]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 4999
    gaps = sum(after - before > 1 for before, after in itertools.pairwise(numbers))
    assert gaps <= seen.count(b"[trueup] output is missing here: it was rotated away before it was read")


def test_a_followed_line_that_comes_in_pieces_is_stamped_once(output: Output) -> None:
    log = output.attempt(1, max_bytes=1000)
    turns = 0

    def wait(_seconds: float) -> None:
        nonlocal turns
        turns += 1
        log.write(b"half " if turns % 2 else b"whole\n")

    asked = LogRequest(task="server", follow=True, timestamps=True)
    followed = b"".join(
        output.reader.follow(A1, asked, ended=lambda: turns >= 4, left=lambda: False, wait=wait)
    )
    assert [line.split(b"Z ")[1] for line in followed.splitlines()] == [b"half whole"] * 2


def test_following_a_task_that_has_not_written_yet_begins_with_its_first_byte(output: Output) -> None:
    turns = 0

    def wait(_seconds: float) -> None:
        nonlocal turns
        turns += 1
        if turns == 2:
            output.attempt(1).write(b"hello\n")

    followed = output.reader.follow(
        A1, LogRequest(task="server", follow=True), ended=lambda: turns > 3, left=lambda: False, wait=wait
    )
    assert b"".join(followed) == b"hello\n"


@pytest.mark.parametrize("tail", [1, None])
def test_a_slow_reader_holds_open_only_what_is_still_to_be_read(output: Output, tail: int | None) -> None:
    log = output.attempt(1, max_files=8)
    for number in range(16):
        log.write(lines(number, number + 1))
    process = psutil.Process()
    before = process.num_fds()
    seen, held = [], []
    for piece in output.reader.read(A1, LogRequest(task="server", tail=tail)):
        seen.append(piece)
        held.append(process.num_fds() - before)
    # The folder itself, and each file until it was read.
    assert held == list(range(len(seen) + 1, 1, -1))
    assert b"".join(seen) == (lines(0, 16) if tail is None else lines(15, 16))


def test_following_ends_when_nobody_listens(output: Output) -> None:
    followed = output.reader.follow(
        A1,
        LogRequest(task="server", follow=True),
        ended=lambda: False,
        left=lambda: True,
        wait=lambda _seconds: None,
    )
    assert b"".join(followed) == b""


@pytest.mark.parametrize(
    ("parameters", "status", "words"),
    [
        ({"task": "none"}, 404, "has no task 'none'; it has proxy, server"),
        ({}, 400, "say which task"),
        ({"task": "server", "stream": "stdin"}, 400, "stream"),
        ({"task": "server", "tail": "-1"}, 400, "tail"),
        ({"task": "server", "offset": "²"}, 400, "offset"),
        ({"task": "server", "since": "yesterday"}, 400, "since"),
        ({"task": "server", "follow": "maybe"}, 400, "follow"),
        ({"task": "server", "follow": "true", "previous": "true"}, 400, "exclude each other"),
    ],
)
def test_parameters_that_cannot_be_are_refused_in_words(
    parameters: dict[str, str], status: int, words: str
) -> None:
    with pytest.raises(BadLogRequest) as caught:
        parse_log_request(parameters, ["proxy", "server"])
    assert caught.value.status == status
    assert words in str(caught.value)


def test_parameters_are_read() -> None:
    asked = parse_log_request(
        {"stream": "stderr", "tail": "5", "since": "5m", "timestamps": "true", "previous": "1"}, ["server"]
    )
    assert asked == LogRequest(
        task="server",
        stream="stderr",
        tail=5,
        since=timedelta(minutes=5),
        timestamps=True,
        previous=True,
    )
