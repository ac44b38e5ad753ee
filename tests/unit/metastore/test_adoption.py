"""A control plane that lost its memory, or was away: it listens first, takes over what runs, and stops nothing."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from metastore.membership import Membership, MembershipSettings
from metastore.store import SqlStore
from tests.builders import CountingIds, a_job, a_record, a_version, an_allocation
from tests.unit.metastore.talking import NODE, HandClock, Talker, a_holding, event_types, place
from trueup.models.errors import SpecError
from trueup.models.evaluation import Event
from trueup.models.fit import allocated_resources
from trueup.models.ids import RevisionId

EARLIER: dict[str, Any] = {"cluster_id": "another", "epoch": 1_000_000, "index": 500}


def new(store: SqlStore, clock: HandClock, expected_nodes: int = 0) -> Membership:
    return Membership(
        store, clock, CountingIds(first=10**6), MembershipSettings(expected_nodes=expected_nodes)
    )


def apply_revision(store: SqlStore, *jobs: Any) -> None:
    with store.transaction() as tx:
        for job in jobs:
            tx.put_version(a_version(job))
            tx.put_job(a_record(job))
        tx.set_revision(RevisionId("r1"), None)


def listen(membership: Membership, clock: HandClock, talker: Talker) -> None:
    """Until adoption is over, with a node that beats."""
    while membership.adopting:
        clock.move(seconds=1)
        talker.beat()
        membership.step()


def test_a_new_store_waits_a_moment_for_agents(store: SqlStore, clock: HandClock) -> None:
    """2 seconds, while all that come hold nothing."""
    membership = new(store, clock)
    assert membership.adopting
    assert Talker(membership).join().adopting
    clock.move(seconds=1.9)
    assert membership.adopting
    clock.move(seconds=0.1)
    assert not membership.adopting


def test_a_new_store_that_meets_tasks_waits_for_one_deadline(store: SqlStore, clock: HandClock) -> None:
    """Others may come that hold something too."""
    membership = new(store, clock)
    Talker(membership).join(allocations=(a_holding(an_allocation()),), **EARLIER)
    clock.move(seconds=14.9)
    assert membership.adopting
    clock.move(seconds=0.1)
    assert not membership.adopting


def test_a_new_store_waits_for_the_nodes_it_expects(store: SqlStore, clock: HandClock) -> None:
    """`trueup up` knows its one agent: it decides as soon as that was heard."""
    membership = new(store, clock, expected_nodes=1)
    clock.move(seconds=5)
    assert membership.adopting
    Talker(membership).join()
    assert not membership.adopting


def test_after_a_restart_known_nodes_are_heard_once(
    open_store: Callable[[], SqlStore], clock: HandClock
) -> None:
    """They register anew, and only then is anything decided."""
    membership = new(open_store(), clock)
    talkers = [Talker(membership, name) for name in ("node-1", "node-2")]
    for talker in talkers:
        talker.join()
    store = open_store()
    membership = new(store, clock)
    allocation = place(store)
    for talker in talkers:
        talker.membership = membership
    talkers[1].come_back()
    assert membership.adopting
    assert not talkers[0].come_back().adopting
    assert [start.allocation.id for start in talkers[0].settle().start] == [allocation.id]


def test_a_known_node_is_waited_for_one_deadline(
    open_store: Callable[[], SqlStore], clock: HandClock
) -> None:
    """And one that was down is not waited for."""
    Talker(new(open_store(), clock)).join()
    store = open_store()
    membership = new(store, clock)
    clock.move(seconds=15)
    assert not membership.adopting
    with store.transaction() as tx:
        tx.put_node(msgspec.structs.replace(store.state.nodes[NODE], status="down"))
    assert not new(open_store(), clock).adopting


def test_what_runs_is_taken_over_by_a_new_store(store: SqlStore, clock: HandClock) -> None:
    """As it is, with the index and epoch that agents remember left behind; a batch job's past is unknown."""
    membership = new(store, clock)
    epoch = store.state.epoch
    talker = Talker(membership)
    allocation = an_allocation(epoch=700)
    talker.join(allocations=(a_holding(allocation),), **EARLIER)
    taken = store.state.allocations[allocation.id]
    assert (taken.client_status, taken.desired_status, taken.epoch) == ("running", "run", 700)
    assert (taken.node_id, taken.created_at, taken.revision) == (
        NODE,
        allocation.created_at,
        allocation.revision,
    )
    assert store.state.inherited
    assert (store.state.epoch, store.state.index) == (epoch, 701)
    assert event_types(store) == ["NodeRegistered", "AllocationAdopted"]


def test_a_new_store_begins_a_later_epoch_than_any_agent_remembers(store: SqlStore, clock: HandClock) -> None:
    """Its clock may be behind that of the server before it."""
    later = store.state.epoch + 5000
    answer = Talker(new(store, clock)).join(cluster_id="another", epoch=later)
    assert answer.epoch == store.state.epoch == later + 1


def test_no_stop_is_ordered_while_adopting(store: SqlStore, clock: HandClock) -> None:
    """Not even of what the store knows to be unwanted."""
    membership = new(store, clock, expected_nodes=2)
    talker = Talker(membership)
    talker.join()
    talker.hold(an_allocation(id="stranger"))
    assert talker.settle().stop == ()
    assert membership.adopting


def test_a_name_held_by_two_is_wanted_once(store: SqlStore, clock: HandClock) -> None:
    """What the second agent holds is taken over to be stopped."""
    membership = new(store, clock)
    apply_revision(store, a_job())
    for name in ("node-1", "node-2"):
        Talker(membership, name).join(allocations=(a_holding(an_allocation(id=name)),), **EARLIER)
    wanted = {held.id: held.desired_status for held in store.state.allocations.values()}
    assert wanted == {"node-1": "run", "node-2": "stop"}
    assert store.state.allocations[an_allocation(id="node-2").id].reason == "not needed"


def test_what_was_adopted_gets_its_room_once_its_job_is_known(store: SqlStore, clock: HandClock) -> None:
    """Agents do not say what it takes; until then nothing is placed anyway."""
    membership = new(store, clock)
    talker = Talker(membership)
    talker.join(allocations=(a_holding(an_allocation()),), **EARLIER)
    listen(membership, clock, talker)
    assert store.state.usage(NODE).cpu_millicores == 0
    apply_revision(store, a_job(cpu=0.5))
    membership.step()
    (held,) = store.state.allocations.values()
    assert held.resources == allocated_resources(a_job(cpu=0.5).groups[0])
    assert store.state.usage(NODE).cpu_millicores == 500


def test_what_no_job_of_the_revision_wants_is_stopped_after_a_grace(
    store: SqlStore, clock: HandClock
) -> None:
    """A first revision may be a mistaken one: 60 seconds to put it right."""
    membership = new(store, clock)
    talker = Talker(membership)
    talker.join(allocations=(a_holding(an_allocation()),), **EARLIER)
    listen(membership, clock, talker)
    apply_revision(store, a_job("another"))
    for _ in range(59):
        membership.step()
        clock.move(seconds=1)
        talker.beat()
    (held,) = store.state.allocations.values()
    assert held.is_wanted
    for _ in range(3):
        membership.step()
        clock.move(seconds=1)
    (held,) = store.state.allocations.values()
    assert (held.desired_status, held.reason) == ("stop", "job removed")
    assert [(entry.allocation_id, entry.kind) for entry in store.outbox()] == [(held.id, "stop")]


def test_while_documents_have_errors_nothing_that_was_adopted_is_stopped(
    store: SqlStore, clock: HandClock
) -> None:
    """Its job may be in the one that cannot be read. The grace begins once they are without."""
    membership = new(store, clock)
    talker = Talker(membership)
    talker.join(allocations=(a_holding(an_allocation()),), **EARLIER)
    listen(membership, clock, talker)
    apply_revision(store, a_job("another"))
    with store.transaction() as tx:
        tx.set_errors((SpecError(file="web.yaml", message="cannot be parsed"),))
    for _ in range(100):
        membership.step()
        clock.move(seconds=1)
        talker.beat()
    (held,) = store.state.allocations.values()
    assert held.is_wanted
    with store.transaction() as tx:
        tx.set_errors(())
    for seconds, wanted in ((50, True), (15, False)):
        for _ in range(seconds):
            membership.step()
            clock.move(seconds=1)
            talker.beat()
        (held,) = store.state.allocations.values()
        assert held.is_wanted is wanted


@pytest.mark.parametrize(
    "memory", [{"epoch": 1_000_000}, {"cluster_id": "another", "epoch": 7}, {"index": 10**6}]
)
def test_an_older_store_takes_over_what_it_does_not_know(
    store: SqlStore, clock: HandClock, memory: dict[str, Any]
) -> None:
    """A backup was put back: what was placed since runs on; the past of batch jobs is known up to then."""
    membership = new(store, clock)
    apply_revision(store, a_job())
    memory = {"cluster_id": store.state.cluster_id, "epoch": store.state.epoch, **memory}
    Talker(membership).join(allocations=(a_holding(an_allocation()),), **memory)
    assert [held.desired_status for held in store.state.allocations.values()] == ["run"]
    assert not store.state.inherited


def test_an_older_store_is_known_by_where_it_was_opened(store: SqlStore, clock: HandClock) -> None:
    """What it wrote since its start, before this agent came, takes it no further than the agent remembers."""
    apply_revision(store, a_job())
    remembered = store.state.index + 3
    membership = new(store, clock)
    assert not membership.met_strangers
    for number in range(10):
        with store.transaction() as tx:
            tx.put_event(Event(at=clock.now(), type="Noise", message=str(number)))
    assert store.state.index > remembered
    memory = {"cluster_id": store.state.cluster_id, "epoch": store.state.epoch, "index": remembered}
    Talker(membership).join(allocations=(a_holding(an_allocation()),), **memory)
    assert [held.desired_status for held in store.state.allocations.values()] == ["run"]
    assert membership.met_strangers


def test_at_the_same_epoch_what_is_not_known_is_not_taken_over(store: SqlStore, clock: HandClock) -> None:
    """The store knows all it ever wanted: it is an orphan."""
    membership = new(store, clock)
    same = {"cluster_id": store.state.cluster_id, "epoch": store.state.epoch, "index": 0}
    Talker(membership).join(allocations=(a_holding(an_allocation()),), **same)
    assert not store.state.allocations
