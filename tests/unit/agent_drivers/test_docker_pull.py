"""Images from a registry: when one is asked, as whom, and for how long. The registry is a small one of our own."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.doors import DriverError
from agent.drivers import docker_patience
from agent.drivers.docker_engine import Engine, EngineAddress
from agent.drivers.docker_images import ImagePull
from tests.docker_engine import DockerEngine
from tests.docker_engine import Engine as Dockerd
from tests.unit.agent_drivers.docker_world import DockerWorld
from tests.unit.agent_drivers.process_world import wait_until
from tests.unit.agent_drivers.registry import Registry, a_registry
from trueup.models.job import TaskConfig

pytestmark = [pytest.mark.docker, pytest.mark.e2e]


@pytest.fixture
def registry(docker_engine: DockerEngine) -> Iterator[Registry]:
    with a_registry(docker_engine.host) as made:
        yield made


def _try(world: DockerWorld, image: str, attempt: int = 1, **fields: object) -> str:
    """Why the image's container does not start: it has no such program. Any other reason is returned as well."""
    with pytest.raises(DriverError) as failed:
        world.start(image=image, attempt=attempt, init=False, **fields)
    return str(failed.value)


def test_an_image_that_is_missing_is_pulled_once(docker_world: DockerWorld, registry: Registry) -> None:
    image = registry.image("1")

    for attempt in (1, 2):
        assert "the image has no such program" in _try(docker_world, image, attempt)

    assert registry.asked == 1


def test_with_pull_always_the_registry_is_asked_before_each_start(
    docker_world: DockerWorld, registry: Registry
) -> None:
    image = registry.image("2")

    for attempt in (1, 2):
        assert "the image has no such program" in _try(docker_world, image, attempt, pull="always")

    assert registry.asked == 2


def test_a_registry_that_wants_to_know_who_pulls_is_told(
    docker_world: DockerWorld, registry: Registry
) -> None:
    image = registry.image("3")
    registry.password = "made-up"

    refused = _try(docker_world, image)
    wrong = _try(docker_world, image, auth={"username": "puller", "password": "not-the-one"})
    told = _try(docker_world, image, auth={"username": "puller", "password": "made-up"})

    assert "config.auth has to name who may pull it" in refused
    assert "config.auth has to name who may pull it" in wrong
    assert "not-the-one" not in wrong
    assert "the image has no such program" in told


def test_a_secret_that_was_not_read_is_said_by_its_field(
    docker_world: DockerWorld, registry: Registry
) -> None:
    why = _try(
        docker_world, registry.image("4"), auth={"username": "puller", "password": {"secret": "registry"}}
    )

    assert why == "config.auth.password is no text: its secret was not read"


def test_a_registry_may_take_longer_than_any_call_of_the_engine(
    docker_world: DockerWorld, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the engine is asked meanwhile whether it is there."""
    monkeypatch.setattr(docker_patience, "_ASK_AGAIN_SECONDS", 2.0)
    registry.held = threading.Event()
    threading.Timer(11, registry.held.set).start()
    begun = time.monotonic()

    assert "the image has no such program" in _try(docker_world, registry.image("5"))

    assert time.monotonic() - begun > 11


def test_a_pull_that_nobody_waits_for_ends_though_the_registry_is_silent(
    docker_engine: DockerEngine, registry: Registry
) -> None:
    registry.held = threading.Event()
    pull, pulling, failures = _begin(docker_engine.host, registry.image("6"))
    wait_until(lambda: registry.waiting, "the registry's being asked")

    pull.cancel()
    pulling.join(5)

    assert not pulling.is_alive()
    assert failures == ["cannot pull " + registry.image("6") + ": nobody waits for it any more"]


def test_a_pull_ends_with_an_engine_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the registry alone, so long a silence would say nothing."""
    monkeypatch.setattr(docker_patience, "_ASK_AGAIN_SECONDS", 0.5)
    monkeypatch.setattr("agent.drivers.docker_engine.QUICK_SECONDS", 1)
    engine = Dockerd(Path(tempfile.mkdtemp(prefix="tu-", dir="/tmp")))
    engine.start()
    try:
        with a_registry(engine.host) as registry:
            registry.held = threading.Event()
            _, pulling, failures = _begin(engine.host, registry.image("7"))
            wait_until(lambda: registry.waiting, "the registry's being asked")
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGSTOP)
            try:
                pulling.join(10)
                assert not pulling.is_alive()
            finally:
                os.kill(engine.pid, signal.SIGCONT)
            assert ["kept silent" in failure for failure in failures] == [True]
    finally:
        engine.destroy()


def _begin(host: str, image: str) -> tuple[ImagePull, threading.Thread, list[str]]:
    """A pull on a thread of its own, and why it failed."""
    engine = Engine(EngineAddress(host=host, chosen=True))
    pull = ImagePull(engine, TaskConfig(image=image))
    failures: list[str] = []

    def run() -> None:
        try:
            pull.run()
        except DriverError as error:
            failures.append(str(error))
        finally:
            engine.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return pull, thread, failures
