"""Service and batch: `count` allocations of each group, known by their index. Pure."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from reconciler.canaries import canary_indexes, is_canary, settled
from reconciler.changes import Changes, GroupChanges, Stop, earliest
from reconciler.job_state import (
    JobState,
    ending_anyway,
    groups_gone,
    index_of,
    is_of_version,
    of_another_kind,
    of_group,
    one_for_each,
    scale_down,
    stop_for,
    verdicts_of,
)
from reconciler.maker import Maker
from reconciler.rollout import Rollout, govern
from reconciler.rules import Verdict
from reconciler.staying import misplaced
from trueup.models.allocation import Allocation
from trueup.models.digest import group_digest
from trueup.models.job import TaskGroup
from trueup.models.record import JobVersion


def counted(actual: JobState, version: JobVersion, now: datetime) -> Changes:
    """Service and batch: *count* allocations of each group, by index."""
    judged = {
        group.name: verdicts_of(actual, version, group, now, of_group(actual, group))
        for group in version.job.groups
    }
    verdicts, plain = settled(judged, actual.deployments)
    rollout = govern(
        version, verdicts, actual.deployments, now, stable=actual.stable, reverted=actual.reverted
    )
    if rollout.reverts_to is not None and actual.stable is not None:
        return _gone_back(actual, version, actual.stable, rollout, plain, now)
    groups = {
        group.name: _group_changes(actual, version, group, verdicts[group.name], rollout)
        for group in version.job.groups
    }
    groups |= groups_gone(actual, version)
    return Changes(
        job=actual.name,
        version=version,
        groups=groups,
        deployments=rollout.deployments_for(groups),
        updates=_newest([*plain, *rollout.updates]),
        stable_version=rollout.stable_version,
        next_look=earliest(
            [rollout.next_look, *(one.due_at for found in verdicts.values() for one in found)]
        ),
    )


def _gone_back(
    actual: JobState,
    version: JobVersion,
    stable: JobVersion,
    rollout: Rollout,
    plain: Sequence[Allocation],
    now: datetime,
) -> Changes:
    """`auto_revert` puts the last healthy version back, from the pass on that finds the rollout failed.

    The job has *version* until this pass is written: what the earlier one keeps is noted with that one by the next.
    """
    marked = _newest([*plain, *rollout.updates])
    newest = {one.id: one for one in marked}
    closed = {one.id: one for one in rollout.put}
    back = counted(
        msgspec.structs.replace(
            actual,
            version=stable,
            stable=None,
            reverted=True,
            allocations=[newest.get(one.id, one) for one in actual.allocations],
            deployments=[closed.get(one.id, one) for one in actual.deployments],
        ),
        stable,
        now,
    )
    groups = {
        name: msgspec.structs.replace(one, in_place=(), ignore=one.ignore + len(one.in_place))
        for name, one in back.groups.items()
    }
    return msgspec.structs.replace(
        back,
        version=version,
        groups=groups,
        deployments=(*rollout.put, *back.deployments),
        updates=_newest([*marked, *back.updates]),
        stable_version=None,
        reverts_to=stable.version,
        reverts_because=rollout.reverts_because,
    )


def _newest(changed: Sequence[Allocation]) -> tuple[Allocation, ...]:
    """Each allocation once, as it was changed last."""
    return tuple({one.id: one for one in changed}.values())


def _group_changes(
    actual: JobState,
    version: JobVersion,
    group: TaskGroup,
    verdicts: Sequence[Verdict],
    rollout: Rollout,
) -> GroupChanges:
    foreign = (*of_another_kind(actual, group), *(one.stop for one in verdicts if one.standing == "foreign"))
    counted = [one for one in verdicts if one.standing not in {"leaving", "foreign"}]
    canaries = [one for one in counted if is_canary(one.allocation)]
    others = [one for one in counted if not is_canary(one.allocation)]
    if group.name in rollout.canaries:
        return _beside_canaries(actual, version, group, canaries, others, rollout, foreign)
    # Those of the rollout under way were promoted in this very pass; what an older one left has no part in it.
    promoted = [one for one in canaries if one.allocation.id in rollout.promoted]
    dropped = tuple(stop_for(one, "not needed") for one in canaries if one not in promoted)
    held, twins = one_for_each([*others, *promoted], index_of)
    kept, surplus = scale_down(held, group.count)
    digest = group_digest(version.job, group)
    maker = Maker(version=version, group=group, rollout=rollout)
    replaced = [maker.instead_of(one) for one in kept if one.standing in {"replace", "rerun"}]
    missing = [maker.at(index) for index in _free_indexes(kept, group.count)]
    place = tuple(sorted([*replaced, *missing], key=lambda one: one.index))
    staying = [one for one in kept if one.standing in {"keep", "wait"}]
    older = [one for one in staying if one.allocation.digest != digest and one.standing == "keep"]
    settling = [
        one
        for one in staying
        if one.allocation.digest == digest
        and not is_of_version(actual, version, one.allocation)
        and not one.allocation.is_terminal
    ]
    of_digest = [one for one in staying if one.allocation.digest == digest and not one.allocation.is_terminal]
    moving = misplaced(actual, version, group, of_digest) if settling else frozenset()
    going = [one for one in settling if one.allocation.id in moving]
    outdated = sorted([*older, *going], key=lambda one: one.allocation.index)
    migrating = [one for one in kept if one.standing == "migrate"]
    budget = rollout.budget(group.name, len(place))
    destructive = tuple(
        maker.coupled(one, "reverted" if actual.reverted and one.allocation.digest != digest else "updating")
        for one in outdated[:budget]
    )
    paced = migrating[: rollout.drain_pace(group.name, len(place) + len(destructive))]
    in_place = tuple(one.allocation for one in settling if one.allocation.id not in moving)
    stop = (*foreign, *dropped, *twins, *surplus, *ending_anyway(kept))
    touched = len(in_place) + len(destructive) + len(paced) + len(replaced)
    return GroupChanges(
        place=place,
        stop=stop,
        in_place=in_place,
        destructive=destructive,
        destructive_total=len(outdated),
        migrate=tuple(maker.coupled(one, "migrating") for one in paced),
        ignore=len(held) - len(surplus) - touched,
    )


def _beside_canaries(
    actual: JobState,
    version: JobVersion,
    group: TaskGroup,
    canaries: Sequence[Verdict],
    others: Sequence[Verdict],
    rollout: Rollout,
    foreign: tuple[Stop, ...],
) -> GroupChanges:
    """While canaries are not promoted: they alone are new, and the old version is kept whole in the old version."""
    digest = group_digest(version.job, group)
    older = _older_version(actual, version, group, others)
    held, twins = one_for_each(others, index_of)
    kept, surplus = scale_down(held, group.count)
    old = Maker(version=older, group=older.job.group(group.name) or group)
    new = Maker(version=version, group=group, rollout=rollout)
    replaced = [old.instead_of(one) for one in kept if one.standing in {"replace", "rerun"}]
    missing = [old.at(index) for index in _free_indexes(kept, group.count)]
    outdated = [one for one in kept if one.standing == "keep" and one.allocation.digest != digest]
    migrating = [one for one in kept if one.standing == "migrate"]
    paced = migrating[: rollout.drain_pace(group.name, len(replaced) + len(missing))]
    mine = [
        one
        for one in canaries
        if one.allocation.deployment is not None and one.allocation.deployment.id == rollout.id
    ][: rollout.canaries[group.name]]
    dropped = tuple(stop_for(one, "not needed") for one in canaries if one not in mine)
    lost = [new.instead_of(one, canary=True) for one in mine if one.standing in {"replace", "rerun"}]
    indexes = canary_indexes(
        [one.allocation.index for one in outdated],
        [one.allocation.index for one in mine],
        [one.allocation.index for one in kept],
        rollout.canaries[group.name] - len(mine),
    )
    in_place = tuple(
        one.allocation
        for one in [*kept, *mine]
        if one.standing in {"keep", "wait"}
        and one.allocation.digest == digest
        and not is_of_version(actual, version, one.allocation)
        and not one.allocation.is_terminal
    )
    return GroupChanges(
        place=tuple(sorted([*replaced, *missing], key=lambda one: one.index)),
        stop=(*foreign, *dropped, *twins, *surplus, *ending_anyway([*kept, *mine])),
        in_place=in_place,
        destructive_total=len(outdated),
        migrate=tuple(old.coupled(one, "migrating") for one in paced),
        canary=(*lost, *(new.at(index, canary=True) for index in indexes)),
        ignore=len(held) - len(surplus) + len(mine) - len(in_place) - len(replaced) - len(lost) - len(paced),
    )


def _older_version(
    actual: JobState, version: JobVersion, group: TaskGroup, others: Sequence[Verdict]
) -> JobVersion:
    """The version that the group runs beside its canaries: the newest of those its allocations have."""
    numbers = sorted({one.allocation.job_version for one in others}, reverse=True)
    found = [actual.versions[number] for number in numbers if number in actual.versions]
    digest = group_digest(version.job, group)
    for one in found:
        old = one.job.group(group.name)
        if old is not None and group_digest(one.job, old) != digest:
            return one
    return version if actual.stable is None else actual.stable


def _free_indexes(kept: Sequence[Verdict], count: int) -> list[int]:
    taken = {one.allocation.index for one in kept}
    free: list[int] = []
    index = 0
    while len(taken) + len(free) < count:
        if index not in taken:
            free.append(index)
        index += 1
    return free
