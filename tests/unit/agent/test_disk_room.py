"""When a disk has too little room for anything new, and when it has enough again."""

from pathlib import Path

import pytest

from agent.disk_room import DiskRoom, kept_free
from agent.usage import MachineMeter
from tests.small_disks import a_small_disk, fill
from trueup.models.node import NodeUse
from trueup.models.units import Bytes, rounded_size

MIB = 1024**2
GIB = 1024**3


class Gauge:
    """A disk of 100 GiB, as it is told to be."""

    def __init__(self, free: int, *, kept: int | None = None) -> None:
        self.free, self.size = free, 100 * GIB
        self.begun: list[int] = []
        self.room = DiskRoom(self.latest, lambda: (self.size, self.free), kept)
        self.room.on_short = lambda: self.begun.append(self.free)

    def latest(self) -> NodeUse:
        return NodeUse(disk_bytes=Bytes(self.size), disk_free_bytes=Bytes(self.free))

    def said(self, free: int) -> str:
        self.free = free
        return self.room.trouble()


@pytest.mark.parametrize(
    ("disk", "told", "kept"),
    [
        (100 * GIB, None, GIB),
        (10 * GIB, None, GIB // 2),
        (100 * GIB, 5 * GIB, 5 * GIB),
        (100 * GIB, 0, 0),
        (4 * MIB, GIB, 4 * MIB),
    ],
)
def test_what_is_kept_free(disk: int, told: int | None, kept: int) -> None:
    """A small disk stays of use, a large one loses little; the operator's word counts."""
    assert kept_free(disk, told) == kept


def test_it_is_short_below_what_is_kept_free_until_a_quarter_more_is() -> None:
    """So a disk around the limit does not have its node come and go. It begins once."""
    gauge = Gauge(2 * GIB)
    assert gauge.said(GIB) == ""
    assert gauge.said(312 * MIB) == "disk pressure: 312 MiB free, 1 GiB is kept free"
    assert gauge.said(GIB + GIB // 5) != ""
    assert gauge.said(GIB + GIB // 4) == ""
    assert gauge.said(GIB + 1) == ""
    assert gauge.said(GIB - 1) != ""
    assert gauge.begun == [312 * MIB, GIB - 1]


def test_what_it_says_changes_seldom() -> None:
    """Each other text is a change of the node in the store; within an eighth of what is kept it stays."""
    gauge = Gauge(2 * GIB)
    said = {gauge.said(500 * MIB + step * MIB) for step in range(100)}
    assert len(said) == 1
    assert gauge.said(300 * MIB) == "disk pressure: 300 MiB free, 1 GiB is kept free"


def test_a_disk_that_cannot_be_asked_changes_nothing() -> None:
    """Neither one that was short of room before nor one that was not."""
    gauge = Gauge(300 * MIB)
    gauge.size = 0
    assert gauge.said(5 * GIB) != ""
    assert Gauge(5 * GIB, kept=0).said(0) == "", "nothing is to be kept free"


def test_a_real_disk(tmp_path: Path) -> None:
    """Filled and emptied, measured each time."""
    with a_small_disk(tmp_path / "disk", "20m") as disk:
        room = DiskRoom(lambda: None, MachineMeter(disk).disk, 5 * MIB)
        assert not room.wants_room()
        filler = fill(disk, 3 * MIB)
        assert room.wants_room()
        assert room.trouble() == "disk pressure: 3 MiB free, 5 MiB is kept free"
        filler.unlink()
        assert not room.wants_room()
        assert room.trouble() == ""


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (327155712, "312 MiB"),
        (GIB - 1, "1024 MiB"),
        (2 * GIB, "2 GiB"),
    ],
)
def test_a_size_for_people(size: int, words: str) -> None:
    """Three digits are enough."""
    assert rounded_size(size) == words
