"""Taking in a container's output, over any number of agents that end at any instant."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.drivers.docker_output import ContainerOutput
from agent.drivers.docker_spec import LogTarget

Piece = tuple[str, str, bytes]


def a_target(folder: Path, *, max_bytes: int = 10_000, max_files: int = 3) -> LogTarget:
    return LogTarget(folder=str(folder), max_files=max_files, max_bytes=max_bytes)


def a_time(step: int) -> str:
    """Ten of a second, so that more than the slack is between the first and the last."""
    return f"2026-11-25T03:45:{step // 10:02d}.{step % 10}00000000Z"


def read(engine: Sequence[Piece], output: ContainerOutput, count: int) -> None:
    """What a follower does until it ends, after *count* pieces."""
    output.read_again()
    since = float(output.since)
    for stream, at, data in [piece for piece in engine if not since or _seconds(piece[1]) >= since][:count]:
        output.take(stream, at.encode() + b" " + data)


def _seconds(at: str) -> float:
    return 1795578300 + float(at[17:29])


def text_of(folder: Path, stream: str) -> bytes:
    parts = [folder / f"server.{stream}{part}" for part in (".2", ".1", "")]
    return b"".join(part.read_bytes() for part in parts if part.exists())


def test_the_beginning_of_the_clock_is_the_engines() -> None:
    """Of the tests' own clock."""
    with (
        tempfile.TemporaryDirectory() as name,
        ContainerOutput(a_target(Path(name)), "server", 1, "c") as output,
    ):
        assert output.since == "0"
        output.take("stdout", a_time(15).encode() + b" x\n")
        assert output.since == "1795578300.500000000"


pieces = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.integers(0, 3), st.binary(min_size=1, max_size=12)),
    max_size=30,
)
lives = st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=6)


@given(written=pieces, lives=lives)
def test_no_byte_is_lost_or_doubled(
    written: list[tuple[str, int, bytes]], lives: list[tuple[int, bool]]
) -> None:
    """Each life reads on from what the last one left, for some pieces; some die before they note how far they came.

    Pieces come in the order of their times, and several may have the same.
    """
    engine: list[Piece] = []
    step = 0
    for stream, later, data in written:
        step += later
        engine.append((stream, a_time(step), data))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "logs"
        folder.mkdir()
        position, kept = folder / "server.position", Path(name) / "kept"
        for count, noted in [*lives, (len(engine), True)]:
            if position.exists():
                shutil.copy(position, kept)
            with ContainerOutput(a_target(folder), "server", 1, "container") as output:
                if not kept.exists():
                    shutil.copy(position, kept)
                read(engine, output, count)
                output.save()
            if not noted:
                shutil.copy(kept, position)

        for stream in ("stdout", "stderr"):
            assert text_of(folder, stream) == b"".join(data for of, _, data in engine if of == stream)


def test_the_next_attempt_appends_and_marks_its_start(tmp_path: Path) -> None:
    for attempt in (1, 2):
        with ContainerOutput(a_target(tmp_path), "server", attempt, f"container-{attempt}") as output:
            output.take("stdout", a_time(0).encode() + b" line\n")

    assert text_of(tmp_path, "stdout") == b"line\nline\n"
    marks = [line.split() for line in (tmp_path / "server.stdout.marks").read_text().splitlines()]
    assert [(mark[0], mark[1], mark[3]) for mark in marks if mark[0] == "start"] == [
        ("start", "0", "1"),
        ("start", "5", "2"),
    ]


def test_a_clock_that_is_set_back_drops_nothing(tmp_path: Path) -> None:
    with ContainerOutput(a_target(tmp_path), "server", 1, "c") as output:
        for step in (50, 20, 21):
            output.take("stdout", a_time(step).encode() + f" {step}\n".encode())

    assert text_of(tmp_path, "stdout") == b"50\n20\n21\n"


def test_output_without_a_time_is_taken_as_it_is(tmp_path: Path) -> None:
    with ContainerOutput(a_target(tmp_path), "server", 1, "c") as output:
        output.take("stdout", b"no time at all\n")

    assert text_of(tmp_path, "stdout") == b"no time at all\n"


@pytest.mark.parametrize("content", ["", "{", '{"container": 3}', '{"container": "c", "streams": {}}'])
def test_a_torn_position_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "server.position").write_text(content)

    with ContainerOutput(a_target(tmp_path), "server", 1, "c") as output:
        assert output.since == "0"


def test_a_link_in_the_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "server.stdout").symlink_to(elsewhere)

    with pytest.raises(OSError, match=r"server\.stdout"):
        ContainerOutput(a_target(tmp_path), "server", 1, "c")

    assert not elsewhere.exists()
