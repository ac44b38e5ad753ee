"""What `trueup wait` makes of what it sees: done, failed with the cause, or worth waiting on. Pure.

The contract's rule: done once the revision is applied (or an ancestor of what is), Synced and Healthy; failed at once
when it is held, Invalid, or its version failed. A Degraded that is older than the version is waited out.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from cli.views import AllocationView, DeploymentView, JobView, NodeView, RevisionView, StatusView, short_id
from cli.wording import held_words
from trueup.models.codec import from_plain
from trueup.models.errors import SpecError
from trueup.models.job import Job, reschedule_policy

IsAncestor = Callable[[str, str], bool | None]
"""Whether the first commit is the second or an ancestor of it; None where nobody can tell."""

_MAX_ERRORS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do, and *words* that say why: what is done, the cause of a failure, or what is waited for."""

    kind: Literal["done", "failed", "waiting"]
    words: str = ""


def done(words: str = "") -> Verdict:
    """There is nothing left to wait for."""
    return Verdict(kind="done", words=words)


def failed(words: str) -> Verdict:
    """Waiting longer will not help."""
    return Verdict(kind="failed", words=words)


def waiting(words: str) -> Verdict:
    """Not yet."""
    return Verdict(kind="waiting", words=words)


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on several things together: one failure fails all, one that waits keeps all waiting."""
    found = list(verdicts)
    for kind in ("failed", "waiting"):
        words = [one.words for one in found if one.kind == kind]
        if words:
            return Verdict(kind="failed" if kind == "failed" else "waiting", words="; ".join(words))
    return done("\n".join(one.words for one in found if one.words))


def judge_revision(
    wanted: str, status: StatusView, known: RevisionView | None, is_ancestor: IsAncestor
) -> Verdict:
    """Whether revision *wanted* is applied. *known* is what the control plane remembers of it.

    A directory's revisions have no ancestors: only the very same content counts.
    """
    name, applied = short_id(wanted), status.revision or ""
    # Before all else: what is held or invalid now may be a later commit, and what was is over by a later one.
    has_order = bool(applied) and not wanted.startswith("dir-")
    related = is_ancestor(wanted, applied) if has_order else None
    if applied == wanted or related:
        return done()
    held = status.held
    if held is not None and held.revision == wanted:
        return failed(held_words(held))
    if known is not None and known.state == "invalid":
        return failed(_invalid_words(name, known.errors))
    if has_order and known is not None and known.applied_at is not None:
        if related is None:
            return done()
        return failed(f"revision {name} was applied, but {short_id(applied)} is, which does not contain it")
    if held is not None and is_ancestor(wanted, held.revision) is True:
        return failed(held_words(held))
    if status.source.error:
        return waiting(f"revision {name}: the source cannot be read: {status.source.error}")
    return waiting(f"revision {name} is {'not yet applied' if known is not None else 'not seen yet'}")


def judge_errors(known: RevisionView, status: StatusView) -> Verdict:
    """Whether every document of the revision was valid, or is by what was applied since."""
    still = {(one.file, one.path, one.message) for one in status.errors}
    errors = [one for one in known.errors if (one.file, one.path, one.message) in still]
    return failed(_invalid_words(short_id(known.id), errors)) if errors else done()


def judge_job(
    job: JobView,
    rollout: DeploymentView | None,
    allocations: Sequence[AllocationView],
    *,
    later_is_held: bool = False,
) -> Verdict:
    """Whether a job is Synced and Healthy. *rollout* is its newest one.

    *later_is_held*: what keeps it OutOfSync is that a commit after the one waited for is held.
    """
    if job.removed:
        return done() if job.status == "dead" else waiting(f"{job.name} is stopping")
    sync = "Synced" if job.sync == "OutOfSync" and later_is_held else job.sync
    if sync == "Invalid" or (sync == "OutOfSync" and not job.reason.startswith("not yet planned")):
        return failed(f"{job.name} is {job.sync}: {job.reason}")
    if sync != "Synced":
        return waiting(f"{job.name} is {job.sync}: {job.reason}")
    if job.health in {"Healthy", "Suspended"}:
        return done()
    # Before the rollout, which goes on until its deadline although nothing is tried again.
    if job.health == "Degraded" and (cause := _final_failure(job, allocations)):
        return failed(f"{job.name}, version {job.version}, failed: {cause}")
    if rollout is not None and rollout.job_version == job.version:
        verdict = _judge_rollout(job, rollout)
        if verdict is not None:
            return verdict
    return waiting(f"{job.name} is {job.health}" + (f": {job.reason}" if job.reason else ""))


def judge_drained(node: NodeView, allocations: Sequence[AllocationView]) -> Verdict:
    """Whether nothing runs on the node any more."""
    left = [held for held in allocations if not held.has_ended]
    if not left:
        return done(f"node {node.name} is empty")
    asked = "" if node.drain is not None else " (no document drains it)"
    names = ", ".join(held.name for held in left[:5]) + (", …" if len(left) > 5 else "")
    return waiting(f"node {node.name} holds {len(left)}: {names}{asked}")


def _judge_rollout(job: JobView, rollout: DeploymentView) -> Verdict | None:
    if rollout.status == "failed":
        return failed(f"{job.name}, version {job.version}, failed: {rollout.reason or job.reason}")
    if rollout.status not in {"running", "paused"}:
        return None
    groups = [group for group in rollout.groups.values() if group.desired_canaries and not group.promoted]
    automatic = job.spec.get("update", {}).get("auto_promote", False)
    if groups and not automatic and all(group.healthy >= group.desired_canaries for group in groups):
        return done(
            f"{job.name}: the canaries of version {job.version} are healthy and wait for promotion; "
            f'to go on, commit `update: {{promote: "{job.digest}"}}`'
        )
    return waiting(
        f"{job.name} is {job.health}: {job.reason or f'version {job.version} is being rolled out'}"
    )


def _final_failure(job: JobView, allocations: Sequence[AllocationView]) -> str:
    """Which allocation of this version failed for good, and how; empty if none did, or another try is due."""
    for held in allocations:
        if held.job_version != job.version or held.desired_status != "run" or held.client_status != "failed":
            continue
        if not _is_tried_again(job, held):
            return f"{held.name} on {held.node}{_how(held)}"
    return ""


def _is_tried_again(job: JobView, held: AllocationView) -> bool:
    try:
        spec = from_plain(job.spec, Job)
    except msgspec.ValidationError:
        return False
    group = spec.group(held.group)
    if group is None or spec.type in {"system", "sysbatch"}:
        return False
    policy = reschedule_policy(spec.type, group)
    return policy.unlimited or len(held.reschedule_events) < policy.attempts


def _how(held: AllocationView) -> str:
    for name, task in sorted(held.tasks.items()):
        if task.failed:
            last = f", {task.events[-1].message}" if task.events and task.events[-1].message else ""
            code = f" with exit code {task.exit_code}" if task.exit_code is not None else ""
            return f": task {name} failed{code}{last}"
    return f": {held.reason}" if held.reason else ""


def _invalid_words(name: str, errors: Sequence[SpecError]) -> str:
    shown = [f"\n  {error}" for error in errors[:_MAX_ERRORS]]
    more = f"\n  and {len(errors) - _MAX_ERRORS} more" if len(errors) > _MAX_ERRORS else ""
    return f"revision {name} has {len(errors)} {'error' if len(errors) == 1 else 'errors'}:{''.join(shown)}{more}"
