"""The docker driver: tasks that are containers of this machine's engine.

Containers belong to the engine and outlive this agent; what this driver knows of them it asks for, by name when it
starts one and by label when it looks for all. Containers without its labels are never touched.
"""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from agent.doors import DriverError, FetchFirst, TaskHandle, TaskLaunch, TaskStatus, Wake
from agent.drivers.docker_container import Container, Listed, task_status
from agent.drivers.docker_engine import Engine, EngineAddress
from agent.drivers.docker_errors import EngineAway, EngineRefused, NotThere
from agent.drivers.docker_events import EventWatch
from agent.drivers.docker_exec import run_in_container
from agent.drivers.docker_failures import is_being_removed, start_failure
from agent.drivers.docker_images import ImagePull, missing_image
from agent.drivers.docker_logs import LogFollowers
from agent.drivers.docker_making import make_container
from agent.drivers.docker_origin import strayed
from agent.drivers.docker_outages import Outages
from agent.drivers.docker_owner import Owner
from agent.drivers.docker_policy import DockerPolicy, refusals
from agent.drivers.docker_spec import (
    ALLOCATION,
    DRIVER,
    Claim,
    claim,
    container_name,
    container_of,
    create_request,
    handle_of,
    log_target_of,
    network_mode,
)
from agent.drivers.start_failure import is_temporary
from trueup.models.ids import AllocationId
from trueup.models.node import DriverState
from trueup.models.units import Duration

_FINGERPRINT_SECONDS: Final = 2
_DRAIN_SECONDS: Final = 10.0
_TRIES: Final = 50
_BETWEEN_TRIES_SECONDS: Final = 0.05


class DockerDriver:
    """Runs containers labelled as *owner*'s on the engine at *address*."""

    name = DRIVER

    def __init__(self, address: EngineAddress, wake: Wake, *, owner: Owner, policy: DockerPolicy) -> None:
        self._engine = Engine(address)
        self._wake = wake
        self._owner = owner
        self._policy = policy
        self._logs = LogFollowers(self._engine)
        self._lock = threading.Lock()
        self._known: set[AllocationId] = set()
        self._seen = address.chosen
        self._outages = Outages(lambda: self._engine.answered_at)
        self._events = EventWatch(
            self._engine, owner, changed=wake, connected=self._look_at_all, lost=self._outages.begin
        )
        if policy.enabled:
            self._events.begin()

    def fingerprint(self) -> DriverState | None:
        """None where policy has it off or this machine has no engine; unhealthy where one is and does not answer."""
        if not self._policy.enabled:
            return None
        try:
            version = self._engine.version(_FINGERPRINT_SECONDS)
        except EngineAway as away:
            # An engine that nobody named and that was never seen: a machine without Docker.
            missing = away.absent and not self._seen
            return None if missing else DriverState(healthy=False, detail=str(away))
        except DriverError as error:
            return DriverState(healthy=False, detail=str(error))
        self._seen = True
        return DriverState(
            attributes={
                "version": version.version,
                "api_version": version.api_version,
                "os": version.os,
                "arch": version.arch,
                "privileged": str(self._policy.privileged).lower(),
                "network_modes": ",".join(sorted(self._policy.network_modes)),
                "capabilities": ",".join(sorted(self._policy.capabilities)),
                "mounts": ",".join(sorted(self._policy.mounts)),
            }
        )

    def start(self, launch: TaskLaunch) -> TaskHandle:
        """Starts a task; a repeat finds its container, running or ended, and starts one that was only made.

        FetchFirst where its image is to be pulled.
        """
        if not self._policy.enabled:
            raise DriverError(
                "the docker driver is off on this node: set drivers.docker.enabled in the agent's configuration"
            )
        if not launch.config.image:
            raise DriverError(f"task {launch.task} has no config.image to start")
        request = self._allowed_request(launch)
        self._know(launch.allocation_id)
        name = container_name(launch.allocation_id, launch.task)
        if launch.config.pull == "always" and not launch.fetched:
            found = self._find(name)
            handle = None if found is None else self._take(found, launch)
            if handle is not None:
                return handle
            raise FetchFirst(ImagePull(self._engine, launch.config))
        for _ in range(_TRIES):
            handle = self._make(launch, request, name)
            if handle is not None:
                return handle
            # A container that is being made has its name already, and cannot be found by it yet.
            time.sleep(_BETWEEN_TRIES_SECONDS)
        raise DriverError(f"another container named {name} is being made", temporary=True)

    def status(self, handle: TaskHandle) -> TaskStatus:
        """What became of a task. EngineAway, which is temporary, if the engine cannot say."""
        self._know(handle.allocation_id)
        container = self._find(container_of(handle))
        if container is None or not self._is_ours(container, handle):
            self._logs.forget(container_of(handle))
            other = self._in_its_place(handle)
            if other is None:
                return TaskStatus(state="gone", error="its container was removed")
            return TaskStatus(state="gone", error=_replaced(strayed(other)))
        if differs := strayed(container):
            return TaskStatus(state="gone", error=_replaced(differs))
        self._follow(container)
        return self._with_interruption(task_status(container))

    def signal(self, handle: TaskHandle, signal: str) -> None:
        """Sends a signal to the container's main process."""
        try:
            self._kill(handle, signal)
        except EngineRefused as refused:
            if refused.status == 400:
                raise DriverError(f'"{signal}" is no signal of this engine; write it like SIGTERM') from None
            raise

    def kill(self, handle: TaskHandle) -> None:
        """Ends the container and all that runs in it."""
        self._kill(handle, "SIGKILL")

    def remove(self, handle: TaskHandle) -> None:
        """Removes an ended container once all of its output is in the task's logs. DriverError while it runs.

        What was put in its place, or is started by the engine again and again, is ended and removed.
        """
        container = self._find(container_of(handle))
        if container is None or not self._is_ours(container, handle):
            self._logs.forget(container_of(handle))
            other = self._in_its_place(handle)
            if other is not None:
                self._discard(other, force=True)
            return
        is_another = bool(strayed(container)) or container.is_restarted
        if container.state.running and not is_another:
            raise DriverError(f"task {handle.task} still runs; its container is kept", temporary=True)
        self._discard(container, force=is_another)

    def recover(self) -> Sequence[TaskHandle]:
        """Every container of this owner, whatever its state; what runs is followed from here on.

        None where this machine has no engine: no task of ours was asked for either, or EngineAway says that it has to
        come back first.
        """
        try:
            found = self._all()
        except EngineAway as away:
            if away.absent and not self._seen and not self._known:
                return []
            raise
        handles = []
        for listed in found:
            labels = listed.labels or {}
            handle = handle_of(listed.id, labels)
            if handle is None:
                continue
            handles.append(handle)
            self._know(handle.allocation_id)
            if listed.state != "created":
                self._follow_output(listed.id, labels, handle)
        return handles

    def execute(self, handle: TaskHandle, command: Sequence[str], timeout: Duration) -> tuple[int, str]:
        """Runs a command inside the container, as its user; exit code 124 if it takes too long."""
        return run_in_container(self._engine, container_of(handle), handle.task, command, timeout)

    def close(self) -> None:
        """Stops listening and following. Containers run on, and the engine keeps their output for the next agent."""
        self._events.close()
        self._logs.close()
        self._engine.close()

    def _allowed_request(self, launch: TaskLaunch) -> dict[str, Any]:
        request = create_request(launch, self._owner)
        given = {str(launch.task_dir): True}
        for source, _, read_only in launch.mounts:
            given[source] = given.get(source, False) or not read_only
        for mount in request["HostConfig"]["Mounts"]:
            if mount["Type"] == "bind" and mount["Source"] not in given:
                # What is decided on is what is mounted: a link may lead anywhere.
                mount["Source"] = os.path.realpath(mount["Source"])
        joined = {network_mode(launch)} if launch.config.network_mode.startswith("task:") else set()
        refused = refusals(request, self._policy, given=given, networks=joined)
        if refused:
            raise DriverError("; ".join(refused))
        return request

    def _make(self, launch: TaskLaunch, request: Mapping[str, Any], name: str) -> TaskHandle | None:
        """Makes and starts the container; None if its name was in use, and is free now."""
        _make_folder(launch.task_dir)
        try:
            made = self._create(launch, request, name)
        except EngineRefused as refused:
            if refused.status != 409:
                raise start_failure(launch.config.image, refused) from None
            found = self._find(name)
            return None if found is None else self._take(found, launch)
        return self._launch(made.id, made.labels, launch)

    def _create(self, launch: TaskLaunch, request: Mapping[str, Any], name: str) -> Container:
        try:
            return make_container(self._engine, request, name)
        except NotThere as absent:
            if not absent.image:
                raise
        raise FetchFirst(missing_image(self._engine, launch.config, fetched=launch.fetched))

    def _take(self, found: Container, launch: TaskLaunch) -> TaskHandle | None:
        """The handle of the container that has the name, if it is this start; None once it was removed."""
        match claim(found, launch, self._owner):
            case Claim.FOREIGN:
                raise DriverError(
                    f"a container that is not this agent's is named {found.name.removeprefix('/')}: "
                    "rename or remove it"
                )
            case Claim.FOUND:
                self._follow(found)
                return _handle(found.id, found.labels)
            case Claim.START:
                return self._launch(found.id, found.labels, launch)
            case Claim.REPLACE:
                self._discard(found, force=True)
                return None

    def _launch(self, container_id: str, labels: Mapping[str, str], launch: TaskLaunch) -> TaskHandle:
        handle = _handle(container_id, labels)
        target = log_target_of(labels)
        if target is not None:
            self._logs.prepare(target, handle.task, handle.attempt, container_id)
        try:
            self._engine.start(container_id)
        except EngineRefused as refused:
            failure = start_failure(launch.config.image, refused)
            self._discard_unstarted(container_id)
            raise failure from None
        self._follow_output(container_id, labels, handle)
        return handle

    def _discard_unstarted(self, container_id: str) -> None:
        """A container that could not be started leaves nothing to look at; where that fails, the next start does it."""
        try:
            self._engine.remove(container_id, force=True)
        except DriverError:
            return

    def _discard(self, container: Container, *, force: bool = False) -> None:
        """Removes a container, its output first brought to its files."""
        if force and container.state.running:
            self._kill_quietly(container.id)
            container = self._engine.inspect(container.id)
        if container.started:
            self._follow(container)
            if not self._logs.drained(container.id, _DRAIN_SECONDS):
                raise DriverError("the container's output is still being read", temporary=True)
        try:
            self._engine.remove(container.id, force=force)
        except NotThere:
            pass
        except EngineRefused as refused:
            if not is_being_removed(refused):
                why = f"cannot remove the container: {refused.explanation}"
                raise DriverError(why, temporary=True) from None
        self._logs.forget(container.id)

    def _kill(self, handle: TaskHandle, signal: str) -> None:
        container = self._find(container_of(handle))
        if container is None or not self._is_ours(container, handle) or not container.state.running:
            return
        try:
            self._engine.kill(container.id, signal)
        except EngineRefused as refused:
            # Gone, or ended meanwhile.
            if refused.status not in {404, 409}:
                raise

    def _kill_quietly(self, container_id: str) -> None:
        try:
            self._engine.kill(container_id, "SIGKILL")
        except EngineRefused as refused:
            if refused.status not in {404, 409}:
                raise

    def _find(self, container: str) -> Container | None:
        try:
            return self._engine.inspect(container)
        except NotThere:
            return None

    def _in_its_place(self, handle: TaskHandle) -> Container | None:
        """Another container than the one that was started, with its name and labels."""
        found = self._find(container_name(handle.allocation_id, handle.task))
        if found is None or found.id == container_of(handle) or not self._is_ours(found, handle):
            return None
        return found

    def _with_interruption(self, status: TaskStatus) -> TaskStatus:
        """Says so where it ended because the engine did, which ends all containers unless it has live-restore."""
        ended_at = status.finished_at
        if status.state != "exited" or ended_at is None or not self._outages.had(ended_at):
            return status
        if self._engine.info().live_restore_enabled:
            return status
        return replace(status, interrupted="it ended while the Docker engine was away")

    def _is_ours(self, container: Container, handle: TaskHandle) -> bool:
        labels = container.labels
        found = handle_of(container.id, labels)
        return (
            found is not None
            and (found.allocation_id, found.task, found.attempt)
            == (handle.allocation_id, handle.task, handle.attempt)
            and self._owner.owns(labels)
        )

    def _follow(self, container: Container) -> None:
        handle = handle_of(container.id, container.labels)
        if handle is not None and container.started:
            self._follow_output(container.id, container.labels, handle)

    def _follow_output(self, container_id: str, labels: Mapping[str, str], handle: TaskHandle) -> None:
        """Has the output followed. A folder that cannot be written to loses the output, and no task over it."""
        target = log_target_of(labels)
        if target is None:
            return
        try:
            self._logs.follow(target, handle.task, handle.attempt, container_id)
        except DriverError:
            return

    def _all(self) -> list[Listed]:
        """Every container of this owner."""
        found = {one.id: one for mark in self._owner.marks for one in self._engine.containers(mark)}
        return list(found.values())

    def _know(self, allocation_id: AllocationId) -> None:
        with self._lock:
            self._known.add(allocation_id)

    def _look_at_all(self) -> None:
        """The engine is heard again: all its containers may have changed meanwhile, also those it has no more."""
        listed = self._all()
        self._outages.end()
        present = {AllocationId((container.labels or {}).get(ALLOCATION, "")) for container in listed}
        with self._lock:
            known, self._known = self._known, {allocation_id for allocation_id in present if allocation_id}
        for allocation_id in sorted({*known, *present}):
            if allocation_id:
                self._wake(allocation_id)


def _handle(container_id: str, labels: Mapping[str, str]) -> TaskHandle:
    handle = handle_of(container_id, labels)
    if handle is None:
        raise DriverError(f"the labels of container {container_id[:12]} do not say which task it is")
    return handle


def _replaced(differs: str) -> str:
    return "another container was put in its place" + (f": {differs}" if differs else "")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DriverError(
            f"cannot make the folder {folder}: {error.strerror}", temporary=is_temporary(error.errno or 0)
        ) from None
