"""What ended allocations left stays within bounds, and gives way when the disk is short of room."""

from datetime import timedelta
from pathlib import Path

import pytest

from agent.disk_room import DiskRoom
from agent.folder_room import LOOK_AFTER, SHORT_AGAIN, Bounds
from tests.unit.agent.world import World, an_assignment
from trueup.models.node import NodeUse
from trueup.models.units import Bytes

SOON = LOOK_AFTER.total_seconds() + 1


def a_disk(world: World, *, until: int, size: int = 1000) -> DiskRoom:
    """Short of room until so many folders are gone."""

    def measure() -> tuple[int, int]:
        return size, size if len(world.folders.removed) >= until else 0

    return DiskRoom(lambda: NodeUse(disk_bytes=Bytes(size), disk_free_bytes=Bytes(measure()[1])), measure)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "agent")


def begin(world: World, *, bounds: Bounds | None = None, disk: DiskRoom | None = None) -> None:
    """The next agent of the folder, with these."""
    world.crash()
    world.bounds, world.disk = bounds or Bounds(), disk
    world.start_agent()
    world.settle()


def end(world: World, *ids: str) -> None:
    """Runs allocations of these ids, and ends them one after another."""
    world.assign(*(an_assignment(one) for one in ids))
    world.run(2)
    for one in ids:
        world.stop(one)
        world.run(1)
    assert all(world.held(one).client_status == "complete" for one in ids)


def test_only_so_many_stay_the_longest_ended_go(world: World) -> None:
    """What runs counts for nothing, and its folders stay whatever their age."""
    begin(world, bounds=Bounds(count=2))
    world.assign(an_assignment("a0"))
    end(world, "b4", "b3", "b2", "b1")
    assert world.folders.removed == []
    world.run(SOON)
    assert world.folders.removed == ["b4", "b3"]
    assert world.held("b4").client_status == "complete", "what is known of it stays"
    end(world, "a1")
    world.run(SOON)
    assert world.folders.removed == ["b4", "b3", "b2"], "and none twice"


def test_they_take_only_so_much_room(world: World) -> None:
    """By what they take of the disk; a tenth of it, unless another bound is given."""
    world.folders.each_bytes = 400
    begin(world, bounds=Bounds(size_bytes=1000))
    end(world, "a1", "a2", "a3")
    world.run(SOON)
    assert world.folders.removed == ["a1"]
    begin(world, disk=a_disk(world, until=0, size=4000))
    world.run(SOON)
    assert set(world.folders.removed) == {"a1", "a2"}


def test_a_disk_short_of_room_takes_the_longest_ended_until_there_is_some(world: World) -> None:
    """At once, and no more than it has to."""
    begin(world)
    end(world, "a1", "a2", "a3")
    begin(world, disk=a_disk(world, until=2))
    assert world.folders.removed == ["a1", "a2"]
    world.run(600)
    assert world.folders.removed == ["a1", "a2"]


def test_while_it_stays_short_what_ends_later_goes_too(world: World) -> None:
    """It is looked at again and again, and not all the time."""
    begin(world, disk=a_disk(world, until=2))
    end(world, "a1")
    world.run(SHORT_AGAIN.total_seconds() + 1)
    assert world.folders.removed == ["a1"]
    assert world.agent.runner.step() > world.clock.now() + timedelta(seconds=0.5)  # type: ignore[operator]
