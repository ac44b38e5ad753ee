"""A docker driver on the run's engine, with a cluster of its own, so that tests keep apart on one engine."""

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import docker

from agent.doors import FetchFirst, TaskHandle, TaskLaunch, TaskStatus
from agent.drivers.docker_driver import DockerDriver
from agent.drivers.docker_engine import EngineAddress
from agent.drivers.docker_owner import Owner
from agent.drivers.docker_policy import DockerPolicy
from tests.docker_engine import client
from tests.unit.agent_drivers.process_world import wait_until
from trueup.models.ids import AllocationId
from trueup.models.job import LogLimits, Resources, TaskConfig
from trueup.models.units import Bytes, Millicores

IMAGE: Final = "trueup-test:1"


def a_launch(folder: Path, *args: str, attempt: int = 1, task: str = "server", **fields: Any) -> TaskLaunch:
    """The launch of a container that runs *args*.

    Fields of the config by their names, *volumes* for the launch's mounts, all others are the launch's.
    """
    of_config = {name: fields.pop(name) for name in TaskConfig.__struct_fields__ if name in fields}
    allocation_id = AllocationId(fields.pop("allocation_id", "a" * 32))
    defaults: dict[str, Any] = {
        "allocation_name": "web.app[0]",
        "job": "web",
        "group": "app",
        "digest": "digest-1",
        "environment": {},
        "resources": Resources(cpu_millicores=Millicores(100), memory_bytes=Bytes(32 * 1024**2)),
        "user": "",
        "logs": LogLimits(),
        "mounts": fields.pop("volumes", ()),
    }
    return TaskLaunch(
        allocation_id=allocation_id,
        task=task,
        attempt=attempt,
        config=TaskConfig(**{"image": IMAGE, "network_mode": "none", "args": args, **of_config}),
        task_dir=folder / allocation_id / task,
        logs_dir=folder / allocation_id / "logs",
        **{**defaults, **fields},
    )


class DockerWorld:
    """One node's driver; `restart` is what a new agent does after the old one's death."""

    def __init__(
        self,
        folder: Path,
        host: str,
        *,
        node: str = "node-1",
        cluster: str = "",
        agent: str = "",
        **policy: Any,
    ) -> None:
        self.folder = folder
        self.owner = Owner(cluster=cluster or uuid.uuid4().hex, node=node, agent=agent)
        self.policy = DockerPolicy(**policy)
        self.address = EngineAddress(host=host, chosen=True)
        self.engine: docker.APIClient = client(host)
        self.woken: list[AllocationId] = []
        self.driver = self._make()

    def launch(self, *args: str, **fields: Any) -> TaskLaunch:
        """As `a_launch`, of an allocation that no other test has."""
        fields.setdefault("allocation_id", self.owner.cluster)
        return a_launch(self.folder, *args, **fields)

    def start(self, *args: str, **fields: Any) -> TaskHandle:
        """As the agent starts a task: what has to be fetched first is."""
        launch = self.launch(*args, **fields)
        try:
            return self.driver.start(launch)
        except FetchFirst as first:
            first.fetch.run()
            return self.driver.start(replace(launch, fetched=True))

    def restart(self) -> None:
        self.driver.close()
        self.driver = self._make()

    def ended(self, handle: TaskHandle) -> TaskStatus:
        """The status of a task once it does not run any more."""
        wait_until(lambda: self.driver.status(handle).state != "running", "the end of the task")
        return self.driver.status(handle)

    def run(self, *args: str, **fields: Any) -> str:
        """What a container that ends by itself wrote to its standard output."""
        handle = self.start(*args, **fields)
        status = self.ended(handle)
        self.driver.remove(handle)
        assert status.exit_code == 0, self.output(handle, "stderr")
        return self.output(handle)

    def output(self, handle: TaskHandle, stream: str = "stdout") -> str:
        """What a task wrote; a stream without any output has no file."""
        log = self.folder / handle.allocation_id / "logs" / f"{handle.task}.{stream}"
        return log.read_text("utf-8") if log.exists() else ""

    def containers(self) -> list[dict[str, Any]]:
        """All containers of this world's cluster, as the engine lists them."""
        labels = [f"trueup.cluster={self.owner.cluster}"]
        return list(self.engine.containers(all=True, filters={"label": labels}))

    def inspect(self, handle: TaskHandle) -> dict[str, Any]:
        container_id = self.driver.status(handle).container_id
        found: dict[str, Any] = self.engine.inspect_container(container_id)
        return found

    def create(self, request: dict[str, Any], name: str) -> str:
        """A container made behind the driver's back."""
        made = self.engine.create_container_from_config(request, name)  # type: ignore[no-untyped-call]
        return str(made["Id"])

    def close(self) -> None:
        self.driver.close()
        with contextlib.suppress(docker.errors.DockerException, OSError):
            for container in self.containers():
                self.engine.remove_container(container["Id"], force=True, v=True)
        self.engine.close()

    def _make(self) -> DockerDriver:
        return DockerDriver(self.address, self.woken.append, owner=self.owner, policy=self.policy)


MakeDockerWorld = Callable[..., DockerWorld]
