"""Volumes of process tasks: links in the task's folder."""

from pathlib import Path

import pytest

from agent.doors import DriverError
from tests.unit.agent_drivers.process_world import ProcessWorld


def test_a_volume_is_a_link_in_the_tasks_folder(world: ProcessWorld, tmp_path: Path) -> None:
    """Also deeper in it, and at its next start."""
    volume = tmp_path / "shop"
    volume.mkdir()
    volume.joinpath("greeting").write_text("hello\n")
    mounts = ((str(volume), "data", False), (str(volume), "local/data", False))
    for attempt in (1, 2):
        handle = world.shell("cat data/greeting local/data/greeting", mounts=mounts, attempt=attempt)
        assert world.ended(handle).exit_code == 0
    assert world.lines(4) == ["hello"] * 4
    assert (world.data / "allocations" / "a1" / "server" / "data").readlink() == volume


def test_an_absolute_path_is_left_as_it_is_on_the_node(world: ProcessWorld, tmp_path: Path) -> None:
    """As specs of earlier releases have it."""
    handle = world.shell("exit 0", mounts=((str(tmp_path), "/nowhere", False),))
    assert world.ended(handle).exit_code == 0


@pytest.mark.parametrize(
    ("mount", "why"),
    [
        (("/no/such/folder", "data"), "the node's folder /no/such/folder is missing"),
        (("/", "../out"), "beneath the task's folder"),
        (("/", "taken"), "cannot put a link at taken"),
    ],
)
def test_a_volume_that_cannot_be_put_there(world: ProcessWorld, mount: tuple[str, str], why: str) -> None:
    """Nothing is started, and what is wrong is said."""
    (world.data / "allocations" / "a1" / "server" / "taken").mkdir(parents=True)
    with pytest.raises(DriverError, match=why):
        world.start("true", mounts=((*mount, False),))
    assert world.driver.recover() == ()


def test_no_link_of_the_task_leads_a_volume_out_of_its_folder(world: ProcessWorld, tmp_path: Path) -> None:
    """It may have planted one between two of its starts."""
    out = tmp_path / "out"
    out.mkdir()
    folder = world.data / "allocations" / "a1" / "server"
    folder.mkdir(parents=True)
    folder.joinpath("local").symlink_to(out)
    with pytest.raises(DriverError, match="cannot put a link"):
        world.start("true", mounts=((str(tmp_path), "local/data", False),))
    assert list(out.iterdir()) == []
