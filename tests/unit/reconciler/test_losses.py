"""What the loss of a node would leave without room, after the plan at hand."""

import pytest
from hypothesis import given, settings

from reconciler.dry_run import dry_run
from reconciler.losses import loss_of
from reconciler.report import NodeLoss, report_document
from tests.builders import NOON, CountingIds, a_desired, a_group, a_job, a_node, a_state, an_allocation
from tests.pure_cluster import PureCluster
from tests.unit.reconciler.test_dry_run import worlds
from trueup.models.ids import NodeId
from trueup.models.job import Disconnect, Job
from trueup.models.node import Node
from trueup.models.units import Duration


def losses(nodes: tuple[Node, ...], *jobs: Job) -> dict[str, NodeLoss]:
    """Plans *jobs* on empty nodes, and asks for the loss of each."""
    report = dry_run(
        a_state(nodes=nodes), a_desired(*jobs), NOON, CountingIds(), lose=[node.id for node in nodes]
    )
    assert report.losses is not None
    return {one.node: one for one in report.losses}


def test_what_fits_elsewhere_moves_and_the_rest_has_its_reasons() -> None:
    found = losses((a_node("a", cpu=2), a_node("b", cpu=1)), a_job(count=2, cpu=1))
    assert found["b"] == NodeLoss(node="b", moved=1)
    (left,) = found["a"].unplaced
    assert (left.job, left.group, left.count) == ("web", "app", 1)
    assert left.reasons == {"insufficient cpu": 1, "node is not ready": 1}


def test_each_loss_is_asked_of_the_whole_cluster() -> None:
    """One node at a time is lost, not one after another."""
    found = losses((a_node("a", cpu=1), a_node("b", cpu=1), a_node("c", cpu=1)), a_job(count=2, cpu=1))
    assert all(not one.unplaced for one in found.values())


def test_what_found_no_room_before_is_no_part_of_it() -> None:
    found = losses((a_node("a", cpu=1), a_node("b", cpu=1)), a_job(count=5, cpu=1))
    assert [one.count for one in found["a"].unplaced] == [1]


def test_a_system_jobs_instance_is_missed_nowhere_else() -> None:
    found = losses((a_node("a"), a_node("b")), a_job(type="system"))
    assert found["a"] == NodeLoss(node="a")


def test_it_is_asked_of_what_runs_too_and_changes_nothing() -> None:
    node, job = a_node("a", cpu=1), a_job(cpu=1)
    state = a_state(nodes=(node,), jobs=(job,))
    state.put_allocation(an_allocation(job, node))
    report = dry_run(state, None, NOON, CountingIds(first=100), lose=[node.id])
    assert report.losses is not None
    assert report.losses[0].unplaced[0].count == 1
    assert state.nodes[node.id].status == "ready"
    assert not report.has_changes


def test_what_a_group_waits_for_is_no_part_of_it() -> None:
    group = a_group(disconnect=Disconnect(stop_after=Duration(minutes=10)))
    found = losses((a_node("a"), a_node("b")), a_job(groups=(group,)))
    assert sorted(one.moved for one in found.values()) == [0, 1]


@settings(max_examples=40)
@given(worlds())
def test_whatever_is_asked_the_state_is_as_it_was(cluster: PureCluster) -> None:
    """So each answer is the one that a copy of the state gives, in whatever order they are asked for."""
    state = cluster.state
    before = state.copy()
    nodes = [*state.nodes, *reversed(state.nodes)]
    found = [loss_of(one, state, NOON, CountingIds(first=10_000)) for one in nodes]
    assert found == [loss_of(one, before.copy(), NOON, CountingIds(first=10_000)) for one in nodes]
    assert state == before
    assert list(state.allocations) == list(before.allocations)


def test_the_document_has_it_only_where_it_was_asked_for() -> None:
    state = a_state(nodes=(a_node("a"),), jobs=(a_job(),))
    assert "losses" not in report_document(dry_run(state, None, NOON, CountingIds()))
    assert report_document(dry_run(state, None, NOON, CountingIds(), lose=[]))["losses"] == []
    with pytest.raises(KeyError):
        dry_run(state, None, NOON, CountingIds(), lose=[NodeId("nobody")])
