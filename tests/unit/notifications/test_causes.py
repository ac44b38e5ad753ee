"""What needs a person, told from the state."""

from datetime import timedelta

import msgspec
import pytest

from tests.builders import NOON, a_job, a_node, a_record, a_version, an_allocation
from trueup.models.errors import SpecError
from trueup.models.evaluation import UnplacedGroup
from trueup.models.ids import RevisionId
from trueup.models.job import Job, Schedule
from trueup.models.revision import Held, SourceStatus
from trueup.models.state import ClusterState
from trueup.notifications.causes import cluster_causes, job_causes


def a_state(*jobs: Job, **record: object) -> ClusterState:
    state = ClusterState()
    for job in jobs:
        state.put_version(a_version(job))
        state.jobs[job.name] = msgspec.structs.replace(a_record(job), **record)
    return state


def words(state: ClusterState) -> set[tuple[str, str]]:
    found = [one for name in state.jobs for one in job_causes(state, name)]
    return {tuple(one.key) for one in [*found, *cluster_causes(state)]}  # type: ignore[misc]


NIGHTLY = a_job("backup", type="batch", schedule=Schedule(cron="0 3 * * *"))


def test_nothing_is_wrong() -> None:
    """A healthy job, a ready node, a source that can be read: nobody is called."""
    state, job, node = a_state(a_job()), a_job(), a_node()
    state.nodes[node.id] = node
    state.put_allocation(an_allocation(job, node))
    assert words(state) == set()


def test_degraded() -> None:
    """The message is the one that status has."""
    state, job = a_state(a_job()), a_job()
    state.put_allocation(an_allocation(job, a_node(), client_status="failed"))
    (cause,) = job_causes(state, "web")
    assert (cause.key.cause, cause.job, cause.message) == ("Degraded", "web", "failed: web.app[0]")


def test_no_room() -> None:
    """What found no room is told with the reasons."""
    state = a_state(
        a_job(), unplaced=(UnplacedGroup(group="app", count=1, reasons={"insufficient memory": 2}),)
    )
    (cause,) = job_causes(state, "web")
    assert cause.key.cause == "unplaced"
    assert "insufficient memory (2)" in cause.message


def test_documents_with_errors() -> None:
    """One a document, whatever it is of, with its first error and the number of the others."""
    errors = tuple(
        SpecError(file=file, line=line, column=1, message="unknown key", name=name)
        for file, line, name in (("web.yaml", 3, "web"), ("web.yaml", 9, "web"), ("broken.yaml", 1, ""))
    )
    state = a_state(a_job(), invalid=True)
    state.errors = errors
    assert words(state) == {("Invalid", "web"), ("Invalid", "broken.yaml")}
    assert cluster_causes(state)[0].message == "web.yaml:3:1: unknown key (and 1 more)"


def test_source_held_and_nodes() -> None:
    """What is of no job."""
    state = a_state()
    state.source = SourceStatus(kind="git", url="https://x", error="it cannot be reached")
    state.held = Held(revision=RevisionId("f" * 40), reason="it ends 9 of 10", confirm="abc")
    for node in (
        a_node("a", status="down"),
        a_node("b", status="disconnected"),
        a_node("c", status="down", lost=True),
    ):
        state.nodes[node.id] = node
    assert words(state) == {("Unknown", ""), ("held", "abc"), ("node-down", "a"), ("node-down", "b")}


@pytest.mark.parametrize(
    ("ran", "status", "expected"),
    [
        (None, "", set()),
        (NOON, "complete", set()),
        (NOON, "failed", {("Degraded", "backup"), ("run-failed", "backup")}),
        (NOON - timedelta(days=1), "complete", {("run-missed", "backup")}),
    ],
)
def test_runs_of_a_schedule(ran: object, status: str, expected: set[tuple[str, str]]) -> None:
    """The last run failed; or the newest time of the schedule passed without one."""
    state = a_state(NIGHTLY, last_run_at=None if ran is None else NOON)
    if ran is not None:
        state.put_allocation(an_allocation(NIGHTLY, a_node(), client_status=status, run=ran))
    assert words(state) == expected


def test_a_job_that_is_gone() -> None:
    """Nobody is told of a job that was removed, or is not known."""
    state = a_state(a_job(), removed=True, unplaced=(UnplacedGroup(group="app", count=1),))
    assert job_causes(state, "web") == job_causes(state, "nobody") == []
