"""What a task is started with: its environment, its config with variables put in, its files, ports and mounts. Pure.

The contract's section 1 (runtime variables) is the source. Values of secrets enter here and leave only into what a
driver or the task's folder gets; no error says one.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import asdict

from agent.doors import Account, FileContent, SecretMissing, Secrets, TaskFolders, TaskLaunch, WantedArtifact
from agent.service_files import Lists, content_of
from trueup.models.allocation import Allocation
from trueup.models.artifacts import shown_source
from trueup.models.ids import NodeId
from trueup.models.job import Port, SecretValue, Task, TaskConfig, TaskFile, TaskGroup
from trueup.models.task_secrets import encrypted_in, secrets_of_task
from trueup.models.variables import ENVIRONMENT_PREFIX, SECRET_PREFIX, split_variables
from trueup.models.wire import Assignment

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHORTEST_SECRET: Final = 4
"""A shorter value is no secret worth the name, and would be found in every text."""
_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumePolicy:
    """A host folder this node offers as a volume."""

    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What tasks are told of their node. *host_ip* is what ports are bound to unless they say otherwise."""

    id: NodeId
    name: str
    region: str
    host_ip: str
    volumes: Mapping[str, VolumePolicy] = field(default_factory=dict)


class NotStartable(Exception):
    """A task asks for what this node cannot give it: says which field, and what to do; never a value."""


def build_launch(
    assignment: Assignment,
    task: Task,
    attempt: int,
    node: NodeFacts,
    folders: TaskFolders,
    account: Account | None,
    secrets: Secrets,
) -> TaskLaunch:
    """All a driver needs to start *task*. *account* is None where the user is known only inside an image.

    NotStartable, SecretMissing.
    """
    allocation, group = assignment.allocation, assignment.group
    put_in = _Values(runtime_variables(allocation, group, task, node, folders), secrets)
    return TaskLaunch(
        allocation_id=allocation.id,
        allocation_name=allocation.name,
        job=allocation.job,
        group=group.name,
        task=task.name,
        attempt=attempt,
        digest=allocation.digest,
        config=_config(task.config, put_in),
        environment=_environment(task, put_in, account),
        resources=task.resources,
        user=task.user,
        task_dir=folders.task,
        logs_dir=folders.logs,
        logs=task.logs,
        mounts=_mounts(group, task, node, folders, put_in),
        published=tuple(_published(allocation, group, task, node)),
    )


def build_files(
    assignment: Assignment,
    task: Task,
    node: NodeFacts,
    folders: TaskFolders,
    secrets: Secrets,
    services: Lists | None = None,
) -> tuple[FileContent, ...]:
    """The `files` of *task* with their content. An unknown variable stays as written. NotStartable, SecretMissing.

    *services* are the addresses that are known, by service.
    """
    values = runtime_variables(assignment.allocation, assignment.group, task, node, folders)
    put_in = _Values(values, secrets)
    return tuple(_file(one, put_in, services or {}) for one in task.files)


def build_artifacts(
    assignment: Assignment, task: Task, node: NodeFacts, folders: TaskFolders, secrets: Secrets
) -> tuple[WantedArtifact, ...]:
    """The `artifacts` of *task* with their variables put in. NotStartable, SecretMissing."""
    put_in = _Values(runtime_variables(assignment.allocation, assignment.group, task, node, folders), secrets)
    return tuple(
        WantedArtifact(
            source=put_in.strict(one.source, "artifacts.source"),
            # As written: what is put in may be a secret.
            shown=shown_source(one.source),
            checksum=one.checksum,
            destination=put_in.strict(one.destination, "artifacts.destination"),
        )
        for one in task.artifacts
    )


def without_secrets(text: str, task: Task, secrets: Secrets) -> str:
    """*text*, which a task's own command wrote, with the values of the task's secrets left out.

    It goes into events, and no secret's value leaves its node.
    """
    for value in _values_of(task, secrets):
        for line in value.splitlines():
            if len(line.strip()) >= _SHORTEST_SECRET:
                text = text.replace(line.strip(), "(secret)")
    return text


def runtime_variables(
    allocation: Allocation, group: TaskGroup, task: Task, node: NodeFacts, folders: TaskFolders
) -> dict[str, str]:
    """Every runtime variable of the contract, by name without `TRUEUP_`."""
    found = {
        "NODE_NAME": node.name,
        "NODE_ID": str(node.id),
        "NODE_REGION": node.region,
        "JOB_NAME": allocation.job,
        "GROUP_NAME": group.name,
        "TASK_NAME": task.name,
        "ALLOC_ID": str(allocation.id),
        "ALLOC_NAME": allocation.name,
        "ALLOC_INDEX": str(allocation.index),
        "ALLOC_EPOCH": str(allocation.epoch),
        "ALLOC_DIR": str(folders.shared),
        "TASK_DIR": str(folders.task),
        "REVISION": allocation.revision,
        "HOST_IP": node.host_ip,
    }
    for port in group.ports:
        host_port = allocation.ports.get(port.name)
        if host_port is None:
            continue
        inside = port.to if port.to is not None and _has_own_network(task) else host_port
        found[f"PORT_{port.name}"] = str(inside)
        found[f"HOST_PORT_{port.name}"] = str(host_port)
        found[f"ADDR_{port.name}"] = address_text(dial_host(port, node), host_port)
    return found


def dial_host(port: Port, node: NodeFacts) -> str:
    """The address under which a port of this node is reached from it."""
    return node.host_ip if port.bind in _WILDCARDS else port.bind


def address_text(host: str, port: int) -> str:
    """`10.0.0.1:80`, `[::1]:80`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _values_of(task: Task, secrets: Secrets) -> Iterator[str]:
    """The values of all secrets of a task that can be read now."""
    for name in sorted(secrets_of_task(task)):
        with contextlib.suppress(SecretMissing):
            yield secrets.value(name)
    for ciphertext in encrypted_in(task):
        with contextlib.suppress(SecretMissing):
            yield secrets.decrypted(ciphertext)


class _Values:
    """Puts values into texts."""

    def __init__(self, variables: Mapping[str, str], secrets: Secrets) -> None:
        self.variables = variables
        self._secrets = secrets

    def secret(self, name: str) -> str:
        return self._secrets.value(name)

    def decrypted(self, ciphertext: str, where: str) -> str:
        try:
            return self._secrets.decrypted(ciphertext)
        except SecretMissing as error:
            raise SecretMissing(f"{where}: {error}") from None

    def strict(self, text: str, where: str) -> str:
        """*text* with every variable put in; NotStartable names one that is unknown."""
        return self._put_in(text, lambda variable: _unknown(variable, where))

    def lenient(self, text: str) -> str:
        """*text* with every known variable put in, all else as written."""
        return self._put_in(text, lambda variable: variable)

    def _put_in(self, text: str, otherwise: Callable[[str], str]) -> str:
        found = []
        for piece in split_variables(text):
            if isinstance(piece, str):
                found.append(piece)
            elif piece.name.startswith(SECRET_PREFIX):
                found.append(self.secret(piece.name.removeprefix(SECRET_PREFIX)))
            elif piece.name in self.variables:
                found.append(self.variables[piece.name])
            else:
                found.append(otherwise(piece.text))
        return "".join(found)


def _unknown(variable: str, where: str) -> str:
    raise NotStartable(f"{where}: {variable} is no variable of this task; write $${{ for a literal ${{")


def _environment(task: Task, put_in: _Values, account: Account | None) -> dict[str, str]:
    found: dict[str, str] = {}
    if task.driver == "process" and account is not None:
        found = {"PATH": PATH, "HOME": account.home, "USER": account.name, "LANG": "C.UTF-8"}
    found |= {ENVIRONMENT_PREFIX + name: value for name, value in put_in.variables.items()}
    for name, value in task.env.items():
        if isinstance(value, SecretValue) and value.age:
            found[name] = put_in.decrypted(value.age, f"env.{name}")
        elif isinstance(value, SecretValue):
            found[name] = put_in.secret(value.secret)
        else:
            found[name] = put_in.strict(value, f"env.{name}")
    return found


def _config(config: TaskConfig, put_in: _Values) -> TaskConfig:
    fields = {name: _with_values(value, f"config.{name}", put_in) for name, value in asdict(config).items()}
    return TaskConfig(**fields)


def _with_values(value: Any, where: str, put_in: _Values) -> Any:  # noqa: ANN401 - plain data of a config
    if isinstance(value, str):
        return put_in.strict(value, where)
    if isinstance(value, tuple):
        return tuple(_with_values(one, where, put_in) for one in value)
    if isinstance(value, list):
        return [_with_values(one, where, put_in) for one in value]
    if isinstance(value, Mapping):
        if value.keys() == {"secret"} and isinstance(value["secret"], str):
            return put_in.secret(value["secret"])
        if value.keys() == {"age"} and isinstance(value["age"], str):
            return put_in.decrypted(value["age"], where)
        return {name: _with_values(held, f"{where}.{name}", put_in) for name, held in value.items()}
    return value


def _file(one: TaskFile, put_in: _Values, services: Lists) -> FileContent:
    mode = int(one.mode, 8) if one.mode else 0o644
    if one.services:
        unknown = ", ".join(name for name in one.services if name not in services)
        if unknown:
            raise NotStartable(f"files: {one.path}: the healthy addresses of {unknown} are not known yet")
        path = put_in.strict(one.path, "files.path")
        return FileContent(path=path, content=content_of(one, services), mode=mode)
    if one.secret is not None:
        return FileContent(path=one.path, content=put_in.secret(one.secret), mode=0o600)
    if one.age is not None:
        content = put_in.decrypted(one.age, f"files: {one.path}")
        return FileContent(path=one.path, content=content, mode=0o600)
    if one.content is None:
        raise NotStartable(f"files: {one.path}: its content did not come with the assignment")
    if any(
        not isinstance(piece, str) and piece.name.startswith(SECRET_PREFIX)
        for piece in split_variables(one.content)
    ):
        mode &= 0o700
    return FileContent(
        path=put_in.strict(one.path, "files.path"), content=put_in.lenient(one.content), mode=mode
    )


def _mounts(
    group: TaskGroup, task: Task, node: NodeFacts, folders: TaskFolders, put_in: _Values
) -> tuple[tuple[str, str, bool], ...]:
    """What of the node's files a task gets to see: (on the node, inside, read only).

    A container's own folders have the same paths inside as on the node, so that ALLOC_DIR and TASK_DIR mean the same
    everywhere. The place of a process's volume is relative to its folder, also where it was written with TASK_DIR.
    """
    volumes = {volume.name: volume for volume in group.volumes}
    found: list[tuple[str, str, bool]] = []
    if task.driver == "docker":
        found.append((str(folders.task), str(folders.task), False))
        found.append((str(folders.shared), str(folders.shared), False))
    for name, inside in sorted(task.volumes.items()):
        volume = volumes[name]
        policy = node.volumes.get(volume.source)
        if policy is None:
            raise NotStartable(
                f"volumes: this node offers no volume {volume.source}; "
                "list it under volumes in the agent's configuration"
            )
        place = put_in.strict(inside, f"volumes.{name}")
        if task.driver == "process":
            place = place.removeprefix(f"{folders.task}/")
        found.append((policy.path, place, volume.read_only or policy.read_only))
    return tuple(found)


def _published(
    allocation: Allocation, group: TaskGroup, task: Task, node: NodeFacts
) -> list[tuple[str, int, int]]:
    if not _has_own_network(task):
        return []
    found = []
    for port in group.ports:
        host_port = allocation.ports.get(port.name)
        if host_port is not None and _publisher(group, port) == task.name:
            found.append((port.bind or node.host_ip, host_port, host_port if port.to is None else port.to))
    return found


def _publisher(group: TaskGroup, port: Port) -> str:
    """Who publishes a port: the task it names, else the first main task in a container."""
    if port.task:
        return port.task
    mains = (task.name for task in group.tasks if task.driver == "docker" and task.lifecycle is None)
    return next(mains, "")


def _has_own_network(task: Task) -> bool:
    return task.driver == "docker" and task.config.network_mode != "host"
