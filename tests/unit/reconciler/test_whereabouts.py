"""Why an allocation runs where it runs: the very scores and reasons of the planner."""

from datetime import timedelta

import pytest

from reconciler.changes import Place
from reconciler.room import Room
from reconciler.search import Search
from reconciler.whereabouts import whereabouts
from tests.builders import NOON, a_group, a_job, a_node, a_record, a_version, an_allocation
from trueup.models.job import Affinity, Constraint, Job, Spread
from trueup.models.state import ClusterState


def a_state(job: Job, *nodes: tuple[str, dict[str, object]]) -> ClusterState:
    state = ClusterState()
    state.put_version(a_version(job))
    state.jobs[job.name] = a_record(job)
    for name, fields in nodes:
        node = a_node(name, **fields)  # type: ignore[arg-type]
        state.nodes[node.id] = node
    return state


def test_the_node_that_the_planner_chose() -> None:
    """The score is the one it was placed by, its parts sum to it, and each other node is counted once."""
    job = a_job(
        groups=(
            a_group(
                count=2,
                affinities=(Affinity(attribute="node.labels.disk", operator="=", value="ssd", weight=50),),
                spreads=(Spread(attribute="node.region", weight=50),),
                constraints=(Constraint(attribute="node.labels.old", operator="is_not_set"),),
            ),
        )
    )
    state = a_state(
        job,
        ("fast", {"labels": {"disk": "ssd"}}),
        ("slow", {}),
        ("old", {"labels": {"old": "yes"}}),
        ("older", {"labels": {"old": "yes"}}),
        ("away", {"status": "down"}),
        ("small", {"memory": "1MiB"}),
    )
    version = state.versions["web", 1]
    place = Place(version=version, group=version.job.groups[0], index=0)
    chosen = Search(place, Room(state)).best(place)
    assert chosen is not None
    assert chosen.node.name == "fast"
    held = an_allocation(job, chosen.node)
    state.put_allocation(held)
    found = whereabouts(state, held)
    assert found is not None
    assert found.score == pytest.approx(chosen.score)
    assert sum(found.parts.values()) == pytest.approx(chosen.score)
    assert set(found.parts) == {"room", "affinities", "spreads"}
    assert found.refused == {
        "constraint node.labels.old is_not_set": 2,
        "node is not ready": 1,
        "insufficient memory": 1,
    }
    assert ([one for one, _ in found.lower], found.equal, found.higher) == (["slow"], (), ())


def test_others_of_the_group_count_against_a_node() -> None:
    """Beside another of its group a node scores less, and a node without one more: it is said, and nothing moves."""
    job = a_job(count=2)
    state = a_state(job, ("here", {}), ("there", {}))
    here = next(node for node in state.nodes.values() if node.name == "here")
    for index in range(2):
        state.put_allocation(an_allocation(job, here, index=index))
    found = whereabouts(state, state.allocations_of_job("web")[0])
    assert found is not None
    assert found.parts["others of the group there"] < 0
    assert sum(found.parts.values()) == pytest.approx(found.score)
    assert [one for one, _ in found.higher] == ["there"]


def test_a_node_that_would_not_take_it_now() -> None:
    """What runs on a draining node has no score there, and the reason is among the refusals."""
    job = a_job()
    state = a_state(job, ("here", {"eligible": False}), ("there", {}))
    here = next(node for node in state.nodes.values() if node.name == "here")
    held = an_allocation(job, here, age=timedelta(days=3))
    state.put_allocation(held)
    found = whereabouts(state, held)
    assert found is not None
    assert (found.score, found.refused) == (None, {"node is ineligible": 1})
    assert state.allocations_of_job("web") == [held]
    assert state.jobs["web"].created_at < NOON


def test_a_version_that_is_gone() -> None:
    """Nothing is said where its version is not known any more."""
    job = a_job()
    state = a_state(job, ("here", {}))
    assert whereabouts(state, an_allocation(job, a_node("here"), version=7)) is None
