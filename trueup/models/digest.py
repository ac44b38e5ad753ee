"""Digests that decide whether a change is destructive.

A group's digest covers what its tasks see, nothing else; equal digests mean running tasks are untouched. The
fields left out are those the contract's table calls *in place*. Defaults are in no digest (see `codec`).
"""

import hashlib
from functools import lru_cache
from typing import Final

from trueup.models.codec import to_canonical_json, to_plain
from trueup.models.ids import Digest
from trueup.models.job import Job, TaskGroup

_GROUP_IN_PLACE: Final = frozenset(
    {
        "count",
        "constraints",
        "affinities",
        "spreads",
        "restart",
        "reschedule",
        "disconnect",
        "services",
        "shutdown_delay",
    }
)
_TASK_IN_PLACE: Final = frozenset({"checks", "constraints", "kill_timeout", "logs", "max_run_duration"})


class _Pair:
    """A job and a group of it, known by what they are and not by what they equal.

    Values are frozen, so the same objects have the same digest; to hash a job whole would cost as much as to digest it.
    """

    __slots__ = ("group", "job")

    def __init__(self, job: Job, group: TaskGroup) -> None:
        self.job, self.group = job, group

    def __hash__(self) -> int:
        return hash((id(self.job), id(self.group)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Pair) and other.job is self.job and other.group is self.group


def group_digest(job: Job, group: TaskGroup) -> Digest:
    """The digest of what the tasks of *group* see, with the job's `restart_token`: 16 hexadecimal digits."""
    return _group_digest(_Pair(job, group))


@lru_cache(maxsize=16_384)
def _group_digest(of: _Pair) -> Digest:
    seen = {key: value for key, value in to_plain(of.group).items() if key not in _GROUP_IN_PLACE}
    seen["tasks"] = sorted(
        ({key: value for key, value in task.items() if key not in _TASK_IN_PLACE} for task in seen["tasks"]),
        key=lambda task: str(task["name"]),
    )
    seen["type"] = of.job.type
    seen["restart_token"] = of.job.restart_token
    return content_digest(to_canonical_json(seen))


def job_digest(job: Job) -> Digest:
    """The digest of all groups: what a rollout, a promotion or a revert speaks of."""
    groups = sorted((group.name, group_digest(job, group)) for group in job.groups)
    return content_digest(to_canonical_json(groups))


def content_digest(content: bytes) -> Digest:
    """The first 16 hexadecimal digits of SHA-256."""
    return Digest(hashlib.sha256(content).hexdigest()[:16])
