"""A job as the API shows it: desired against actual, per group."""

from datetime import datetime
from typing import Any

import msgspec

from trueup.models.codec import to_plain
from trueup.models.cron import next_run
from trueup.models.health import Health, JobHealth, JobStatus, Sync, job_health
from trueup.models.job import Job, JobType
from trueup.models.record import JobRecord, JobVersion
from trueup.models.state import ClusterState


class GroupView(msgspec.Struct, frozen=True, kw_only=True):
    """One group: how many are wanted, and how far they are."""

    name: str
    desired: int
    placed: int
    running: int
    healthy: int
    failed: int


class UnplacedView(msgspec.Struct, frozen=True, kw_only=True):
    """How many of a group found no room: each reason with the number of nodes that gave it."""

    group: str
    count: int
    reasons: dict[str, int]


class PlaceView(msgspec.Struct, frozen=True, kw_only=True):
    """Where a document stands: *file* relative to its root, *line* from 1, *root* the number of that root from 0."""

    file: str
    line: int
    root: int


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """Scheduled times of the newest run and of the next."""

    last: datetime | None
    next: datetime | None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job. *spec* is the rendered job in the form of a document; *removed*: its document is gone."""

    name: str
    type: JobType
    status: JobStatus
    priority: int
    version: int
    digest: str
    revision: str
    sync: Sync
    health: Health
    reason: str
    groups: tuple[GroupView, ...]
    unplaced: tuple[UnplacedView, ...]
    schedule: ScheduleView | None
    place: PlaceView
    files: tuple[str, ...]
    template: str
    invalid: bool
    removed: bool
    frozen_version: int | None
    created_at: datetime
    modified_at: datetime
    spec: dict[str, Any]


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a job; *stable*: a rollout of it succeeded."""

    version: int
    digest: str
    revision: str
    stable: bool
    created_at: datetime
    spec: dict[str, Any]


def job_view(state: ClusterState, name: str, now: datetime) -> JobView:
    """The job of that name. KeyError if there is none."""
    record = state.jobs[name]
    version = state.versions[name, record.version]
    found = job_health(state, name)
    return JobView(
        name=name,
        type=version.job.type,
        status=found.status,
        priority=version.job.priority,
        version=record.version,
        digest=version.digest,
        revision=record.revision,
        sync=found.sync,
        health=found.health,
        reason=found.reason,
        groups=_groups(found),
        unplaced=tuple(
            UnplacedView(group=group.group, count=group.count, reasons=group.reasons)
            for group in record.unplaced
        ),
        schedule=schedule_view(record, version.job, now),
        place=PlaceView(file=record.place.file, line=record.place.line, root=record.place.root),
        files=record.files,
        template=record.template,
        invalid=record.invalid,
        removed=record.removed,
        frozen_version=record.frozen_version,
        created_at=record.created_at,
        modified_at=record.modified_at,
        spec=to_plain(version.job),
    )


def version_view(version: JobVersion) -> VersionView:
    """One version of a job."""
    return VersionView(
        version=version.version,
        digest=version.digest,
        revision=version.revision,
        stable=version.stable,
        created_at=version.created_at,
        spec=to_plain(version.job),
    )


def _groups(found: JobHealth) -> tuple[GroupView, ...]:
    return tuple(
        GroupView(
            name=group.name,
            desired=group.desired,
            placed=group.placed,
            running=group.running,
            healthy=group.healthy,
            failed=group.failed,
        )
        for group in found.groups
    )


def schedule_view(record: JobRecord, job: Job, now: datetime) -> ScheduleView | None:
    """When a scheduled job ran and runs; None for any other. A removed or suspended one runs no more."""
    if job.schedule is None:
        return None
    waits = not (record.removed or job.suspended)
    return ScheduleView(last=record.last_run_at, next=next_run(job.schedule, now) if waits else None)
