"""A task's image by its `pull` policy: `always` before each start, `missing` where it is not there, `never`."""

import json
import threading
from collections.abc import Mapping
from typing import Any

import docker.auth
import docker.errors
from docker.utils import parse_repository_tag

from agent.doors import DriverError
from agent.drivers.docker_engine import Engine
from agent.drivers.docker_errors import EngineRefused
from agent.drivers.docker_failures import image_absent, pull_failure
from trueup.models.job import TaskConfig


class ImagePull:
    """The pull of a task's image, as `agent.doors.Fetch`; without tag or digest of its `latest`.

    Pulls of one image by one who may pull it are the same.
    """

    def __init__(self, engine: Engine, config: TaskConfig) -> None:
        """DriverError if the image has no name of one, or the credentials are none."""
        self._engine = engine
        self._given_up = threading.Event()
        self.shown = config.image
        try:
            repository, tag = parse_repository_tag(config.image)
            self.source, _ = docker.auth.resolve_repository_name(repository)
        except (docker.errors.DockerException, IndexError) as error:
            raise DriverError(f"{config.image} is no name of an image: {error}") from None
        self._repository, self._tag = repository, tag or "latest"
        self._credentials = _credentials(config.auth, self.source)

    @property
    def key(self) -> str:
        """What is pulled, and as whom."""
        return json.dumps([self._repository, self._tag, self._credentials])

    def run(self) -> None:
        """Pulls it. DriverError says what to do."""
        try:
            self._engine.pull(self._repository, self._tag, self.source, self._credentials, self._given_up)
        except EngineRefused as refused:
            raise pull_failure(self.shown, refused) from None
        except DriverError as error:
            raise DriverError(f"cannot pull {self.shown}: {error}", temporary=error.temporary) from None

    def cancel(self) -> None:
        """Ends a `run` soon, or before it began."""
        self._given_up.set()


def missing_image(engine: Engine, config: TaskConfig, *, fetched: bool) -> ImagePull:
    """What to wait for after the engine said that it has no such image. DriverError where it may not be pulled."""
    if config.pull == "never":
        raise image_absent(config.image)
    if fetched:
        raise DriverError(f"the image {config.image} was pulled and is gone again", temporary=True)
    return ImagePull(engine, config)


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
