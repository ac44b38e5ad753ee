"""Digests that decide whether a change is destructive.

A group's digest covers what its tasks see, nothing else; equal digests mean running tasks are untouched. The
fields left out are those the contract's table calls *in place*. Defaults are in no digest (see `codec`).
"""

import hashlib
from collections.abc import Mapping
from typing import Final

from trueup.models.codec import to_canonical_json, to_plain_without
from trueup.models.ids import Digest
from trueup.models.job import Job, TaskGroup
from trueup.models.remembered import remembered

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
_GROUP_ELSEWHERE: Final = _GROUP_IN_PLACE | {"tasks"}
_TASK_IN_PLACE: Final = frozenset(
    {
        "checks",
        "constraints",
        "kill_timeout",
        "logs",
        "max_run_duration",
        "on_secret_change",
        "splay",
    }
)


def group_digest(job: Job, group: TaskGroup) -> Digest:
    """The digest of what the tasks of *group* see, with the job's `restart_token`: 16 hexadecimal digits."""
    own = _group_digests(job).get(group.name)
    return own[1] if own is not None and own[0] is group else _group_digest(job, group)


@remembered
def _group_digests(job: Job) -> Mapping[str, tuple[TaskGroup, Digest]]:
    return {group.name: (group, _group_digest(job, group)) for group in job.groups}


def _group_digest(job: Job, group: TaskGroup) -> Digest:
    seen = to_plain_without(group, _GROUP_ELSEWHERE)
    tasks = [to_plain_without(task, _TASK_IN_PLACE) for task in group.tasks]
    seen["tasks"] = sorted(tasks, key=lambda task: str(task["name"]))
    seen["type"] = job.type
    seen["restart_token"] = job.restart_token
    return content_digest(to_canonical_json(seen))


@remembered
def job_digest(job: Job) -> Digest:
    """The digest of all groups: what a rollout, a promotion or a revert speaks of."""
    groups = sorted((group.name, group_digest(job, group)) for group in job.groups)
    return content_digest(to_canonical_json(groups))


def content_digest(content: bytes) -> Digest:
    """The first 16 hexadecimal digits of SHA-256."""
    return Digest(hashlib.sha256(content).hexdigest()[:16])
