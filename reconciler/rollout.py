"""How a new version replaces the old one: deployments, their health, and how much a pass may change.

A service's digest that was never rolled out opens a deployment; a newer digest supersedes it; a version with the
same digest joins it. Batch jobs change all at once; system jobs keep the pace without a deployment. A rollout with
canaries begins with these alone, and goes on once they are promoted (`reconciler.canaries`). Source: Nomad's
deployments and `computeUpdateLimit`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from reconciler.canaries import awaits_promotion, is_canary, is_canary_of, promoted_canaries, promotes
from reconciler.changes import GroupChanges, earliest
from reconciler.job_state import index_of, one_for_each, scale_down
from reconciler.rules import Verdict
from trueup.models.allocation import Allocation, DeploymentState
from trueup.models.deployment import Deployment, DeploymentGroup, DeploymentStatus
from trueup.models.digest import content_digest, group_digest
from trueup.models.ids import AllocationId, DeploymentId
from trueup.models.job import Job, TaskGroup
from trueup.models.record import JobVersion

UNLIMITED: Final = 1_000_000


class GroupProgress(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where one group stands: allocations of the wanted digest by health, and how many are of an older one.

    *moving* are those of *waiting* that are to leave their node: nobody waits for them to become healthy there.
    *canaries* are those healthy of the rollout under way that are not promoted. *began* says that some were placed in
    the wanted digest, *compared* that there is what canaries are compared with, or a canary. *decides_since* is when
    the newest was placed whose health is not yet decided, or is bad.
    """

    count: int
    healthy: int = 0
    waiting: int = 0
    moving: int = 0
    unhealthy: int = 0
    outdated: int = 0
    missing: int = 0
    canaries: int = 0
    began: bool = False
    compared: bool = False
    decides_since: datetime | None = None

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to roll."""
        return self.healthy >= self.count and not self.outdated


class Rollout(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What governs a job's changes in this pass. *id* tags new placements; None: no deployment is under way.

    *opens* says that it begins with this pass. *canaries* is, for each group whose canaries are not promoted, how many
    it is to have now (0 once the rollout failed): such a group changes nothing else. *reverts_to* is the stable version
    to go back to, as this pass found that the rollout failed; *promoted* are the canaries promoted in this pass.
    """

    version: JobVersion
    id: DeploymentId | None = None
    opens: bool = False
    progress: Mapping[str, GroupProgress] = {}
    halted: bool = False
    put: tuple[Deployment, ...] = ()
    updates: tuple[Allocation, ...] = ()
    canaries: Mapping[str, int] = {}
    promoted: frozenset[AllocationId] = frozenset()
    stable_version: int | None = None
    reverts_to: int | None = None
    reverts_because: str = ""
    next_look: datetime | None = None

    def budget(self, group: str, placing: int) -> int:
        """How many allocations of *group* may be replaced now, beside *placing* new ones.

        `max_parallel` less those not yet healthy; 0 once one is unhealthy, or the rollout failed.
        """
        job = self.version.job
        if job.type in {"batch", "sysbatch"}:
            return UNLIMITED
        if self.halted:
            return 0
        if job.update.max_parallel == 0:
            return UNLIMITED
        progress = self.progress[group]
        if progress.unhealthy:
            return 0
        return max(0, job.update.max_parallel - progress.waiting - placing)

    def drain_pace(self, group: str, placing: int) -> int:
        """How many allocations of *group* may leave draining nodes now."""
        job = self.version.job
        if job.type != "service" or job.update.max_parallel == 0:
            return UNLIMITED
        progress = self.progress[group]
        return max(0, job.update.max_parallel - (progress.waiting - progress.moving) - placing)

    def deployments_for(self, groups: Mapping[str, GroupChanges]) -> tuple[Deployment, ...]:
        """The deployments to write: those that changed. A new one only when the pass has work for it."""
        worth = any(one.place or one.destructive_total for one in groups.values())
        return tuple(one for one in self.put if worth or not self.opens or one.id != self.id)


def govern(
    version: JobVersion,
    verdicts: Mapping[str, Sequence[Verdict]],
    deployments: Sequence[Deployment],
    now: datetime,
    *,
    stable: JobVersion | None = None,
    reverted: bool = False,
) -> Rollout:
    """What governs the changes of a job in *version*, given what its allocations are.

    *stable* is the version to go back to should it fail; *reverted*: *version* is one that was gone back to, which is
    done without canaries, and from which nothing goes back further.
    """
    if version.job.type != "service":
        return Rollout(version=version, progress=_progress(version.job, verdicts, None, now)[0])
    latest = max(deployments, key=lambda one: (one.created_at, one.job_version, one.is_active), default=None)
    if latest is not None and latest.is_active and latest.digest == version.digest:
        return _continue(version, verdicts, latest, now, None if reverted else stable)
    put = () if latest is None or not latest.is_active else (_closed(latest, "superseded", now),)
    progress, _, _ = _progress(version.job, verdicts, None, now)
    if latest is not None and latest.digest == version.digest:
        if latest.status != "failed":
            return Rollout(version=version, progress=progress)
        progress, _, _ = _progress(version.job, verdicts, latest, now)
        noted = {name: _noted(latest, name, one, version.job, now) for name, one in progress.items()}
        # Also where nobody went back yet: the policy may be younger than the failure.
        back = stable if version.job.update.auto_revert and not reverted else None
        return Rollout(
            version=version,
            progress=progress,
            halted=True,
            canaries={name: 0 for name, one in noted.items() if awaits_promotion(one)},
            reverts_to=None if back is None else back.version,
            reverts_because="" if back is None else _because(version, latest.reason),
        )
    # What is lost of a digest that runs already is mended, and that is no rollout.
    if not any(one.outdated or (one.missing and not one.began) for one in progress.values()):
        is_whole = not any(one.missing for one in progress.values())
        stable_version = version.version if is_whole else None
        return Rollout(version=version, progress=progress, put=put, stable_version=stable_version)
    opened = _opened(version, progress, now, canaries=0 if reverted else version.job.update.canary)
    if (unwritten := _unwritten(verdicts, version, deployments)) is not None:
        # Whoever wrote the state by hand left the rollout itself out: its allocations say that it is under way.
        opened = msgspec.structs.replace(opened, id=unwritten)
        under_way = _continue(version, verdicts, opened, now, None if reverted else stable)
        return msgspec.structs.replace(under_way, put=(*put, *(under_way.put or (opened,))))
    return Rollout(
        version=version,
        id=opened.id,
        opens=True,
        progress=progress,
        put=(*put, opened),
        canaries={name: one.desired_canaries for name, one in opened.groups.items() if awaits_promotion(one)},
        next_look=now + version.job.update.progress_deadline,
    )


def _unwritten(
    verdicts: Mapping[str, Sequence[Verdict]],
    version: JobVersion,
    deployments: Sequence[Deployment],
) -> DeploymentId | None:
    """The rollout that allocations of the wanted version name, where no deployment is written of that id."""
    known = {one.id for one in deployments}
    named = {
        one.allocation.deployment.id
        for group in version.job.groups
        for one in verdicts[group.name]
        if one.allocation.deployment is not None and one.allocation.job_version == version.version
    }
    return min(named - known, default=None)


def cancelled(deployments: Sequence[Deployment], now: datetime) -> tuple[Deployment, ...]:
    """The deployments of a job that ends, closed."""
    return tuple(_closed(one, "cancelled", now) for one in deployments if one.is_active)


def _continue(
    version: JobVersion,
    verdicts: Mapping[str, Sequence[Verdict]],
    active: Deployment,
    now: datetime,
    stable: JobVersion | None,
) -> Rollout:
    update = version.job.update
    progress, marked, looks = _progress(version.job, verdicts, active, now)
    promoted = promotes(version, active, {name: one.canaries for name, one in progress.items()}, verdicts)
    no_canaries_now = promoted_canaries(active, verdicts, marked) if promoted else []
    changed_ids = frozenset(one.id for one in no_canaries_now)
    marked = [*(one for one in marked if one.id not in changed_ids), *no_canaries_now]
    groups: dict[str, DeploymentGroup] = {}
    for name, one in progress.items():
        earlier = _noted(active, name, one, version.job, now)
        moved = one.healthy > earlier.healthy or (promoted and awaits_promotion(earlier))
        groups[name] = msgspec.structs.replace(
            earlier,
            desired_total=one.count,
            placed=one.healthy + one.waiting + one.unhealthy,
            healthy=one.healthy,
            unhealthy=one.unhealthy,
            promoted=earlier.promoted or (promoted and earlier.desired_canaries > 0),
            progress_at=now if moved else earlier.progress_at or now,
        )
    status, reason = _outcome(version.job, progress, groups, now)
    changed = msgspec.structs.replace(
        active, job_version=version.version, groups=groups, status=status, reason=reason
    )
    put = () if changed == active else (msgspec.structs.replace(changed, modified_at=now),)
    if status == "running":
        looks += [
            one.progress_at + update.progress_deadline
            for name, one in groups.items()
            if one.progress_at is not None
            and not progress[name].is_done
            and not _waits_for_people(one, progress[name])
            and update.progress_deadline
        ]
    failed = status == "failed"
    goes_back = failed and update.auto_revert and stable is not None
    return Rollout(
        version=version,
        id=active.id if status == "running" else None,
        progress=progress,
        halted=failed,
        put=put,
        updates=tuple(marked),
        promoted=changed_ids,
        canaries={
            name: 0 if failed else one.desired_canaries
            for name, one in groups.items()
            if status in {"running", "failed"} and awaits_promotion(one)
        },
        reverts_to=stable.version if goes_back and stable is not None else None,
        reverts_because=_because(version, reason) if goes_back else "",
        stable_version=version.version if status == "successful" else None,
        next_look=earliest(looks),
    )


def _because(version: JobVersion, reason: str) -> str:
    return f"version {version.version} ({version.digest}) failed: {reason}"


def _noted(held: Deployment, name: str, progress: GroupProgress, job: Job, now: datetime) -> DeploymentGroup:
    """What a deployment says of a group. What it leaves out follows from the version and from what was placed of it.

    Canaries are wanted only beside something older that they can be compared with.
    """
    noted = held.groups.get(name)
    if noted is None:
        noted = DeploymentGroup(desired_total=progress.count, desired_canaries=job.update.canary)
    return msgspec.structs.replace(
        noted,
        desired_canaries=noted.desired_canaries if noted.promoted or progress.compared else 0,
        progress_at=noted.progress_at or progress.decides_since or now,
    )


def _outcome(
    job: Job, progress: Mapping[str, GroupProgress], groups: Mapping[str, DeploymentGroup], now: datetime
) -> tuple[DeploymentStatus, str]:
    if all(one.is_done and not awaits_promotion(groups[name]) for name, one in progress.items()):
        return "successful", ""
    for name, one in sorted(progress.items()):
        if one.unhealthy and not job.update.progress_deadline:
            return "failed", f"an allocation of {name} is unhealthy"
        progress_at = groups[name].progress_at
        if one.is_done or progress_at is None or not job.update.progress_deadline:
            continue
        if _waits_for_people(groups[name], one):
            continue
        if now >= progress_at + job.update.progress_deadline:
            return "failed", f"{name} made no progress for {job.update.progress_deadline}"
    return "running", ""


def _waits_for_people(group: DeploymentGroup, progress: GroupProgress) -> bool:
    """Whether all that is missing is a promotion: that has no deadline."""
    return awaits_promotion(group) and progress.canaries >= group.desired_canaries


def _progress(
    job: Job, verdicts: Mapping[str, Sequence[Verdict]], active: Deployment | None, now: datetime
) -> tuple[dict[str, GroupProgress], list[Allocation], list[datetime | None]]:
    """Each group's progress, allocations whose health was decided just now, and when the next is due."""
    progress: dict[str, GroupProgress] = {}
    marked: list[Allocation] = []
    looks: list[datetime | None] = []
    for group in job.groups:
        digest = group_digest(job, group)
        counted = {"healthy": 0, "waiting": 0, "moving": 0, "unhealthy": 0, "outdated": 0, "canaries": 0}
        present = 0
        surplus = _surplus(job, group, verdicts[group.name])
        for verdict in verdicts[group.name]:
            held = verdict.allocation
            if verdict.standing in {"leaving", "foreign"}:
                continue
            present += verdict.standing not in {"replace", "rerun"} and not is_canary(held)
            if held.digest != digest:
                counted["outdated"] += verdict.standing in {"keep", "migrate"} and held.id not in surplus
                continue
            health = _decided(held, active, job, now)
            if active is not None and held.deployment is not None and held.deployment.id == active.id:
                if health is not held.deployment.healthy and health is not None:
                    marked.append(_marked(held, held.deployment, healthy=health, now=now))
                elif health is None:
                    looks.append(held.created_at + job.update.healthy_deadline)
            if verdict.standing in {"keep", "migrate", "done"}:
                counted["canaries"] += bool(health) and is_canary_of(held, active)
                counted[{True: "healthy", False: "unhealthy", None: "waiting"}[health]] += 1
                counted["moving"] += health is None and verdict.standing == "migrate"
            elif verdict.standing == "wait" and health is False:
                counted["unhealthy"] += 1
        progress[group.name] = GroupProgress(
            count=group.count,
            missing=max(0, _count(job, group, present) - present),
            began=any(one.allocation.digest == digest for one in verdicts[group.name]),
            compared=_is_compared(verdicts[group.name], digest, active, surplus),
            decides_since=_undecided_since(verdicts[group.name], active),
            **counted,
        )
    return progress, marked, looks


def _is_compared(
    verdicts: Sequence[Verdict], digest: str, active: Deployment | None, surplus: frozenset[AllocationId]
) -> bool:
    return any(
        is_canary_of(one.allocation, active)
        or (one.allocation.digest != digest and one.allocation.id not in surplus)
        for one in verdicts
        if one.standing != "foreign"
    )


def _undecided_since(verdicts: Sequence[Verdict], active: Deployment | None) -> datetime | None:
    if active is None:
        return None
    placed = [
        one.allocation.created_at
        for one in verdicts
        if one.allocation.deployment is not None
        and one.allocation.deployment.id == active.id
        and not one.allocation.deployment.healthy
    ]
    return max((moment for moment in placed if moment > active.created_at), default=None)


def _surplus(job: Job, group: TaskGroup, verdicts: Sequence[Verdict]) -> frozenset[AllocationId]:
    """What ends for a lower count: nobody rolls it, and no canary is compared with it."""
    if job.type not in {"service", "batch"}:
        return frozenset()
    standing = [
        one
        for one in verdicts
        if one.standing not in {"leaving", "foreign"} and not is_canary(one.allocation)
    ]
    kept, _ = one_for_each(standing, index_of)
    return frozenset(one.allocation.id for one in scale_down(kept, group.count)[1])


def _count(job: Job, group: TaskGroup, present: int) -> int:
    return group.count if job.type in {"service", "batch"} else present


def _decided(held: Allocation, active: Deployment | None, job: Job, now: datetime) -> bool | None:
    """Whether an allocation counts as healthy (True), unhealthy (False) or undecided in the rollout.

    Outside of a rollout it is what its tasks say now; inside, the first decision stays.
    """
    mine = held.deployment
    if mine is not None and mine.healthy is not None:
        return mine.healthy
    if held.client_status == "failed":
        return False
    if held.client_status == "running" and held.healthy is True:
        return True
    inside = active is not None and mine is not None and mine.id == active.id
    if inside and now >= held.created_at + job.update.healthy_deadline:
        return False
    return None


def _marked(held: Allocation, mine: DeploymentState, *, healthy: bool, now: datetime) -> Allocation:
    return msgspec.structs.replace(held, deployment=msgspec.structs.replace(mine, healthy=healthy, at=now))


def _opened(
    version: JobVersion, progress: Mapping[str, GroupProgress], now: datetime, *, canaries: int
) -> Deployment:
    """A rollout; canaries where something older runs that they can be compared with."""
    identity = f"{version.job.name} {version.version} {now.isoformat()}"
    return Deployment(
        id=DeploymentId(content_digest(identity.encode())),
        job=version.job.name,
        job_version=version.version,
        digest=version.digest,
        groups={
            name: DeploymentGroup(
                desired_total=one.count, desired_canaries=canaries if one.outdated else 0, progress_at=now
            )
            for name, one in progress.items()
        },
        created_at=now,
        modified_at=now,
    )


def _closed(deployment: Deployment, status: DeploymentStatus, now: datetime) -> Deployment:
    return msgspec.structs.replace(deployment, status=status, modified_at=now)
