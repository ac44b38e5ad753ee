"""The rules of a task that no schema can say: its driver, variables, checks, files, volumes and lifecycle."""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from trueup.models.ulimits import exceeds
from trueup.models.variables import SECRET_PREFIX, Variable, known_variables, split_variables
from trueup.sources.constraint_checks import check_placement
from trueup.sources.parts import Plain, mapping, mappings, number, text
from trueup.sources.report import Report
from trueup.sources.tree import Path
from trueup.sources.wording import near

PROCESS_CONFIG: Final = frozenset({"command", "cwd"})
CONFIG_OF_BOTH: Final = frozenset({"ulimits"})
FILE_SOURCES: Final = ("content", "source", "secret", "age", "services")
_OF_CHECKS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "http": (("port",), ("command",)),
    "tcp": (("port",), ("command", "path")),
    "exec": (("command",), ("port", "path")),
}
"""What each type of check needs, and what it has no use for."""
_ARGUMENTS: Final = frozenset(("config", key) for key in ("command", "entrypoint", "args"))
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_LOOKS_LIKE_ONE: Final = re.compile(r"[A-Z][A-Z0-9_]*[a-z0-9-]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScope:
    """What of its job and group a task may refer to."""

    job_type: str
    ports: Sequence[str]
    volumes: Sequence[str]
    tasks: Mapping[str, Plain]


def check_task(report: Report, task: Plain, name: str, at: Path, scope: TaskScope) -> None:
    """Adds what breaks a rule of the contract in the task at that path."""
    _check_driver(report, task, at)
    _check_network(report, task, name, at, scope)
    _check_variables(report, task, at, scope)
    _check_secrets(report, task, at)
    for path, check in mappings(task, "checks", at):
        _check_check(report, check, path, scope)
    for path, file in mappings(task, "files", at):
        _check_file(report, file, path)
    _check_file_paths(report, task, at)
    _check_volumes(report, task, at, scope)
    _check_lifecycle(report, task, at, scope)
    check_placement(report, task, at)


def _check_driver(report: Report, task: Plain, at: Path) -> None:
    config = task.get("config")
    if not isinstance(config, dict):
        return
    path = (*at, "config")
    has_image, has_command = "image" in config, "command" in config
    if has_image and has_command:
        hint = "a container is told what to run by entrypoint and args"
        report.add((*path, "command"), "image and command exclude each other", hint, key=True)
        return
    if not has_image and not has_command:
        report.add(
            path, "has neither image nor command", "image runs a container, command a process", key=True
        )
        return
    driver = "docker" if has_image else "process"
    written = text(task, "driver", driver)
    if written != driver and written in {"docker", "process"}:
        wanted = "image" if written == "docker" else "command"
        report.add((*at, "driver"), f"{written} wants {wanted} in config", f"leave driver out for {driver}")
        return
    for key in config:
        # A key that no driver knows is an unknown key, said already.
        foreign = key not in CONFIG_OF_BOTH and (key in PROCESS_CONFIG) == (driver == "docker")
        if foreign and not report.has((*path, key)):
            other = "process" if driver == "docker" else "docker"
            report.add((*path, key), f"{key} is of the {other} driver, this task's is {driver}", key=True)
    for name, limit in mapping(config, "ulimits").items():
        if isinstance(limit, dict) and exceeds(number(limit, "soft"), number(limit, "hard")):
            report.add((*path, "ulimits", name), "soft is more than hard", "-1 is unlimited")


def _check_network(report: Report, task: Plain, name: str, at: Path, scope: TaskScope) -> None:
    mode = text(mapping(task, "config"), "network_mode")
    if not mode.startswith("task:"):
        return
    other = mode.removeprefix("task:")
    path = (*at, "config", "network_mode")
    if other == name:
        report.add(path, "a task cannot share its own network", "name another task of the group")
    elif other not in scope.tasks:
        report.add(path, f"{other!r} is no task of this group", near(other, list(scope.tasks)))
    elif "image" not in mapping(scope.tasks[other], "config"):
        report.add(path, f"task {other!r} is no container, so it has no network to share")


def _check_variables(report: Report, task: Plain, at: Path, scope: TaskScope) -> None:
    known = known_variables(scope.ports)
    for key in ("env", "config", "artifacts", "volumes"):
        for path, value in _texts_in(task.get(key), (*at, key)):
            if "${" not in value:
                continue
            for piece in split_variables(value):
                if isinstance(piece, Variable):
                    _check_variable(report, piece, path, known)
            if key == "volumes" and has_secret(value):
                report.add(path, "has a secret, and the paths of volumes are shown")
            if path[len(at) : len(at) + 2] in _ARGUMENTS and has_secret(value):
                hint = (
                    "put it into env, or into a file that the program reads: files: [{path: …, secret: NAME}]"
                )
                report.add(
                    path, "has a secret, and every user of a node sees the arguments of its programs", hint
                )


def _texts_in(value: object, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, held in value.items():
            yield from _texts_in(held, (*path, key))
    elif isinstance(value, list):
        for index, held in enumerate(value):
            yield from _texts_in(held, (*path, index))


def _check_variable(report: Report, piece: Variable, path: Path, known: frozenset[str]) -> None:
    if piece.name in known:
        return
    if piece.name.startswith(SECRET_PREFIX):
        if not _NAME.fullmatch(piece.name.removeprefix(SECRET_PREFIX)):
            report.add(path, "a secret has a name as jobs have", "write ${secret:db-password}")
        return
    # Only what looks like a variable is shown: the rest may be a part of a secret that holds "${" by chance.
    shown = f"${{{piece.name}}}" if _LOOKS_LIKE_ONE.fullmatch(piece.name) else "a ${…}"
    close = near(piece.name, sorted(known)).replace('"', "")
    hint = close.replace("mean ", "mean ${").replace("?", "}?") if close else "write $${ for a literal ${"
    report.add(path, f"{shown} is no variable", hint)


def _check_secrets(report: Report, task: Plain, at: Path) -> None:
    """What stands for a value that git does not show says one thing."""
    for owner, where in (
        (mapping(task, "env"), (*at, "env")),
        (mapping(mapping(task, "config"), "auth"), (*at, "config", "auth")),
    ):
        for name, value in owner.items():
            if isinstance(value, dict) and ("secret" in value) == ("age" in value):
                said = "both secret and age" if "age" in value else "neither secret nor age"
                report.add((*where, name), f"has {said}", "write {secret: NAME} or {age: …}")


def has_secret(value: str) -> bool:
    """Whether the value of a secret is put into a text."""
    return any(
        isinstance(one, Variable) and one.name.startswith(SECRET_PREFIX) for one in split_variables(value)
    )


def _check_check(report: Report, check: Plain, path: Path, scope: TaskScope) -> None:
    kind = text(check, "type")
    needed, foreign = _OF_CHECKS.get(kind, ((), ()))
    for key in needed:
        if key not in check:
            report.add(path, f"{key} is missing", f"a check of type {kind} needs it")
    for key in foreign:
        if key in check:
            report.add((*path, key), f"a check of type {kind} has no {key}", key=True)
    check_port(report, check, path, scope.ports)


def check_port(report: Report, owner: Plain, path: Path, ports: Sequence[str]) -> None:
    """The port a service or check names is one of its group."""
    name = owner.get("port")
    if isinstance(name, str) and name not in ports:
        known = f"the group has {', '.join(ports)}" if ports else "add it to the group's ports"
        report.add((*path, "port"), f"{name!r} is no port of this group", near(name, ports) or known)


def _check_file(report: Report, file: Plain, path: Path) -> None:
    sources = [key for key in FILE_SOURCES if key in file]
    if not sources:
        report.add(path, "has no content", f"write one of {', '.join(FILE_SOURCES)}")
    elif len(sources) > 1:
        report.add(path, f"has both {' and '.join(sources)}", "keep one of them")
    if "each" in file and "services" not in file:
        report.add((*path, "each"), "is the line for each address of services, and there are none", key=True)
    each = text(file, "each")
    if has_secret(each):
        report.add((*path, "each"), "has a secret", "put it into a file of its own: {path: …, secret: NAME}")
    if ("secret" in file or "age" in file) and text(file, "mode", "0600").removeprefix("0") != "600":
        report.add((*path, "mode"), "a file from a secret has mode 0600", "leave mode out")


def _check_file_paths(report: Report, task: Plain, at: Path) -> None:
    seen: set[str] = set()
    for path, file in mappings(task, "files", at):
        written = text(file, "path")
        if not written:
            continue
        name = posixpath.normpath(written)
        if written.endswith("/") or name == ".":
            report.add((*path, "path"), "is a folder", "name a file in it")
        elif name in seen:
            report.add((*path, "path"), "is written twice")
        seen.add(name)


def _check_volumes(report: Report, task: Plain, at: Path, scope: TaskScope) -> None:
    is_process = "command" in mapping(task, "config")
    for volume, place in mapping(task, "volumes").items():
        path = (*at, "volumes", volume)
        if volume not in scope.volumes:
            hint = near(volume, scope.volumes) or "add it to the group's volumes"
            report.add(path, f"{volume!r} is no volume of this group", hint, key=True)
        elif isinstance(place, str) and is_process and not is_beneath(place.removeprefix("${TASK_DIR}/")):
            hint = "a process sees the node's own files: a relative path such as data becomes a link to the volume"
            report.add(path, "leads out of the task's folder", hint)


def is_beneath(path: str) -> bool:
    """Whether a path as written stays in the folder it begins in, and is not that folder itself."""
    name = posixpath.normpath(path)
    return not name.startswith("/") and name not in {".", ".."} and not name.startswith("../")


def _check_lifecycle(report: Report, task: Plain, at: Path, scope: TaskScope) -> None:
    lifecycle = mapping(task, "lifecycle")
    if lifecycle.get("sidecar") is True and lifecycle.get("hook") == "poststop":
        report.add((*at, "lifecycle", "sidecar"), "a poststop task has nothing left to run beside")
    if "max_run_duration" in task and scope.job_type not in {"batch", "sysbatch"}:
        message = f"a {scope.job_type} job runs for good"
        report.add((*at, "max_run_duration"), message, "it is for batch and sysbatch jobs", key=True)
