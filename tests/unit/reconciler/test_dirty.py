"""Which jobs are looked at again after a change: those it may concern, and no others."""

from datetime import timedelta

import msgspec
import pytest

from reconciler.dirty import DirtyJobs
from tests.builders import NOON, a_job, a_node, a_state, an_allocation
from trueup.models.commit import Committed
from trueup.models.evaluation import UnplacedGroup
from trueup.models.state import ClusterState


@pytest.fixture
def state() -> ClusterState:
    """Eleven jobs: a blocked one, a system job, one that depends on `base` and waits, and seven that just run."""
    plain = [a_job(f"plain-{number}") for number in range(7)]
    jobs = (
        a_job("base"),
        a_job("blocked"),
        a_job("every", type="system"),
        a_job("top", depends_on=("base",)),
    )
    made = a_state(nodes=(a_node(),), jobs=(*jobs, *plain))
    for name in ("blocked", "top"):
        unplaced = (UnplacedGroup(group="app", count=1),)
        made.jobs[name] = msgspec.structs.replace(made.jobs[name], unplaced=unplaced)
    return made


@pytest.fixture
def dirty(state: ClusterState) -> DirtyJobs:
    """Marks of which none is left."""
    made = DirtyJobs()
    made.mark_all(state)
    assert len(made.take(state, NOON)) == len(state.jobs)
    return made


def committed(*jobs: str, nodes: tuple[str, ...] = (), freed: bool = False) -> Committed:
    return Committed(
        index=2,
        jobs=frozenset(jobs),
        nodes=frozenset(nodes),  # type: ignore[arg-type]
        outbox=frozenset(),
        room_freed=freed,
    )


def taken(dirty: DirtyJobs, state: ClusterState, one: Committed) -> list[str]:
    dirty.note(one)
    return sorted(dirty.take(state, NOON))


def test_a_changed_job_is_looked_at_alone(dirty: DirtyJobs, state: ClusterState) -> None:
    assert taken(dirty, state, committed("plain-1")) == ["plain-1"]
    assert dirty.take(state, NOON) == []


def test_what_found_no_room_is_looked_at_when_room_is_freed(dirty: DirtyJobs, state: ClusterState) -> None:
    assert taken(dirty, state, committed("plain-1", freed=True)) == ["blocked", "every", "plain-1", "top"]


def test_what_waits_for_a_job_is_looked_at_when_that_changes(dirty: DirtyJobs, state: ClusterState) -> None:
    assert taken(dirty, state, committed("base")) == ["base", "top"]
    state.jobs["top"] = msgspec.structs.replace(state.jobs["top"], unplaced=())
    assert taken(dirty, state, committed("top")) == ["top"]
    assert taken(dirty, state, committed("base")) == ["base"], "it waits no more"


def test_a_removed_job_is_looked_at_when_its_dependant_ends(dirty: DirtyJobs, state: ClusterState) -> None:
    for name in ("base", "top"):
        state.jobs[name] = msgspec.structs.replace(state.jobs[name], removed=True)
    assert taken(dirty, state, committed("top")) == ["base", "top"]


def test_a_node_that_changes_concerns_what_it_holds(dirty: DirtyJobs, state: ClusterState) -> None:
    state.put_allocation(an_allocation(a_job("plain-3"), a_node()))
    assert taken(dirty, state, committed(nodes=(a_node().id,))) == ["blocked", "every", "plain-3", "top"]


def test_a_timer_marks_its_job_once_and_the_latest_counts(dirty: DirtyJobs, state: ClusterState) -> None:
    dirty.look_at("plain-1", NOON + timedelta(seconds=5))
    dirty.look_at("plain-1", NOON + timedelta(seconds=9))
    dirty.look_at("plain-2", NOON + timedelta(seconds=7))
    dirty.look_at("plain-2", None)
    assert dirty.next_due() == NOON + timedelta(seconds=9)
    assert dirty.take(state, NOON + timedelta(seconds=8)) == []
    assert dirty.take(state, NOON + timedelta(seconds=9)) == ["plain-1"]
    assert dirty.next_due() is None


def test_removed_jobs_come_first_then_the_more_important(dirty: DirtyJobs, state: ClusterState) -> None:
    state.jobs["plain-6"] = msgspec.structs.replace(state.jobs["plain-6"], removed=True)
    state.put_version(
        msgspec.structs.replace(state.versions["plain-5", 1], job=a_job("plain-5", priority=80))
    )
    dirty.note(committed("plain-1", "plain-5", "plain-6"))
    assert dirty.take(state, NOON) == ["plain-6", "plain-5", "plain-1"]
