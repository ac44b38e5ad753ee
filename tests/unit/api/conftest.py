"""A world for each test, and the making of special ones."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.world import World


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds with deps of their own, and closes them."""
    made: list[World] = []

    def make(**deps: Any) -> World:
        made.append(World(tmp_path / str(len(made)), **deps))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """An empty store with an app over it."""
    return make_world()
