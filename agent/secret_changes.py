"""What a running task needs when the value of one of its secrets changes on the node. Pure.

Values are compared by digests that only this node can make (`agent.value_digests`). What was never told is taken as it
is seen first: nobody knows what the task has then.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from trueup.models.ids import AllocationId
from trueup.models.job import Task
from trueup.models.task_secrets import secrets_of_file, secrets_of_task

NOTHING: Final = "none"
RESTART: Final = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSecret:
    """The digest of a secret's value, and since when (steady time) this agent has seen that one."""

    digest: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRenewal:
    """What a task needs, not before *at*: files to write anew by *paths*, signals to send then, or a new start."""

    names: tuple[str, ...]
    at: datetime
    paths: tuple[str, ...]
    signals: tuple[str, ...]
    restart: bool


def reactions(task: Task) -> Mapping[str, tuple[str, ...]]:
    """What follows when a secret's value changes, by its name; a secret that nothing follows for is left out.

    A file that says so itself has a reaction of its own, everything else that of the task.
    """
    found: dict[str, dict[str, None]] = {}
    for file in task.files:
        if file.on_change != NOTHING:
            for name in secrets_of_file(file):
                found.setdefault(name, {})[file.on_change] = None
    if task.on_secret_change != NOTHING:
        # What an artifact is fetched with is of no use once it is there.
        rest = tuple(file for file in task.files if file.on_change == NOTHING)
        for name in secrets_of_task(replace(task, files=rest, artifacts=())):
            found.setdefault(name, {})[task.on_secret_change] = None
    return {name: tuple(sorted(found[name])) for name in sorted(found)}


def unknown(task: Task, told: Mapping[str, str], seen: Mapping[str, SeenSecret]) -> dict[str, str]:
    """Digests of what the task has, as far as anybody can say, where none is on record to compare with."""
    return {
        name: seen[name].digest
        for name in reactions(task)
        if name in seen and not _is_comparable(told.get(name, ""), seen[name].digest)
    }


def secret_renewal(
    task: Task, told: Mapping[str, str], seen: Mapping[str, SeenSecret], allocation_id: AllocationId
) -> SecretRenewal | None:
    """What a task needs that was *told* these digests; None: nothing changed.

    Allocations that use the same secret do not all do it at once: each waits a part of `splay` of its own.
    """
    every = reactions(task)
    changed = [name for name in every if name in told and name in seen and told[name] != seen[name].digest]
    if not changed:
        return None
    wanted = sorted({one for name in changed for one in every[name]})
    return SecretRenewal(
        names=tuple(changed),
        at=min(seen[name].since for name in changed) + task.splay * _share(allocation_id),
        paths=tuple(file.path for file in task.files if secrets_of_file(file) & set(changed)),
        signals=tuple(one for one in wanted if one != RESTART),
        restart=RESTART in wanted,
    )


def _is_comparable(told: str, seen: str) -> bool:
    """Whether both were made with the same key of the node."""
    return told.partition(":")[0] == seen.partition(":")[0]


def _share(allocation_id: AllocationId) -> float:
    """From 0 to 1, the same for one allocation however often its agent starts."""
    return int.from_bytes(hashlib.sha256(allocation_id.encode()).digest()[:4]) / 2**32
