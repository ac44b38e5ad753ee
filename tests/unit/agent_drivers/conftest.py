"""A process driver for each test: with the cgroups of this machine, if there are any, and without. A docker driver on
the run's engine.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker_engine import DockerEngine
from tests.unit.agent_drivers.docker_world import DockerWorld, MakeDockerWorld
from tests.unit.agent_drivers.process_world import NO_CGROUPS, ProcessWorld


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., ProcessWorld]]:
    """Makes driver worlds with options of their own, and ends all they run."""
    made: list[ProcessWorld] = []

    def make(**options: Any) -> ProcessWorld:
        made.append(ProcessWorld(tmp_path / str(len(made)), **options))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., ProcessWorld]) -> ProcessWorld:
    """A driver with the cgroups this machine lets us have."""
    return make_world()


@pytest.fixture(params=["cgroups", "no-cgroups"])
def either_world(request: pytest.FixtureRequest, make_world: Callable[..., ProcessWorld]) -> ProcessWorld:
    """A driver with this machine's cgroups, and one without any."""
    return make_world(cgroups=None if request.param == "cgroups" else NO_CGROUPS)


@pytest.fixture
def make_docker_world(tmp_path: Path, docker_engine: DockerEngine) -> Iterator[MakeDockerWorld]:
    """Makes nodes with policies of their own on the run's engine, and ends all they run."""
    made: list[DockerWorld] = []

    def make(**options: Any) -> DockerWorld:
        made.append(DockerWorld(tmp_path / str(len(made)), docker_engine.host, **options))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def docker_world(make_docker_world: MakeDockerWorld) -> DockerWorld:
    """A node with the default policy."""
    return make_docker_world()
