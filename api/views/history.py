"""What happened, as the API shows it: revisions, evaluations, events, deployments."""

from datetime import datetime
from typing import Literal

import msgspec

from api.views.job import UnplacedView
from trueup.models.deployment import Deployment, DeploymentStatus
from trueup.models.errors import SpecError
from trueup.models.evaluation import Evaluation, Event
from trueup.models.revision import Held, Revision, RevisionState


class ErrorView(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a document, and where: 1-based, relative to its root."""

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str


class HeldView(msgspec.Struct, frozen=True, kw_only=True):
    """A revision that waits: why, which jobs it would end, and the `Cluster.confirm` that lets exactly that happen."""

    revision: str
    reason: str
    removes: tuple[str, ...]
    confirm: str


class ChangedJobsView(msgspec.Struct, frozen=True, kw_only=True):
    """Names of the jobs a revision touched."""

    created: tuple[str, ...]
    updated: tuple[str, ...]
    removed: tuple[str, ...]
    invalid: tuple[str, ...]


class RevisionView(msgspec.Struct, frozen=True, kw_only=True):
    """One state of the spec source."""

    id: str
    parent: str | None
    author: str
    author_email: str
    subject: str
    committed_at: datetime | None
    seen_at: datetime
    applied_at: datetime | None
    state: RevisionState
    jobs: ChangedJobsView
    errors: tuple[ErrorView, ...]
    held: HeldView | None


class EvaluationView(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over one job."""

    id: str
    job: str
    job_version: int | None
    revision: str
    trigger: str
    status: Literal["complete", "blocked", "failed", "partial"]
    placed: int
    stopped: int
    unplaced: tuple[UnplacedView, ...]
    error: str
    created_at: datetime


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened; *index* is the change it came with."""

    index: int
    at: datetime
    type: str
    message: str
    job: str
    allocation: str
    node: str
    revision: str


class DeploymentGroupView(msgspec.Struct, frozen=True, kw_only=True):
    """One group's part in a rollout."""

    desired_total: int
    desired_canaries: int
    promoted: bool
    placed: int
    healthy: int
    unhealthy: int
    progress_at: datetime | None


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout of one job version."""

    id: str
    job: str
    job_version: int
    digest: str
    status: DeploymentStatus
    reason: str
    groups: dict[str, DeploymentGroupView]
    created_at: datetime
    modified_at: datetime


def error_view(error: SpecError) -> ErrorView:
    """One error of a document."""
    return ErrorView(
        file=error.file,
        line=error.line,
        column=error.column,
        path=error.path,
        message=error.message,
        hint=error.hint,
    )


def held_view(held: Held | None) -> HeldView | None:
    """What is held, if anything is."""
    if held is None:
        return None
    return HeldView(revision=held.revision, reason=held.reason, removes=held.removes, confirm=held.confirm)


def revision_view(revision: Revision) -> RevisionView:
    """One revision."""
    return RevisionView(
        id=revision.id,
        parent=revision.parent,
        author=revision.author,
        author_email=revision.author_email,
        subject=revision.subject,
        committed_at=revision.committed_at,
        seen_at=revision.seen_at,
        applied_at=revision.applied_at,
        state=revision.state,
        jobs=ChangedJobsView(
            created=revision.jobs.created,
            updated=revision.jobs.updated,
            removed=revision.jobs.removed,
            invalid=revision.jobs.invalid,
        ),
        errors=tuple(error_view(error) for error in revision.errors),
        held=held_view(revision.held),
    )


def evaluation_view(evaluation: Evaluation) -> EvaluationView:
    """One evaluation."""
    return EvaluationView(
        id=evaluation.id,
        job=evaluation.job,
        job_version=evaluation.job_version,
        revision=evaluation.revision,
        trigger=evaluation.trigger,
        status=evaluation.status,
        placed=evaluation.placed,
        stopped=evaluation.stopped,
        unplaced=tuple(
            UnplacedView(group=group.group, count=group.count, reasons=group.reasons)
            for group in evaluation.unplaced
        ),
        error=evaluation.error,
        created_at=evaluation.created_at,
    )


def event_view(event: Event, index: int) -> EventView:
    """One event, with the index of the change it came with."""
    return EventView(
        index=index,
        at=event.at,
        type=event.type,
        message=event.message,
        job=event.job,
        allocation=event.allocation,
        node=event.node,
        revision=event.revision,
    )


def deployment_view(deployment: Deployment) -> DeploymentView:
    """One deployment."""
    return DeploymentView(
        id=deployment.id,
        job=deployment.job,
        job_version=deployment.job_version,
        digest=deployment.digest,
        status=deployment.status,
        reason=deployment.reason,
        groups={
            name: DeploymentGroupView(
                desired_total=group.desired_total,
                desired_canaries=group.desired_canaries,
                promoted=group.promoted,
                placed=group.placed,
                healthy=group.healthy,
                unhealthy=group.unhealthy,
                progress_at=group.progress_at,
            )
            for name, group in deployment.groups.items()
        },
        created_at=deployment.created_at,
        modified_at=deployment.modified_at,
    )
