"""What this machine is and has: processors, memory, disk, kernel, its drivers. What a node says of itself.

Drivers are asked on workers, since an engine that hangs must not hold up a heartbeat; between two looks their last
answer stands.
"""

import os
import platform
import shutil
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
import structlog
from msgspec.structs import replace

from agent import machine_share
from agent.age_key import RECIPIENT
from agent.doors import Driver, Secrets, Workers
from agent.drivers.cgroup import version_of_machine
from agent.heartbeat import Facts
from agent.secret_policy import SecretPolicy
from trueup.models.artifacts import ArtifactPolicy
from trueup.models.clock import Clock
from trueup.models.node import DriverState, NodeResources, NodeUse
from trueup.models.units import Bytes, Millicores

DRIVERS_AGAIN_SECONDS: Final = 15.0
_MIB: Final = 1024**2
MOST_RESERVED_MEMORY: Final = 512 * _MIB
LEAST_MEMORY_SHARE: Final = 20
"""Kept for the system unless told otherwise: a twentieth of memory, at most 512 MiB, since a machine without any ends
processes that nobody chose. Of the processor nothing: it is shared by weight, so that a full node is slow and works
on, and a tenth of a core would be a task less on the smallest machines."""

_log = structlog.stdlib.get_logger("trueup.agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """What is kept for the system and trueup itself: no task is placed on it. None: the default.

    *disk_bytes* is no resource of tasks, but a bound below which none is placed (`agent.disk_room`).
    """

    cpu_millicores: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification:
    """What the operator says of a node. *cpu* and *memory* None: what the machine has, without the *reserve*."""

    name: str
    region: str
    labels: Mapping[str, str]
    volumes: tuple[str, ...]
    cpu_millicores: int | None = None
    memory_bytes: int | None = None
    reserve: Reserve = field(default_factory=Reserve)


class SystemMachine:
    """The machine, as `agent.heartbeat.Machine`."""

    def __init__(
        self,
        *,
        identification: Identification,
        drivers: Mapping[str, Driver],
        secrets: Secrets,
        workers: Workers,
        clock: Clock,
        data: Path,
        artifacts: ArtifactPolicy,
        secret_policy: SecretPolicy,
        age_recipient: str,
        endpoint: Callable[[], str],
        use: Callable[[], NodeUse | None],
    ) -> None:
        """Looks at the machine once, and asks every driver. *use* says at once what is in use."""
        self._identification = identification
        self._drivers = drivers
        self._secrets = secrets
        self._secret_policy = secret_policy
        self._workers = workers
        self._clock = clock
        self._endpoint = endpoint
        self._use = use
        self._told_of_artifacts = told_of_artifacts(artifacts)
        self._resources = resources_of(identification)
        self._attributes = attributes_of_machine(data)
        if age_recipient:
            self._attributes[RECIPIENT] = age_recipient
        self._lock = threading.Lock()
        self._states: dict[str, DriverState] = {}
        self._asked_at = clock.monotonic()
        for name in drivers:
            self._ask(name)

    def facts(self) -> Facts:
        """How it is now; asks drivers again when their last answer is old."""
        if self._clock.monotonic() - self._asked_at >= DRIVERS_AGAIN_SECONDS:
            self._asked_at = self._clock.monotonic()
            for name in self._drivers:
                self._workers.submit(f"fingerprint {name}", lambda one=name: self._ask(one))  # type: ignore[misc]
        with self._lock:
            states = dict(sorted(self._states.items()))
        one = self._identification
        names = tuple(self._secrets.names())
        return Facts(
            name=one.name,
            region=one.region,
            endpoint=self._endpoint(),
            resources=self._resources,
            attributes=self._attributes | self._secret_policy.attributes(names),
            labels=dict(one.labels),
            drivers=states,
            volumes=one.volumes,
            secrets=names,
            used=self._use(),
        )

    def _ask(self, name: str) -> None:
        try:
            state = self._drivers[name].fingerprint()
            if state is not None:
                state = replace(state, attributes=state.attributes | self._told_of_artifacts)
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver is what it concerns
            _log.exception("driver gives no fingerprint", driver=name)
            state = DriverState(healthy=False, detail=f"unexpected {type(error).__name__}")
        with self._lock:
            if state is None:
                self._states.pop(name, None)
            else:
                self._states[name] = state


def resources_of(identification: Identification) -> NodeResources:
    """What the node gives to tasks: what the operator says, else what they can use without the reserve in whole MiB."""
    cpu, memory, reserve = identification.cpu_millicores, identification.memory_bytes, identification.reserve
    if cpu is None:
        cpu = max(machine_share.cpu_millicores() - (reserve.cpu_millicores or 0), 0)
    if memory is None:
        total = machine_share.memory_bytes()
        memory = max(total - reserved_memory(total, reserve.memory_bytes), 0) // _MIB * _MIB
    return NodeResources(cpu_millicores=Millicores(cpu), memory_bytes=Bytes(memory))


def reserved_memory(total_bytes: int, told_bytes: int | None) -> int:
    """How much memory is kept for the system: what the operator says, else the default, in whole MiB."""
    if told_bytes is not None:
        return told_bytes
    return min(total_bytes // LEAST_MEMORY_SHARE, MOST_RESERVED_MEMORY) // _MIB * _MIB


def told_of_artifacts(policy: ArtifactPolicy) -> dict[str, str]:
    """What placement is told of the policy, with each driver: it holds for the tasks of all of them.

    Paths also as they are once their links are resolved, since a source may name either.
    """
    told = {"artifact_paths": ",".join(sorted({*policy.paths, *map(os.path.realpath, policy.paths)}))}
    if policy.hosts is not None:
        told["artifact_hosts"] = ",".join(sorted(policy.hosts))
    return told


def attributes_of_machine(data: Path) -> dict[str, str]:
    """`node.attributes.…` of this machine, all as text."""
    found = {
        "arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "kernel.name": platform.system().lower(),
        "kernel.version": platform.release(),
        "hostname": socket.gethostname(),
        "cpu.cores": str(psutil.cpu_count() or 1),
        "memory.bytes": str(psutil.virtual_memory().total),
        "cgroup": version_of_machine(),
        "user": "root" if os.geteuid() == 0 else "other",
    }
    try:
        found["disk.bytes"] = str(shutil.disk_usage(data).total)
    except OSError:
        _log.info("the data folder's disk cannot be measured", folder=str(data))
    return found | _os_release()


def _os_release() -> dict[str, str]:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return {}
    return {"os.name": release.get("ID", ""), "os.version": release.get("VERSION_ID", "")}


def address_of_machine() -> str:
    """The first IPv4 address of this machine that others can reach, by name of its interface; else loopback's."""
    for _, addresses in sorted(psutil.net_if_addrs().items()):
        for one in addresses:
            if one.family == socket.AF_INET and not one.address.startswith(("127.", "169.254.")):
                return one.address
    return "127.0.0.1"


def default_name() -> str:
    """The hostname as a node's name: lower-cased, other characters as `-`."""
    letters = [one if one.isascii() and one.isalnum() else "-" for one in socket.gethostname().lower()]
    return "".join(letters)[:63].strip("-") or "node"
