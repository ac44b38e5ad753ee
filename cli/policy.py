"""What a node lets tasks do, by its options file: `drivers`, `volumes`, `artifacts`, `secrets`. Default tight."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from agent.drivers.accounts import ProcessPolicy
from agent.drivers.docker_policy import DockerPolicy
from agent.environment import VolumePolicy
from agent.secret_policy import SecretPolicy
from cli.failures import Failed
from trueup.models.artifacts import ArtifactPolicy, is_host
from trueup.models.secret_rules import EVERY_JOB

T = TypeVar("T")

_ROOT: Final = frozenset({"root", "0"})
_PROCESS: Final = frozenset({"enabled", "users"})
_DOCKER: Final = frozenset({"enabled", "privileged", "mounts", "capabilities", "network_modes"})
_ARTIFACTS: Final = frozenset({"hosts", "paths"})
_VOLUME: Final = frozenset({"path", "read_only"})
_JOB: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePolicies:
    """The policy of each driver, the host folders offered as volumes, by name, where artifacts may come from, and who
    may name which secret.
    """

    process: ProcessPolicy
    docker: DockerPolicy
    volumes: Mapping[str, VolumePolicy] = field(default_factory=dict)
    artifacts: ArtifactPolicy = field(default_factory=ArtifactPolicy)
    secrets: SecretPolicy = field(default_factory=SecretPolicy)


def node_policies(document: Mapping[str, Any], *, enable_process: bool, allow_root: bool) -> NodePolicies:
    """The policies of an options file; Failed names the key that is wrong.

    *enable_process*: `--enable-process`, or `trueup up`. *allow_root*: tasks may run as root also where `users` does
    not list it, which only `trueup up` says.
    """
    drivers = _mapping(document, "drivers", frozenset({"process", "docker"}))
    process = _mapping(drivers, "process", _PROCESS, "drivers.")
    docker = _mapping(drivers, "docker", _DOCKER, "drivers.")
    users = frozenset(_texts(process, "users", "drivers.process."))
    volumes = _mapping(document, "volumes", None)
    return NodePolicies(
        process=ProcessPolicy(
            enabled=_flag(process, "enabled", "drivers.process.", default=False) or enable_process,
            root=allow_root or bool(users & _ROOT),
            users=users - _ROOT,
        ),
        docker=DockerPolicy(
            enabled=_flag(docker, "enabled", "drivers.docker.", default=True),
            privileged=_flag(docker, "privileged", "drivers.docker.", default=False),
            mounts=_texts(docker, "mounts", "drivers.docker."),
            capabilities=_texts(docker, "capabilities", "drivers.docker."),
            network_modes=_texts(docker, "network_modes", "drivers.docker.") or DockerPolicy().network_modes,
        ),
        volumes={name: _volume(volumes, name) for name in volumes},
        artifacts=_artifacts(_mapping(document, "artifacts", _ARTIFACTS)),
        secrets=_secrets(document),
    )


def _secrets(document: Mapping[str, Any]) -> SecretPolicy:
    """Without the key there is no rule: the operator has named the folder. With it, what is not listed is nobody's."""
    if document.get("secrets") is None:
        return SecretPolicy()
    held = _mapping(document, "secrets", None)
    return SecretPolicy(jobs={str(name): frozenset(_jobs(held, name)) for name in held})


def _jobs(held: Mapping[str, Any], name: str) -> tuple[str, ...]:
    jobs = _texts(held, name, "secrets.")
    for job in jobs:
        if job != EVERY_JOB and not _JOB.fullmatch(job):
            raise Failed(
                f'secrets.{name} in the options file: {job!r} is no name of a job; "{EVERY_JOB}" means all'
            )
    return jobs


def _artifacts(held: Mapping[str, Any]) -> ArtifactPolicy:
    hosts = _texts(held, "hosts", "artifacts.") if held.get("hosts") is not None else None
    paths = _texts(held, "paths", "artifacts.")
    for host in hosts or ():
        if not is_host(host):
            raise Failed(
                f"artifacts.hosts in the options file: {host!r} is no host; write example.org, example.org:8443, "
                "*.example.org or *"
            )
    for path in paths:
        if not Path(path).is_absolute() or ".." in Path(path).parts:
            raise Failed("artifacts.paths in the options file: write absolute paths of folders")
    return ArtifactPolicy(hosts=hosts, paths=paths)


def _volume(volumes: Mapping[str, Any], name: str) -> VolumePolicy:
    where = f"volumes.{name}"
    held = _mapping(volumes, name, _VOLUME, "volumes.")
    path = held.get("path")
    if not isinstance(path, str) or not Path(path).is_absolute():
        raise Failed(f"{where}.path in the options file: write the absolute path of a folder")
    return VolumePolicy(path=path, read_only=_flag(held, "read_only", f"{where}.", default=False))


def _mapping(
    document: Mapping[str, Any], key: str, known: frozenset[str] | None, prefix: str = ""
) -> Mapping[str, Any]:
    held: dict[str, Any] = _typed(document, key, prefix, dict, dict, "a mapping")
    for inner in held:
        if known is not None and inner not in known:
            raise Failed(
                f"{prefix}{key}.{inner} in the options file: unknown key; known are {', '.join(sorted(known))}"
            )
    return held


def _flag(document: Mapping[str, Any], key: str, prefix: str, *, default: bool) -> bool:
    return _typed(document, key, prefix, bool, lambda: default, "true or false")


def _texts(document: Mapping[str, Any], key: str, prefix: str) -> tuple[str, ...]:
    held: list[Any] = _typed(document, key, prefix, list, list, "a list")
    return tuple(str(one) for one in held)


def _typed(
    document: Mapping[str, Any], key: str, prefix: str, kind: type[T], default: Callable[[], T], form: str
) -> T:
    held = document.get(key)
    if held is None:
        return default()
    if not isinstance(held, kind):
        raise Failed(f"{prefix}{key} in the options file: write {form}")
    return held
