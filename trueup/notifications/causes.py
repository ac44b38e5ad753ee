"""What needs a person, told from the state: the words of `Cluster.notifications`' `on`, each about one subject. Pure.

A cause is a level: it is there or it is not, whoever looks and how often. So what was missed is seen by the next look.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from trueup.models.health import job_health
from trueup.models.record import JobRecord
from trueup.models.state import ClusterState


class Key(NamedTuple):
    """What makes two causes one: the word, and the job, node, file or held loss that it is about."""

    cause: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One cause and its *message* for people, which is what `trueup status` says too."""

    key: Key
    message: str
    job: str = ""
    node: str = ""


def job_causes(state: ClusterState, name: str) -> list[Cause]:
    """What is wrong with one job; nothing if it is unknown or removed."""
    record = state.jobs.get(name)
    if record is None or record.removed or state.current_version(name) is None:
        return []
    return [
        Cause(key=Key(cause, name), message=message, job=name) for cause, message in _of_job(state, record)
    ]


def cluster_causes(state: ClusterState) -> list[Cause]:
    """What is wrong with the source, the revision, documents and nodes."""
    found = []
    if state.source.error:
        found.append(Cause(key=Key("Unknown", ""), message=state.source.error))
    if state.held is not None:
        held = state.held
        message = (
            f"revision {held.revision[:12]} is held: {held.reason}; `confirm: {held.confirm}` lets it happen"
        )
        found.append(Cause(key=Key("held", held.confirm or held.revision), message=message))
    found += _documents(state)
    found += [
        Cause(key=Key("node-down", node.name), message=f"node {node.name} is {node.status}", node=node.name)
        for node in list(state.nodes.values())
        if node.status in {"down", "disconnected"} and not node.lost
    ]
    return found


def _documents(state: ClusterState) -> list[Cause]:
    """One for each document with errors, however many it has."""
    by_subject: dict[str, list[str]] = {}
    for error in state.errors:
        by_subject.setdefault(error.name or error.file, []).append(str(error))
    found = []
    for subject, errors in by_subject.items():
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        job = subject if subject in state.jobs else ""
        found.append(Cause(key=Key("Invalid", subject), message=errors[0] + more, job=job))
    return found


def _of_job(state: ClusterState, record: JobRecord) -> Iterator[tuple[str, str]]:
    health = job_health(state, record.name)
    job = state.versions[record.name, record.version].job
    if record.invalid:
        yield "Invalid", "its newest document has errors; the last good version stays"
    if record.unplaced:
        yield "unplaced", health.reason
    if health.health == "Degraded":
        yield "Degraded", health.reason
        if job.type in {"batch", "sysbatch"} and not record.unplaced and not record.error:
            yield "run-failed", health.reason
    if job.schedule is not None and not job.suspended and _missed(state, record, job.schedule.keep):
        yield "run-missed", f"the run of {record.last_run_at:%Y-%m-%d %H:%M} UTC was left out"


def _missed(state: ClusterState, record: JobRecord, keep: int) -> bool:
    """Whether the newest scheduled time passed without a run: no server was there, or the one before still ran.

    With `keep: 0` nothing says whether it ran.
    """
    at = record.last_run_at
    if at is None or keep == 0 or record.unplaced:
        return False
    return all(held.run is None or held.run < at for held in state.allocations_of_job(record.name))
