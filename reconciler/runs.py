"""Scheduled batch: each run is a batch of its own, known by its time. Pure."""

from collections.abc import Sequence
from datetime import datetime

from reconciler.changes import Changes, GroupChanges, Stop, earliest
from reconciler.job_state import JobState, groups_gone, verdicts_of
from reconciler.maker import Maker
from reconciler.schedule import DueRun, due_run
from trueup.models.job import TaskGroup
from trueup.models.record import JobVersion


def scheduled(actual: JobState, version: JobVersion, now: datetime) -> Changes:
    """Scheduled batch: each run is a batch of its own, known by its time."""
    record = actual.record
    due: DueRun = due_run(version, record, actual.allocations, now)
    runs = sorted({held.run for held in actual.allocations if held.run is not None and held.is_wanted})
    groups: dict[str, GroupChanges] = {}
    next_looks: list[datetime | None] = [due.next_at]
    for group in version.job.groups:
        found: list[GroupChanges] = []
        for run in runs:
            changes, look = _one_run(actual, version, group, run, now, ended=due.replaces_running)
            found.append(changes)
            next_looks.append(look)
        if due.starts_at is not None:
            maker = Maker(version=version, group=group, run=due.starts_at)
            found.append(GroupChanges(place=tuple(maker.at(index) for index in range(group.count))))
        groups[group.name] = _sum(found)
    groups |= groups_gone(actual, version)
    return Changes(
        job=actual.name,
        version=version,
        groups=groups,
        ran_at=due.considered_at,
        next_look=earliest(next_looks),
    )


def _one_run(
    actual: JobState, version: JobVersion, group: TaskGroup, run: datetime, now: datetime, *, ended: bool
) -> tuple[GroupChanges, datetime | None]:
    """A run that began keeps the version it began with; what failed of it is placed again by its policy."""
    held = [one for one in actual.allocations if one.run == run and one.group == group.name]
    verdicts = [one for one in verdicts_of(actual, version, group, now, held) if one.standing != "leaving"]
    if ended:
        going = [one for one in verdicts if not one.allocation.is_terminal]
        stops = tuple(Stop(allocation=one.allocation, reason="not needed") for one in going)
        return GroupChanges(stop=stops, ignore=len(verdicts) - len(going)), None
    place = []
    for one in verdicts:
        if one.standing != "replace":
            continue
        began_with = actual.versions.get(one.allocation.job_version, version)
        of = began_with.job.group(group.name) or group
        place.append(Maker(version=began_with, group=of, run=run).instead_of(one))
    changes = GroupChanges(place=tuple(place), ignore=len(verdicts) - len(place))
    return changes, earliest([one.due_at for one in verdicts])


def _sum(found: Sequence[GroupChanges]) -> GroupChanges:
    return GroupChanges(
        place=tuple(one for changes in found for one in changes.place),
        stop=tuple(one for changes in found for one in changes.stop),
        ignore=sum(changes.ignore for changes in found),
    )
