"""The tests' own engine: each fact here once cost an afternoon."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_engine import DockerEngine, Engine, client

pytestmark = [pytest.mark.docker, pytest.mark.e2e]


@pytest.fixture
def own_engine() -> Iterator[Engine]:
    engine = Engine(Path(tempfile.mkdtemp(prefix="tu-", dir="/tmp")))
    yield engine
    engine.destroy()


def test_a_container_of_the_image_runs_a_shell_and_its_applets(docker_engine: DockerEngine) -> None:
    """The image is busybox, its programs are found by name, and what one prints and returns arrives."""
    with contextlib.closing(client(docker_engine.host)) as engine:
        created = engine.create_container(
            docker_engine.image,
            ["sh", "-c", "true && echo ready && exit 3"],
            host_config=engine.create_host_config(network_mode="none", init=True),
        )
        engine.start(created["Id"])
        ended = engine.wait(created["Id"], timeout=30)
        logs = engine.logs(created["Id"])
        engine.remove_container(created["Id"], force=True)

    assert (ended["StatusCode"], logs) == (3, b"ready\n")


def test_an_engine_that_was_killed_starts_again_with_its_image(own_engine: Engine) -> None:
    """After a kill the next start succeeds, although the old containerd may still be ending."""
    own_engine.start()
    own_engine.kill()
    assert own_engine.pid is None

    own_engine.start()

    with contextlib.closing(client(own_engine.host)) as engine:
        assert engine.images(quiet=True)
