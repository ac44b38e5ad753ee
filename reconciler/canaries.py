"""Canaries: the first of a rollout, placed beside what they may replace, and promoted by git or by their health.

Until then the group changes nothing else, and what is lost of the old version is replaced in the old version. Source:
Nomad's `computeCanaries` and `downgradeNonCanary`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from reconciler.rules import Verdict
from trueup.models.allocation import Allocation
from trueup.models.deployment import Deployment, DeploymentGroup
from trueup.models.record import JobVersion

_SHORTEST_NAME: Final = 7
"""How much of a digest or commit `promote` has to write at least, as git shortens them."""


def awaits_promotion(group: DeploymentGroup) -> bool:
    """Whether the group has canaries that are not promoted."""
    return group.desired_canaries > 0 and not group.promoted


def is_canary(held: Allocation) -> bool:
    """Whether it was placed as a canary and never promoted."""
    return held.deployment is not None and held.deployment.canary


def is_canary_of(held: Allocation, active: Deployment | None) -> bool:
    """Whether it is a canary of that rollout."""
    return (
        active is not None
        and held.deployment is not None
        and held.deployment.canary
        and held.deployment.id == active.id
    )


def promotes(
    version: JobVersion,
    active: Deployment,
    healthy: Mapping[str, int],
    verdicts: Mapping[str, Sequence[Verdict]],
) -> bool:
    """Whether the canaries of *active* are promoted now: all are healthy, and git says so or lets health decide.

    `promote` names the digest that is rolled out, or the commit whose version the canaries run; either may be
    shortened to seven characters.
    """
    waiting = {name: group for name, group in active.groups.items() if awaits_promotion(group)}
    if not waiting or any(healthy.get(name, 0) < group.desired_canaries for name, group in waiting.items()):
        return False
    update = version.job.update
    if update.auto_promote:
        return True
    if len(update.promote) < _SHORTEST_NAME:
        return False
    names = {active.digest}
    for found in verdicts.values():
        names.update(one.allocation.revision for one in found if is_canary_of(one.allocation, active))
    return any(name.startswith(update.promote) for name in names)


def promoted_canaries(
    active: Deployment, verdicts: Mapping[str, Sequence[Verdict]], marked: Sequence[Allocation]
) -> list[Allocation]:
    """The canaries of *active* as they are once promoted. *marked* are those already changed in this pass."""
    newest = {one.id: one for one in marked}
    found = []
    for one in (verdict.allocation for group in verdicts.values() for verdict in group):
        held = newest.get(one.id, one)
        if is_canary_of(held, active) and held.is_wanted and held.deployment is not None:
            promoted = msgspec.structs.replace(held.deployment, canary=False)
            found.append(msgspec.structs.replace(held, deployment=promoted))
    return found


def settled(
    verdicts: Mapping[str, Sequence[Verdict]], deployments: Sequence[Deployment]
) -> tuple[dict[str, list[Verdict]], list[Allocation]]:
    """*verdicts* in which canaries of a rollout that was promoted, or succeeded, are no more than others.

    With the allocations that this changes: what we wrote has none, as the promotion's own pass marks them.
    """
    by_id = {one.id: one for one in deployments}
    changed: list[Allocation] = []
    found: dict[str, list[Verdict]] = {}
    for name, group in verdicts.items():
        found[name] = []
        for verdict in group:
            held = verdict.allocation
            of = None if held.deployment is None else by_id.get(held.deployment.id)
            if held.deployment is not None and is_canary(held) and of is not None and _is_promoted(of, name):
                mine = msgspec.structs.replace(held.deployment, canary=False)
                held = msgspec.structs.replace(held, deployment=mine)
                changed.append(held)
                found[name].append(msgspec.structs.replace(verdict, allocation=held))
            else:
                found[name].append(verdict)
    return found, changed


def _is_promoted(deployment: Deployment, group: str) -> bool:
    of = deployment.groups.get(group)
    return deployment.status == "successful" or (of is not None and of.promoted)


def canary_indexes(
    outdated: Sequence[int], taken: Sequence[int], others: Sequence[int], missing: int
) -> list[int]:
    """The indexes of *missing* new canaries: those they may replace first, then free ones, the lowest first.

    *outdated* are indexes in an older version, *taken* those that canaries have, *others* all that are in use.
    """
    wanted = [index for index in sorted(outdated) if index not in taken][:missing]
    index = 0
    while len(wanted) < missing:
        if index not in taken and index not in others and index not in wanted:
            wanted.append(index)
        index += 1
    return wanted
