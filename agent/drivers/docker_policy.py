"""What this node's policy allows a container, decided on the final request to the engine. Default: tight.

Everything by which a container gets more than its own files, network and processes is refused unless listed, also
settings no spec can write today: a request with a key that is not known here is refused too.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from agent.drivers.docker_spec import OWN_NETWORK
from trueup.models.capabilities import EVERY_CONTAINER_HAS, bare

_REQUEST: Final = frozenset(
    {
        "Image",
        "Entrypoint",
        "Cmd",
        "Env",
        "Labels",
        "User",
        "Tty",
        "OpenStdin",
        "ExposedPorts",
        "HostConfig",
    }
)
_MOUNT: Final = frozenset({"Type", "Source", "Target", "ReadOnly", "TmpfsOptions"})
_TMPFS: Final = frozenset({"SizeBytes"})
_HARMLESS: Final = frozenset(
    {
        "Init",
        "RestartPolicy",
        "AutoRemove",
        "PortBindings",
        "CapDrop",
        "ReadonlyRootfs",
        "Ulimits",
        "LogConfig",
        "CpuShares",
        "Memory",
        "MemorySwap",
        "PidsLimit",
        "ShmSize",
    }
)
_WHERE: Final = "in the agent's configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerPolicy:
    """`drivers.docker` of the agent's configuration.

    *mounts*: paths of the node whose trees may be mounted, and names of the engine's volumes. *capabilities* with or
    without `CAP_`, `ALL` for all. *network_modes* beside `task:NAME`, which is always allowed.
    """

    enabled: bool = True
    privileged: bool = False
    mounts: Collection[str] = ()
    capabilities: Collection[str] = ()
    network_modes: Collection[str] = ("bridge", "none")


def refusals(
    request: Mapping[str, Any], policy: DockerPolicy, *, given: Mapping[str, bool], networks: Collection[str]
) -> Sequence[str]:
    """Why the request may not be made, each with what would allow it; empty if it may.

    Sources of mounts have their links resolved. *given* are those the agent itself puts in (the task's folder, the
    node's volumes), and whether they may be written; *networks* the modes that join a task of the same allocation.
    """
    host = request["HostConfig"]
    found = [f"{key} is not known to this node's policy" for key in _unknown(request)]
    if host["Privileged"] and not policy.privileged:
        found.append(
            f"privileged containers are not allowed on this node: set drivers.docker.privileged {_WHERE}"
        )
    found += _capabilities(host["CapAdd"], policy)
    found += [reason for mount in host["Mounts"] if (reason := _mount(mount, policy, given))]
    mode = host["NetworkMode"]
    allowed = {*policy.network_modes, *networks}
    if mode not in allowed and not (mode in OWN_NETWORK and "bridge" in allowed):
        shown = "bridge" if mode in OWN_NETWORK else mode
        found.append(
            f'network_mode "{shown}" is not allowed on this node: '
            f"list it under drivers.docker.network_modes {_WHERE}"
        )
    return found


def _unknown(request: Mapping[str, Any]) -> list[str]:
    """All that the request has and nothing here decides on; also a mount's options, which may name a device."""
    host = request["HostConfig"]
    judged = _HARMLESS | {"Privileged", "CapAdd", "Mounts", "NetworkMode"}
    found = [key for key in sorted(request) if key not in _REQUEST]
    found += [f"HostConfig.{key}" for key in sorted(host) if key not in judged]
    for mount in host["Mounts"]:
        found += [f"HostConfig.Mounts.{key}" for key in sorted(mount) if key not in _MOUNT]
        options = mount.get("TmpfsOptions", {})
        found += [f"HostConfig.Mounts.TmpfsOptions.{key}" for key in sorted(options) if key not in _TMPFS]
    return found


def _capabilities(wanted: Sequence[str], policy: DockerPolicy) -> list[str]:
    allowed = {bare(name) for name in policy.capabilities}
    if "ALL" in allowed:
        return []
    return [
        f'the capability "{name}" is not allowed on this node: list it under drivers.docker.capabilities {_WHERE}'
        for name in wanted
        if bare(name) not in allowed | EVERY_CONTAINER_HAS
    ]


def _mount(mount: Mapping[str, Any], policy: DockerPolicy, given: Mapping[str, bool]) -> str | None:
    source, kind = str(mount.get("Source", "")), mount["Type"]
    if kind == "tmpfs" or (kind == "volume" and (not source or source in policy.mounts)):
        return None
    if kind == "bind" and _beneath(source, policy.mounts):
        return None
    if kind == "bind" and source in given:
        if given[source] or mount.get("ReadOnly", False):
            return None
        return f'the path "{source}" may only be read on this node: set read_only where it is mounted'
    what = "the path" if kind == "bind" else "the engine's volume"
    return (
        f'{what} "{source}" may not be mounted on this node: list it under drivers.docker.mounts {_WHERE}, '
        "or use a volume of the group"
    )


def _beneath(source: str, allowed: Collection[str]) -> bool:
    path = PurePosixPath(source)
    if not path.is_absolute() or ".." in path.parts:
        return False
    return any(path.is_relative_to(root) for root in allowed if root.startswith("/"))
