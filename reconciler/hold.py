"""When a revision is held whole because of what it would end, and the digest that lets exactly that loss happen.

The contract's rule: it would end, without a replacement, at least 3 running allocations, more than half of all, of
at least two jobs; or remove, suspend or empty a protected job; or leave no job of the last applied revision; or
remove more than half of at least 3 Node documents. A first revision is compared with what was adopted.
"""

from collections.abc import Mapping

from reconciler.ending import Loss, ended_by
from trueup.models.allocation import Allocation
from trueup.models.digest import content_digest
from trueup.models.job import Job
from trueup.models.revision import Held


def held_for(loss: Loss) -> Held | None:
    """Why the revision is held, or None. A `confirm` that names the digest of exactly this loss lets it through."""
    ended = ended_by(loss)
    applied = _applied_jobs(loss)
    gone = [name for name in applied if name not in loss.wanted]
    protected = _protected_names(loss, applied)
    reason = (
        _no_job_left(loss, applied, gone)
        or _protected(protected)
        or _frozen(applied, gone)
        or _too_much(loss, ended)
        or _nodes_removed(loss)
    )
    if reason is None:
        return None
    digest = _digest(loss, ended, {*gone, *protected})
    if loss.settings.confirm == digest:
        return None
    removes = tuple(sorted({*gone, *(held.job for held in ended), *protected}))
    return Held(revision=loss.revision, reason=reason, removes=removes, confirm=digest)


def confirming_document(held: Held) -> str:
    """The document to paste into the source to let exactly this loss happen."""
    return f"kind: Cluster\nname: cluster\nconfirm: {held.confirm}\n"


def _digest(loss: Loss, ended: list[Allocation], jobs: set[str]) -> str:
    """Of *jobs* that end as a whole, and of what else ends by name.

    Not of what comes and goes by itself while somebody reads and confirms: the instances of a job that ends as a
    whole, and runs of a schedule.
    """
    parts = [held for held in ended if held.job not in jobs and held.run is None]
    names = sorted({*jobs, *(held.job for held in parts)})
    lines = [f"job {name} {_version(loss, name)}" for name in names]
    lines += sorted({f"allocation {_known_as(loss, held)}" for held in parts})
    lines += [f"node {name}" for name in loss.removed_policies]
    return content_digest("\n".join(lines).encode())


def _applied_jobs(loss: Loss) -> dict[str, Job]:
    found = {}
    for name in loss.state.job_names():
        job = loss.state.wanted_job(name)
        if job is not None:
            found[name] = job
    return found


def _known_as(loss: Loss, held: Allocation) -> str:
    """Its name, and its node where a job that stays has one of that name on every node."""
    job = loss.wanted.get(held.job)
    per_node = job is not None and job.type in {"system", "sysbatch"}
    return f"{held.name} on {held.node}" if per_node else held.name


def _is_running(held: Allocation) -> bool:
    return held.client_status in {"running", "pending", "unknown"}


def _version(loss: Loss, job: str) -> int:
    """A job that comes back has a new one, so that what once confirmed its removal does not do so again."""
    record = loss.state.jobs.get(job)
    return 0 if record is None else record.version


def _no_job_left(loss: Loss, applied: Mapping[str, Job], gone: list[str]) -> str | None:
    if not applied and loss.state.revision is None:
        adopted = sorted({held.job for held in list(loss.state.allocations.values()) if held.is_wanted})
        if not adopted or any(name in loss.wanted or name in loss.unknown for name in adopted):
            return None
        return f"no job of what was adopted would remain ({', '.join(adopted[:5])})"
    if not applied or len(gone) < len(applied):
        return None
    return f"no job of the last applied revision would remain ({', '.join(gone[:5])})"


def _protected_names(loss: Loss, applied: Mapping[str, Job]) -> list[str]:
    """Protected jobs that go (a change of type is a deletion too), or of which nothing would run any more."""
    found = []
    for name, job in applied.items():
        if not job.protect:
            continue
        wanted = loss.wanted.get(name)
        ends = wanted is None or wanted.type != job.type or (_is_idle(wanted) and not _is_idle(job))
        if ends:
            found.append(name)
    return found


def _is_idle(job: Job) -> bool:
    return job.suspended or all(group.count == 0 for group in job.groups)


def _protected(names: list[str]) -> str | None:
    return f"protected jobs would end: {', '.join(names)}" if names else None


def _frozen(applied: Mapping[str, Job], gone: list[str]) -> str | None:
    """A frozen job whose document is removed runs on until it is confirmed."""
    names = [name for name in gone if applied[name].frozen]
    return f"frozen jobs would be removed: {', '.join(names)}" if names else None


def _too_much(loss: Loss, ended: list[Allocation]) -> str | None:
    hold = loss.state.settings.hold
    if hold == "off":
        return None
    running = sum(1 for held in list(loss.state.allocations.values()) if held.is_wanted and _is_running(held))
    ending = [held for held in ended if _is_running(held)]
    jobs = {held.job for held in ending}
    if len(ending) < 3 or len(jobs) < hold.jobs or len(ending) * 100 <= running * hold.stops_percent:
        return None
    return f"{len(ending)} of {running} running allocations of {len(jobs)} jobs would end"


def _nodes_removed(loss: Loss) -> str | None:
    known, removed = len(loss.state.node_policies), len(loss.removed_policies)
    if known < 3 or removed * 2 <= known:
        return None
    return f"{removed} of {known} Node documents would be removed"
