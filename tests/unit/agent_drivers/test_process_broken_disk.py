"""Process tasks on a disk that cannot be written any more: what runs goes on, and its end is known all the same."""

from pathlib import Path

from tests.small_disks import a_real_disk, break_disk
from tests.unit.agent_drivers.process_world import ProcessWorld, lives


def test_a_disk_that_breaks_while_tasks_run(tmp_path: Path) -> None:
    """They run on without their output; one that ends is seen to have, by whatever it ended, and can be removed."""
    with a_real_disk(tmp_path / "disk", "64M") as disk:
        world = ProcessWorld(disk)
        try:
            handles = [
                world.shell("while :; do echo line; sleep 0.01; done", allocation=f"a{number}")
                for number in range(3)
            ]
            pids = [world.pid(handle) for handle in handles]
            world.lines(1, allocation="a0")
            break_disk(disk)
            world.driver.signal(handles[0], "SIGTERM")
            world.driver.kill(handles[1])
            for handle in handles[:2]:
                status = world.ended(handle)
                assert status.state == "gone"
                assert (
                    "could not be recorded in the agent's data folder: Read-only file system" in status.error
                )
            assert not any(map(lives, pids[:2]))
            world.driver.remove(handles[0])
            assert world.driver.status(handles[2]).state == "running"
            assert lives(pids[2])
        finally:
            world.close(can_write=False)
