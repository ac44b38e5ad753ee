"""Files made of the healthy addresses of services: what they contain, and when a running task has to be told. Pure.

One line for each address, in the order in which the file names the services, and within a service in the order the
control plane tells them in. What counts as a change is what the file says, not what is known beyond that.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from trueup.models.addresses import in_order
from trueup.models.job import Task, TaskFile
from trueup.models.service import ServiceAddress
from trueup.models.variables import ADDRESS_LABEL_PREFIX, ADDRESS_VARIABLES, split_variables

Lists = Mapping[str, tuple[ServiceAddress, ...]]
"""Addresses by service; a service that is missing is not known yet."""

_BARE: Final = "${ADDR}"
_DIGEST_LENGTH: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFiles:
    """Those of one task: digests of their content by path, and the services whose addresses are not known yet."""

    digests: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


NO_FILES: Final = ServiceFiles()


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What a running task needs: files to write anew (digests by path), signals to send then, or a new start."""

    files: Mapping[str, str]
    signals: tuple[str, ...] = ()
    restart: bool = False


def content_of(file: TaskFile, lists: Lists) -> str:
    """What the file says. KeyError if a service of it is not known."""
    lines = [
        _line(file.each or _BARE, name, address)
        for name in file.services
        for address in in_order(lists[name])
    ]
    return "".join(f"{line}\n" for line in lines)


def service_files(task: Task, lists: Lists) -> ServiceFiles:
    """How the task's files are by *lists*. Where one cannot be written yet, none is."""
    files = [file for file in task.files if file.services]
    unknown = {name: None for file in files for name in file.services if name not in lists}
    if unknown:
        return ServiceFiles(unknown=tuple(unknown))
    return ServiceFiles(digests={file.path: _digest(content_of(file, lists)) for file in files})


def renewal(task: Task, told: Mapping[str, str], now: ServiceFiles) -> Renewal | None:
    """What a task needs that was *told* these digests; None: nothing changed that it has to know."""
    changed = {path: digest for path, digest in now.digests.items() if told.get(path) != digest}
    if not changed:
        return None
    reactions = dict.fromkeys(file.on_change for file in task.files if file.path in changed)
    return Renewal(
        files=changed,
        signals=tuple(one for one in reactions if one not in {"restart", "none"}),
        restart="restart" in reactions,
    )


def _line(each: str, service: str, address: ServiceAddress) -> str:
    return "".join(
        piece if isinstance(piece, str) else _value(piece.name, piece.text, service, address)
        for piece in split_variables(each)
    )


def _value(name: str, text: str, service: str, address: ServiceAddress) -> str:
    """What a variable means of one address; *text* where it means nothing. A label it does not have is empty."""
    if name.startswith(ADDRESS_LABEL_PREFIX):
        return address.labels.get(name.removeprefix(ADDRESS_LABEL_PREFIX), "")
    known = (
        address.address,
        address.host,
        str(address.port),
        service,
        address.allocation,
        address.allocation_id,
        address.node,
    )
    return dict(zip(ADDRESS_VARIABLES, known, strict=True)).get(name, text)


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_LENGTH]
