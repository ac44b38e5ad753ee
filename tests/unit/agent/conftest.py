"""All of these tests call their allocation `a1`: on the run's engine they take turns, and each gives up its name."""

import contextlib
from collections.abc import Iterator

import docker.errors
import pytest

from tests.docker_engine import DockerEngine, client


@pytest.fixture(autouse=True)
def free_name(request: pytest.FixtureRequest) -> Iterator[None]:
    """Removes what a node that ended at once had no time to remove."""
    yield
    if "docker_engine" not in request.fixturenames:
        return
    engine: DockerEngine = request.getfixturevalue("docker_engine")
    with contextlib.closing(client(engine.host)) as asked:
        for one in asked.containers(all=True, filters={"name": "^/trueup-a1-"}):
            with contextlib.suppress(docker.errors.NotFound):
                asked.remove_container(one["Id"], force=True)
