"""From a task's launch to the request that makes its container, and back from a container's labels to the task. Pure.

A container is known by its name, `trueup-<allocation>-<task>`, so that one start of a task finds another's, and by
its labels, so that all of a node's are found without knowing any name.
"""

import json
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Final

import msgspec

from agent.doors import DriverError, TaskHandle, TaskLaunch
from agent.drivers.cgroup import PIDS_MAX
from agent.drivers.docker_container import Container
from agent.drivers.docker_origin import strayed
from agent.drivers.docker_owner import Owner
from trueup.models.codec import understood
from trueup.models.ids import AllocationId
from trueup.models.job import LogLimits, Resources
from trueup.models.units import parse_size

DRIVER: Final = "docker"
ALLOCATION: Final = "trueup.alloc"
TASK: Final = "trueup.task"
ATTEMPT: Final = "trueup.attempt"
DIGEST: Final = "trueup.digest"
LOGS: Final = "trueup.logs"
OWN_NETWORK: Final = frozenset({"", "default", "bridge"})
"""Network modes in which the container is on the engine's own bridge."""

_LEAST_MEMORY_BYTES: Final = 6 * 1024**2
"""The engine refuses less."""
_LEAST_LOG_BYTES: Final = 4 * 1024**2
_SHARES_OF_A_CORE: Final = 1024
_MOST_SHARES: Final = 262_144
_TASK_NETWORK: Final = "task:"


class LogTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Where a container's output goes: in its label, so that it is known without any journal."""

    folder: str
    max_files: int
    max_bytes: int


class Claim(Enum):
    """What a start does about a container that has its name."""

    FOREIGN = auto()
    """It is not ours: left alone, and the start fails."""
    FOUND = auto()
    """It is this very start, done already, or a later one."""
    START = auto()
    """It is this very start, made and not started."""
    REPLACE = auto()
    """It is what an earlier start left, or was put in its place by others: removed."""


def container_name(allocation_id: AllocationId, task: str) -> str:
    """The name of a task's container."""
    return f"trueup-{allocation_id}-{task}"


def container_labels(launch: TaskLaunch, owner: Owner) -> dict[str, str]:
    """All labels of a task's container."""
    target = LogTarget(
        folder=str(launch.logs_dir), max_files=launch.logs.max_files, max_bytes=int(launch.logs.max_size)
    )
    return {
        **owner.labels,
        ALLOCATION: launch.allocation_id,
        "trueup.name": launch.allocation_name,
        "trueup.job": launch.job,
        "trueup.group": launch.group,
        TASK: launch.task,
        ATTEMPT: str(launch.attempt),
        DIGEST: launch.digest,
        LOGS: msgspec.json.encode(target).decode(),
    }


def create_request(launch: TaskLaunch, owner: Owner) -> dict[str, Any]:
    """The body of `POST /containers/create`. DriverError if a setting has no meaning for the engine."""
    config = launch.config
    request: dict[str, Any] = {
        "Image": config.image,
        "Env": [f"{name}={value}" for name, value in sorted(launch.environment.items())],
        "Labels": container_labels(launch, owner),
        "User": launch.user,
        "Tty": False,
        "OpenStdin": False,
        "HostConfig": _host_config(launch),
    }
    if config.entrypoint is not None:
        request["Entrypoint"] = list(config.entrypoint)
    if config.args:
        request["Cmd"] = list(config.args)
    ports = _published(launch)
    if ports:
        request["ExposedPorts"] = {port: {} for port in ports}
    return request


def network_mode(launch: TaskLaunch) -> str:
    """The engine's word for a task's network: `task:NAME` is that of the other task's container."""
    mode = launch.config.network_mode
    if mode.startswith(_TASK_NETWORK):
        return "container:" + container_name(launch.allocation_id, mode.removeprefix(_TASK_NETWORK))
    return mode


def handle_of(container_id: str, labels: Mapping[str, str]) -> TaskHandle | None:
    """The handle of one of our containers; None where its labels do not say which task it is."""
    attempt = labels.get(ATTEMPT, "")
    if not labels.get(ALLOCATION) or not labels.get(TASK) or not (attempt.isascii() and attempt.isdigit()):
        return None
    return TaskHandle(
        driver=DRIVER,
        allocation_id=AllocationId(labels[ALLOCATION]),
        task=labels[TASK],
        attempt=int(attempt),
        data=json.dumps({"container": container_id}),
    )


def container_of(handle: TaskHandle) -> str:
    """The container's id, as the handle has it, else its name."""
    try:
        found = json.loads(handle.data)["container"]
    except (ValueError, KeyError, TypeError):
        found = None
    return found if isinstance(found, str) and found else container_name(handle.allocation_id, handle.task)


def log_target_of(labels: Mapping[str, str]) -> LogTarget | None:
    """Where a container's output goes, or None if its labels do not say."""
    try:
        return msgspec.json.decode(labels.get(LOGS, ""), type=understood(LogTarget))
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None


def claim(container: Container, launch: TaskLaunch, owner: Owner) -> Claim:
    """What the start of *launch* does about a container that has its name."""
    labels = container.labels
    ours = owner.owns(labels)
    if not ours or (labels.get(ALLOCATION), labels.get(TASK)) != (launch.allocation_id, launch.task):
        return Claim.FOREIGN
    handle = handle_of(container.id, labels)
    if handle is None or handle.attempt < launch.attempt or labels.get(DIGEST) != launch.digest:
        return Claim.REPLACE
    if strayed(container):
        return Claim.REPLACE
    if container.started:
        return Claim.FOUND
    # One that could not be started says why; it is made anew, as what it lacked may be there now.
    same = handle.attempt == launch.attempt and not container.state.error
    return Claim.START if same else Claim.REPLACE


def _host_config(launch: TaskLaunch) -> dict[str, Any]:
    config = launch.config
    host: dict[str, Any] = {
        "Init": config.init,
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "NetworkMode": network_mode(launch) or "default",
        "PortBindings": _published(launch),
        "Mounts": _mounts(launch),
        "Privileged": config.privileged,
        "CapAdd": list(config.cap_add),
        "CapDrop": list(config.cap_drop),
        "ReadonlyRootfs": config.read_only,
        "Ulimits": [_ulimit(name, limit) for name, limit in sorted(config.ulimits.items())],
        "LogConfig": _log_config(launch.logs),
        "PidsLimit": PIDS_MAX if config.pids_limit is None else config.pids_limit,
        **_limits(launch.resources),
    }
    if config.shm_size is not None:
        host["ShmSize"] = int(config.shm_size)
    return host


def _limits(resources: Resources) -> dict[str, int]:
    """Memory at most, and no swap beyond it; of the processor its share where it is short, as for processes."""
    limits: dict[str, int] = {}
    if resources.cpu_millicores > 0:
        shares = max(2, resources.cpu_millicores * _SHARES_OF_A_CORE // 1000)
        limits["CpuShares"] = min(shares, _MOST_SHARES)
    if resources.memory_bytes > 0:
        memory_bytes = max(_LEAST_MEMORY_BYTES, int(resources.memory_bytes))
        limits |= {"Memory": memory_bytes, "MemorySwap": memory_bytes}
    return limits


def _log_config(logs: LogLimits) -> dict[str, Any]:
    """The engine keeps as much as the task's own logs do: what an absent or slow agent has to catch up with.

    Two files at least, since with one a rotation loses what was not yet read of it; and none too small: in the
    engine's form, a short line takes twenty times its length.
    """
    size_bytes = max(_LEAST_LOG_BYTES, int(logs.max_size))
    settings = {"max-size": str(size_bytes), "max-file": str(max(2, logs.max_files))}
    return {"Type": "json-file", "Config": settings}


def _published(launch: TaskLaunch) -> dict[str, list[dict[str, str]]]:
    """Port bindings; none where the container has no network of its own."""
    mode = launch.config.network_mode
    if mode in {"host", "none"} or mode.startswith(_TASK_NETWORK):
        return {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for host_ip, host_port, port in launch.published:
        bindings.setdefault(f"{port}/tcp", []).append({"HostIp": host_ip, "HostPort": str(host_port)})
    return bindings


def _mounts(launch: TaskLaunch) -> list[dict[str, Any]]:
    """The task's folder under the path it has on the node, the allocation's volumes, and what the config adds."""
    mounts = [
        {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
        for source, target, read_only in launch.mounts
    ]
    mounts += [_mount(mount) for mount in launch.config.mounts]
    folder = str(launch.task_dir)
    if all(mount["Target"] != folder for mount in mounts):
        mounts.insert(0, {"Type": "bind", "Source": folder, "Target": folder, "ReadOnly": False})
    return mounts


def _mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(mount.get("type", "bind"))
    made: dict[str, Any] = {
        "Type": kind,
        "Target": str(mount.get("target", "")),
        "ReadOnly": bool(mount.get("read_only", False)),
    }
    source = str(mount.get("source", ""))
    if kind == "bind" and not source:
        raise DriverError(f"the mount at {made['Target']} has no source: a bind needs a path of the node")
    if source:
        made["Source"] = source
    if kind == "tmpfs" and "size" in mount:
        made["TmpfsOptions"] = {"SizeBytes": _size(mount["size"])}
    return made


def _size(written: object) -> int:
    try:
        return written if isinstance(written, int) else int(parse_size(str(written)))
    except ValueError as error:
        raise DriverError(f"the size of a tmpfs: {error}") from None


def _ulimit(name: str, limit: object) -> dict[str, Any]:
    if isinstance(limit, Mapping):
        return {"Name": name, "Soft": limit.get("soft"), "Hard": limit.get("hard")}
    return {"Name": name, "Soft": limit, "Hard": limit}
