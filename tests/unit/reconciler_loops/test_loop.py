"""The reconcile loop over a real store: what it commits, what it leaves alone, and what a fault costs."""

from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

import reconciler.loop
from metastore.store import SqlStore
from reconciler.evaluate import evaluate
from reconciler.executor import Executor
from reconciler.invariants import violations
from reconciler.loop import ReconcileLoop
from reconciler.planner import Plan
from reconciler.register import register, write
from tests.builders import NOON, CountingIds, a_desired, a_job, a_node
from tests.unit.reconciler_loops.conftest import HandClock
from trueup.models.desired import DesiredState
from trueup.models.ids import IdSource
from trueup.models.node import Drain, Node
from trueup.models.state import ClusterState


def applied(store: SqlStore, desired: DesiredState) -> None:
    with store.transaction() as tx:
        write(register(tx.state, desired, NOON), tx.state, tx, NOON)


def joined(store: SqlStore, *nodes: Node) -> None:
    with store.transaction() as tx:
        for node in nodes:
            tx.put_node(node)


@pytest.fixture
def loop(store: SqlStore, clock: HandClock) -> ReconcileLoop:
    return ReconcileLoop(store, clock, CountingIds())


def test_a_revision_becomes_allocations_pushes_an_evaluation_and_events(
    store: SqlStore, loop: ReconcileLoop
) -> None:
    joined(store, a_node())
    applied(store, a_desired(a_job(count=2)))
    loop.step()
    held = store.state.allocations_of_job("web")
    assert [one.name for one in held] == ["web.app[0]", "web.app[1]"]
    assert [(entry.kind, entry.allocation_id) for entry in store.outbox()] == [
        ("start", one.id) for one in held
    ]
    (evaluation,) = [one.value for one in store.evaluations(after=None, limit=10)]
    assert (evaluation.placed, evaluation.status) == (2, "complete")
    types = [one.value.type for one in store.events(after=None, limit=10)]
    assert types.count("AllocationPlaced") == 2
    assert violations(store.state) == []


def test_a_drain_that_begins_is_acted_on_without_waiting_for_a_full_pass(
    store: SqlStore, loop: ReconcileLoop
) -> None:
    """It changes nothing of the job itself, whose work is to leave all the same."""
    node = a_node("a")
    joined(store, node)
    applied(store, a_desired(a_job()))
    loop.step()
    (first,) = store.state.allocations_of_job("web")
    with store.transaction() as tx:
        tx.put_allocation(msgspec.structs.replace(first, client_status="running", healthy=True))
    joined(store, a_node("b"))
    loop.step()
    drain = Drain(started_at=NOON, deadline_at=NOON + timedelta(hours=1))
    joined(store, msgspec.structs.replace(node, drain=drain, eligible=False))
    loop.step()
    held = {one.node: one.desired_status for one in store.state.allocations_of_job("web")}
    assert held == {"a": "stop", "b": "run"}


def test_each_replacement_of_a_name_has_a_greater_epoch(store: SqlStore, loop: ReconcileLoop) -> None:
    joined(store, a_node())
    applied(store, a_desired(a_job()))
    loop.step()
    (first,) = store.state.allocations_of_job("web")
    with store.transaction() as tx:
        tx.put_allocation(msgspec.structs.replace(first, client_status="lost"))
    loop.step()
    second = store.state.allocations_of_job("web")[-1]
    assert second.replaces == first.id
    assert second.epoch > first.epoch > 0


def test_a_pass_over_what_is_as_wanted_writes_nothing(
    store: SqlStore, loop: ReconcileLoop, clock: HandClock
) -> None:
    joined(store, a_node())
    applied(store, a_desired(a_job(count=2)))
    loop.step()
    loop.step()
    index = store.state.index
    clock.move(minutes=3)
    loop.step()
    assert store.state.index == index


def test_nothing_is_decided_before_a_revision_was_applied_or_while_agents_are_still_heard(
    store: SqlStore, clock: HandClock
) -> None:
    adopting = True
    loop = ReconcileLoop(store, clock, CountingIds(), adopting=lambda: adopting)
    joined(store, a_node())
    applied(store, a_desired(a_job()))
    assert loop.step() is not None
    assert not store.state.allocations
    adopting = False
    loop.step()
    assert len(store.state.allocations) == 1


def test_what_found_no_room_is_placed_when_a_node_comes(store: SqlStore, loop: ReconcileLoop) -> None:
    applied(store, a_desired(a_job()))
    loop.step()
    assert store.state.jobs["web"].unplaced[0].reasons == {"no node is registered": 1}
    joined(store, a_node())
    loop.step()
    assert len(store.state.allocations) == 1
    assert store.state.jobs["web"].unplaced == ()


def test_what_found_no_room_is_placed_when_room_is_freed(store: SqlStore, loop: ReconcileLoop) -> None:
    joined(store, a_node(cpu=1))
    applied(store, a_desired(a_job("big", cpu=1, priority=90), a_job("small", cpu=1)))
    loop.step()
    assert store.state.jobs["small"].unplaced
    (big,) = store.state.allocations_of_job("big")
    applied(store, a_desired(a_job("small", cpu=1), revision="r3"))
    loop.step()
    assert not store.state.allocations_of_job("small"), "the room is held until the tasks have ended"
    with store.transaction() as tx:
        tx.put_allocation(msgspec.structs.replace(store.state.allocations[big.id], client_status="complete"))
    loop.step()
    assert len(store.state.allocations_of_job("small")) == 1


def test_a_job_whose_evaluation_fails_hurts_no_other_and_says_so(
    store: SqlStore, loop: ReconcileLoop, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned = True

    def poisonous(name: str, state: ClusterState, now: object, ids: IdSource) -> Plan:
        if name == "bad" and poisoned:
            raise ZeroDivisionError("no such luck")
        return evaluate(name, state, NOON, ids)

    monkeypatch.setattr(reconciler.loop, "evaluate", poisonous)
    joined(store, a_node())
    applied(store, a_desired(a_job("bad"), a_job("good")))
    look_at = loop.step()
    assert len(store.state.allocations_of_job("good")) == 1
    assert "no such luck" in store.state.jobs["bad"].error
    assert look_at == NOON + timedelta(seconds=1)
    poisoned = False
    clock.move(seconds=2)
    loop.step()
    assert store.state.jobs["bad"].error == ""
    assert len(store.state.allocations_of_job("bad")) == 1


def test_a_plan_that_cannot_be_written_hurts_no_other(
    store: SqlStore, loop: ReconcileLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database refuses a name wanted twice: the batch is undone, and all other jobs commit on their own."""
    joined(store, a_node())
    applied(store, a_desired(a_job("bad"), a_job("good")))

    def doubling(name: str, state: ClusterState, now: object, ids: IdSource) -> Plan:
        outcome = evaluate(name, state, NOON, ids)
        if name != "bad":
            return outcome
        again = evaluate(name, state, NOON, ids)
        return replace(outcome, placements=(*outcome.placements, *again.placements))

    monkeypatch.setattr(reconciler.loop, "evaluate", doubling)
    loop.step()
    assert len(store.state.allocations_of_job("good")) == 1
    assert not store.state.allocations_of_job("bad")
    assert "NameConflict" in store.state.jobs["bad"].error


def test_the_executor_leaves_out_what_no_longer_fits(store: SqlStore) -> None:
    """A plan made from an earlier state is asked again, node by node, with the planner's own functions."""
    joined(store, a_node(cpu=1))
    applied(store, a_desired(a_job("first", cpu=1), a_job("second", cpu=1)))
    ids = CountingIds()
    plans = [evaluate(name, store.state, NOON, ids) for name in ("first", "second")]
    executor = Executor(ids)
    for plan in plans:
        executor.enqueue(plan)
    with store.transaction() as tx:
        assert executor.execute(tx, NOON) == {"second"}
    assert [held.job for held in store.state.allocations.values()] == ["first"]
    newest = store.evaluations(after=None, limit=1, newest_first=True)[0].value
    assert (newest.job, newest.status) == ("second", "partial")


@pytest.mark.parametrize("change", ["node gone", "node ineligible", "new version", "removed", "told to stop"])
def test_the_executor_drops_plans_that_the_world_overtook(store: SqlStore, change: str) -> None:
    joined(store, a_node())
    applied(store, a_desired(a_job(), a_job("other")))
    ids = CountingIds()
    executor = Executor(ids)
    executor.enqueue(evaluate("web", store.state, NOON, ids))
    if change == "told to stop":
        with store.transaction() as tx:
            executor.execute(tx, NOON)
        applied(store, a_desired(a_job(count=0), a_job("other"), revision="r3"))
        executor.enqueue(evaluate("web", store.state, NOON, ids))
        (held,) = store.state.allocations_of_job("web")
        with store.transaction() as tx:
            tx.put_allocation(msgspec.structs.replace(held, desired_status="stop", reason="not needed"))
    elif change == "node gone":
        with store.transaction() as tx:
            tx.drop_node(a_node().id)
    elif change == "node ineligible":
        joined(store, a_node(eligible=False))
    elif change == "new version":
        applied(store, a_desired(a_job(env={"V": "2"}), a_job("other"), revision="r3"))
    else:
        applied(store, a_desired(a_job("other"), revision="r3"))
    before = dict(store.state.allocations)
    with store.transaction() as tx:
        assert executor.execute(tx, NOON) == {"web"}
    assert store.state.allocations == before


def test_a_thousand_jobs_are_committed_in_batches_that_let_heartbeats_in(
    store: SqlStore, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler.loop, "BATCH_SECONDS", 0.5)
    joined(store, a_node(cpu=100, memory="100GiB"))
    applied(store, a_desired(*[a_job(f"j{number}", cpu=0.01) for number in range(10)]))

    class SlowIds(CountingIds):
        def new_id(self) -> str:
            clock.move(seconds=0.2)
            return super().new_id()

    indexes: list[int] = []
    store.subscribe(lambda committed: indexes.append(committed.index))
    ReconcileLoop(store, clock, SlowIds()).step()
    assert len(store.state.allocations) == 10
    assert len(indexes) > 1
