"""The runner with everything in memory: what runs follows what is assigned, whatever happens to the agent."""

from pathlib import Path

import pytest

from tests.unit.agent.world import World, an_assignment


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "agent")


def test_an_assignment_runs_and_is_told_as_healthy_after_its_time(world: World) -> None:
    world.settle()
    world.assign(an_assignment())
    world.run(0.5)

    assert world.running() == [("a1", "server")]
    assert world.told().client_status == "running"
    assert world.told().healthy is None

    world.run(1)
    assert world.told().healthy is True
    assert world.told().tasks["server"].pid == 101
