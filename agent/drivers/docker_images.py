"""Sees to a task's image by its `pull` policy: `always` before each start, `missing` where it is not there, `never`."""

from collections.abc import Mapping
from typing import Any

import docker.auth
import docker.errors
from docker.utils import parse_repository_tag

from agent.doors import DriverError
from agent.drivers.docker_engine import Engine, EngineRefused
from agent.drivers.docker_failures import image_absent, pull_failure
from trueup.models.job import TaskConfig


def refresh_image(engine: Engine, config: TaskConfig) -> None:
    """Before a container is made: pulls where the policy is `always`."""
    if config.pull == "always":
        pull_image(engine, config)


def provide_image(engine: Engine, config: TaskConfig) -> None:
    """After the engine said that it has no such image. DriverError says what to do."""
    if config.pull == "never":
        raise image_absent(config.image)
    pull_image(engine, config)


def pull_image(engine: Engine, config: TaskConfig) -> None:
    """Pulls the image; without tag or digest its `latest`, as the engine would run it."""
    image = config.image
    try:
        repository, tag = parse_repository_tag(image)
        registry, _ = docker.auth.resolve_repository_name(repository)
    except (docker.errors.DockerException, IndexError) as error:
        raise DriverError(f"{image} is no name of an image: {error}") from None
    try:
        engine.pull(repository, tag or "latest", registry, _credentials(config.auth, registry))
    except EngineRefused as refused:
        raise pull_failure(image, refused) from None


def _credentials(auth: Mapping[str, Any], registry: str) -> dict[str, str]:
    if not auth:
        return {}
    for name, value in auth.items():
        if not isinstance(value, str):
            raise DriverError(f"config.auth.{name} is no text: its secret was not read")
    return {
        "username": auth.get("username", ""),
        "password": auth.get("password", ""),
        "serveraddress": auth.get("server_address", registry),
    }
