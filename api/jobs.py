"""`/jobs`: desired against actual, per group, with versions, allocations, evaluations and deployments."""

from collections.abc import Sequence
from typing import Final, get_args

from api.allocations import CLIENT_STATUSES, matching
from api.ask import Ask
from api.evaluations import evaluation_page
from api.paging import Page, page_of
from api.problems import not_found
from api.routing import PAGING, REVERSE, Parameter, Route, by_node, by_revision, by_status
from api.views.allocation import AllocationView
from api.views.history import DeploymentView, EvaluationView, deployment_view
from api.views.job import JobView, VersionView, job_view, version_view
from trueup.models.health import JobStatus, job_health
from trueup.models.job import JobType
from trueup.models.record import JobRecord
from trueup.models.state_document import allocation_document

JOB_TYPES: Final[tuple[str, ...]] = get_args(JobType)
JOB_STATUSES: Final[tuple[str, ...]] = get_args(JobStatus)


def list_jobs(ask: Ask) -> Page[JobView]:
    """All jobs by name."""
    state, now = ask.state, ask.deps.clock.now()
    kind = ask.choice("type", JOB_TYPES)
    status = ask.choice("status", JOB_STATUSES)
    revision = ask.text("revision")
    found = (
        name
        for name, record in state.jobs.items()
        if (revision is None or record.revision == revision)
        and (kind is None or state.versions[name, record.version].job.type == kind)
        and (status is None or job_health(state, name).status == status)
    )
    return page_of(
        found,
        key=lambda name: (name,),
        cursor=ask.cursor,
        limit=ask.limit,
        show=lambda name: job_view(state, name, now),
    )


def show_job(ask: Ask, name: str) -> JobView:
    """One job."""
    _record(ask, name)
    return job_view(ask.state, name, ask.deps.clock.now())


def list_versions(ask: Ask, name: str) -> Page[VersionView]:
    """Every version of a job that is still known, oldest first."""
    _record(ask, name)
    return page_of(
        (version for (job, _), version in ask.state.versions.items() if job == name),
        key=lambda version: (version.version,),
        cursor=ask.cursor,
        limit=ask.limit,
        show=version_view,
    )


def list_job_allocations(ask: Ask, name: str) -> Page[AllocationView]:
    """A job's allocations, by name and age."""
    _record(ask, name)
    return page_of(
        matching(ask, ask.state.allocations_of_job(name)),
        key=lambda held: (held.name, held.created_at.isoformat(), held.id),
        cursor=ask.cursor,
        limit=ask.limit,
        show=allocation_document,
    )


def list_job_evaluations(ask: Ask, name: str) -> Page[EvaluationView]:
    """Passes over a job."""
    _record(ask, name)
    return evaluation_page(ask, job=name)


def list_deployments(ask: Ask, name: str) -> Page[DeploymentView]:
    """A job's rollouts, by job version."""
    _record(ask, name)
    return page_of(
        ask.state.deployments_of_job(name),
        key=lambda held: (held.job_version, held.created_at.isoformat(), held.id),
        cursor=ask.cursor,
        limit=ask.limit,
        show=deployment_view,
    )


def _record(ask: Ask, name: str) -> JobRecord:
    record = ask.state.jobs.get(name)
    if record is None:
        raise not_found(f"there is no job {name!r}; /jobs lists those there are")
    return record


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/jobs",
        handler=list_jobs,
        about="All jobs by name, desired against actual per group.",
        answer=Page[JobView],
        parameters=(
            Parameter(name="type", about="Only jobs of this type.", choices=JOB_TYPES),
            by_status(JOB_STATUSES),
            by_revision(),
            *PAGING,
        ),
        waits=True,
    ),
    Route(path="/jobs/<name>", handler=show_job, about="One job.", answer=JobView, waits=True),
    Route(
        path="/jobs/<name>/versions",
        handler=list_versions,
        about="Versions of a job, oldest first.",
        answer=Page[VersionView],
        parameters=PAGING,
        waits=True,
    ),
    Route(
        path="/jobs/<name>/allocations",
        handler=list_job_allocations,
        about="Allocations of a job, by name and age.",
        answer=Page[AllocationView],
        parameters=(by_node(), by_status(CLIENT_STATUSES), by_revision(), *PAGING),
        waits=True,
    ),
    Route(
        path="/jobs/<name>/evaluations",
        handler=list_job_evaluations,
        about="Passes over a job, oldest first.",
        answer=Page[EvaluationView],
        parameters=(by_revision(), *PAGING, REVERSE),
        waits=True,
    ),
    Route(
        path="/jobs/<name>/deployments",
        handler=list_deployments,
        about="Rollouts of a job, by job version.",
        answer=Page[DeploymentView],
        parameters=PAGING,
        waits=True,
    ),
)
