"""Silent nodes: when they are down, what becomes of what they held, and how they come back."""

from collections.abc import Callable
from datetime import datetime

import msgspec
import pytest

from metastore.errors import NameTaken
from metastore.liveness import Liveness
from metastore.membership import Membership
from metastore.store import SqlStore
from tests.builders import CountingIds, a_group, a_job
from tests.unit.metastore.talking import (
    NODE,
    HandClock,
    Talker,
    a_holding,
    an_update,
    event_types,
    place,
    stop,
)
from trueup.models.allocation import Allocation, TaskState
from trueup.models.ids import NodeId
from trueup.models.job import Disconnect, Job
from trueup.models.units import Duration


def pass_time(membership: Membership, clock: HandClock, seconds: float) -> None:
    """Lets time go by, stepping whenever a step is due."""
    end = clock.monotonic() + seconds
    while clock.monotonic() < end:
        due: datetime = membership.step()
        wait = min(max((due - clock.now()).total_seconds(), 0.001), end - clock.monotonic())
        clock.move(seconds=wait)
    membership.step()


def patient_job(**disconnect: Duration) -> Job:
    return a_job(groups=(a_group(disconnect=Disconnect(**disconnect)),))


def held(store: SqlStore, allocation: Allocation) -> Allocation:
    return store.state.allocations[allocation.id]


def replace_elsewhere(store: SqlStore, allocation: Allocation) -> None:
    """As the reconciler does with what is lost."""
    old = held(store, allocation)
    new = msgspec.structs.replace(
        old,
        id="replacement",
        node_id=NodeId("n2"),
        node="node-2",
        client_status="pending",
        lost_at=None,
        tasks={},
    )
    with store.transaction() as tx:
        tx.put_allocation(msgspec.structs.replace(old, desired_status="stop", reason="lost"))
        tx.put_allocation(new)


def test_a_silent_node_is_down_after_timeout_and_grace(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """Not a moment earlier; what it held is lost, with events for both."""
    allocation = place(store, client_status="running")
    pass_time(membership, clock, 14.9)
    assert store.state.nodes[NODE].status == "ready"
    pass_time(membership, clock, 0.2)
    assert store.state.nodes[NODE].status == "down"
    lost = held(store, allocation)
    assert (lost.client_status, lost.desired_status, lost.healthy) == ("lost", "run", None)
    assert lost.lost_at is not None
    assert {"NodeDown", "AllocationLost"} <= set(event_types(store))


def test_a_node_that_beats_stays(
    membership: Membership, store: SqlStore, talker: Talker, clock: HandClock
) -> None:
    """However long."""
    index = store.state.index
    for _ in range(30):
        pass_time(membership, clock, 5)
        talker.beat()
    assert store.state.nodes[NODE].status == "ready"
    assert store.state.index == index


def test_a_server_that_slept_judges_nobody(
    membership: Membership, store: SqlStore, talker: Talker, clock: HandClock
) -> None:
    """Stopped for ten minutes and continued: every node gets a whole deadline."""
    membership.step()
    clock.move(minutes=10)
    membership.step()
    assert store.state.nodes[NODE].status == "ready"
    pass_time(membership, clock, 14)
    assert store.state.nodes[NODE].status == "ready"
    pass_time(membership, clock, 2)
    assert store.state.nodes[NODE].status == "down"


def test_after_a_restart_every_node_has_a_whole_deadline(
    open_store: Callable[[], SqlStore], clock: HandClock
) -> None:
    """The time the server was away counts for nothing."""
    Talker(Membership(open_store(), clock, CountingIds())).join()
    clock.move(hours=1)
    store = open_store()
    membership = Membership(store, clock, CountingIds())
    pass_time(membership, clock, 14)
    assert store.state.nodes[NODE].status == "ready"
    pass_time(membership, clock, 2)
    assert store.state.nodes[NODE].status == "down"


def test_what_its_group_waits_for_is_unknown_first(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """`lost_after`: unknown until then, the node disconnected; then lost, the node down."""
    allocation = place(store, patient_job(lost_after=Duration(minutes=5)), client_status="running")
    pass_time(membership, clock, 16)
    assert (held(store, allocation).client_status, store.state.nodes[NODE].status) == (
        "unknown",
        "disconnected",
    )
    assert held(store, allocation).unknown_since is not None
    pass_time(membership, clock, 290)
    assert held(store, allocation).client_status == "unknown"
    pass_time(membership, clock, 20)
    assert (held(store, allocation).client_status, store.state.nodes[NODE].status) == ("lost", "down")


def test_the_wait_goes_on_over_a_restart(open_store: Callable[[], SqlStore], clock: HandClock) -> None:
    """What is left of `stop_after` is waited for, no more."""
    store = open_store()
    membership = Membership(store, clock, CountingIds())
    Talker(membership).join()
    allocation = place(store, patient_job(stop_after=Duration(minutes=5)), client_status="running")
    pass_time(membership, clock, 100)
    assert held(store, allocation).client_status == "unknown"
    store = open_store()
    membership = Membership(store, clock, CountingIds())
    pass_time(membership, clock, 210)
    assert held(store, allocation).client_status == "unknown"
    pass_time(membership, clock, 20)
    assert held(store, allocation).client_status == "lost"


def test_a_node_is_ready_again_only_with_what_it_holds(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """Between the two nothing could be decided rightly: what was not replaced runs on."""
    allocation = place(store, client_status="running")
    talker.hold(allocation)
    pass_time(membership, clock, 16)
    assert talker.beat().send_holdings
    assert store.state.nodes[NODE].status == "down"
    answer = talker.beat(holds=True)
    assert store.state.nodes[NODE].status == "ready"
    assert (held(store, allocation).client_status, held(store, allocation).lost_at) == ("running", None)
    assert (answer.start, answer.stop) == ((), ())
    assert event_types(store)[-2:] == ["NodeReady", "AllocationRunning"]


@pytest.mark.parametrize("way", ["beats", "registers"])
def test_the_old_copy_of_what_was_replaced_is_stopped(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock, way: str
) -> None:
    """With a reason, and it takes room until it has ended."""
    allocation = place(store, client_status="running")
    talker.hold(allocation)
    pass_time(membership, clock, 16)
    replace_elsewhere(store, allocation)
    if way == "registers":
        talker.come_back(incarnation=2, allocations=(a_holding(allocation, client_status="running"),))
    (order,) = talker.settle().stop
    assert (order.id, order.reason) == (allocation.id, "lost")
    old = held(store, allocation)
    assert (old.client_status, old.desired_status) == ("running", "stop")
    assert store.state.usage(NODE).allocations == 1
    talker.held.clear()
    talker.beat(an_update(allocation, "complete"))
    assert held(store, allocation).client_status == "complete"
    assert store.state.usage(NODE).allocations == 0


def test_a_result_that_comes_before_the_replacement_counts(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """A batch that ended while its node was silent did end."""
    allocation = place(store, a_job(type="batch"), client_status="running")
    pass_time(membership, clock, 16)
    talker.beat(an_update(allocation, "complete"))
    talker.beat(holds=True)
    assert held(store, allocation).client_status == "complete"


def test_a_result_that_comes_after_the_replacement_does_not(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """What is lost and replaced stays lost."""
    allocation = place(store, a_job(type="batch"), client_status="running")
    pass_time(membership, clock, 16)
    replace_elsewhere(store, allocation)
    talker.beat(an_update(allocation, "complete"))
    assert held(store, allocation).client_status == "lost"


def test_what_was_unknown_is_as_it_was_when_its_node_is_back(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """Running, if its tasks were; and what the node holds no more is started again."""
    job = patient_job(lost_after=Duration(hours=1))
    running = TaskState(state="running")
    one = place(store, job, client_status="running", tasks={"server": running}, healthy=True)
    pass_time(membership, clock, 16)
    talker.beat()
    answer = talker.beat(holds=True)
    assert (held(store, one).client_status, held(store, one).unknown_since) == ("running", None)
    assert [start.allocation.id for start in answer.start] == [one.id]


def test_what_was_to_stop_on_a_silent_node_is_lost_at_once(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """Nobody waits for what nobody wants."""
    allocation = place(store, patient_job(lost_after=Duration(hours=1)), client_status="running")
    stop(store, allocation)
    pass_time(membership, clock, 16)
    assert (held(store, allocation).client_status, store.state.nodes[NODE].status) == ("lost", "down")


def test_a_claimant_of_the_same_boot_inherits_before_anything_is_lost(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """Its data folder was lost and its tasks run on: it is refused for one deadline, and waited for after it."""
    allocation = place(store, client_status="running")
    heir = Talker(membership, "node-1", node_id="heir")
    for seconds in (5, 4.9):
        pass_time(membership, clock, seconds)
        with pytest.raises(NameTaken) as refused:
            heir.join()
    assert refused.value.again_seconds == pytest.approx(5.1)
    pass_time(membership, clock, 8)
    assert (store.state.nodes[NODE].status, held(store, allocation).client_status) == ("ready", "running")
    heir.join(orphans=(allocation.id,))
    pass_time(membership, clock, 9)
    assert list(store.state.nodes) == ["heir"]
    assert (held(store, allocation).client_status, held(store, allocation).node_id) == ("running", "heir")
    assert [one.allocation.id for one in heir.settle().start] == [allocation.id]
    assert not {"NodeDown", "AllocationLost"} & set(event_types(store))


def test_nothing_is_lost_of_a_node_whose_data_folder_was_moved(
    store: SqlStore, membership: Membership, clock: HandClock
) -> None:
    """It may be a copy, so it is refused for one deadline; it says when to come again, and is waited for."""
    talker = Talker(membership, folder="1:2")
    talker.join()
    allocation = place(store, client_status="running")
    pass_time(membership, clock, 10)
    with pytest.raises(NameTaken, match="another data folder") as refused:
        talker.come_back(folder="1:3", incarnation=2)
    assert refused.value.again_seconds == pytest.approx(5)
    pass_time(membership, clock, 5.5)
    talker.come_back()
    pass_time(membership, clock, 9)
    assert (held(store, allocation).client_status, store.state.nodes[NODE].folder) == ("running", "1:3")
    assert "NodeDown" not in event_types(store)


def test_a_claimant_that_stays_away_is_waited_for_once(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """For as long as it takes to ask again."""
    allocation = place(store, client_status="running")
    pass_time(membership, clock, 10)
    with pytest.raises(NameTaken):
        Talker(membership, "node-1", node_id="heir").join()
    pass_time(membership, clock, 14)
    assert held(store, allocation).client_status == "running"
    pass_time(membership, clock, 2)
    assert (held(store, allocation).client_status, store.state.nodes[NODE].status) == ("lost", "down")


@pytest.mark.parametrize("other", [{"boot_id": "boot-2"}, {"machine_id": "m2"}, {"boot_id": ""}])
def test_a_claimant_of_another_machine_or_boot_is_not_waited_for(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock, other: dict[str, str]
) -> None:
    """What the old one held runs no more, or elsewhere."""
    allocation = place(store, client_status="running")
    pass_time(membership, clock, 10)
    with pytest.raises(NameTaken) as refused:
        Talker(membership, "node-1", node_id="heir", **other).join()
    assert refused.value.again_seconds is None
    pass_time(membership, clock, 6)
    assert held(store, allocation).client_status == "lost"


def test_a_node_that_beats_after_all_keeps_its_name(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """It was slow, and whoever claims its name is another agent on that machine."""
    allocation = place(store, client_status="running")
    talker.hold(allocation)
    heir = Talker(membership, "node-1", node_id="heir")
    pass_time(membership, clock, 10)
    with pytest.raises(NameTaken):
        heir.join()
    pass_time(membership, clock, 6)
    talker.beat()
    with pytest.raises(NameTaken):
        heir.join()
    pass_time(membership, clock, 12)
    assert (held(store, allocation).client_status, store.state.nodes[NODE].status) == ("running", "ready")


def test_what_an_heir_finds_running_is_lost_no_more(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """It came too late to be waited for; what was not replaced is taken back as it was, the rest is lost."""
    task = {"server": TaskState(state="running")}
    found, gone = (place(store, index=index, client_status="running", tasks=task) for index in range(2))
    pass_time(membership, clock, 16)
    Talker(membership, "node-1", node_id="heir").join(orphans=(found.id, "a stranger"))
    assert [held(store, one).client_status for one in (found, gone)] == ["running", "lost"]


def test_what_an_heir_finds_running_and_was_replaced_is_to_stop(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """As with a node that comes back."""
    allocation = place(store, client_status="running")
    pass_time(membership, clock, 16)
    replace_elsewhere(store, allocation)
    heir = Talker(membership, "node-1", node_id="heir")
    heir.join(orphans=(allocation.id,))
    assert [(order.id, order.reason) for order in heir.settle().stop] == [(allocation.id, "lost")]


def test_deadlines_are_kept_in_order() -> None:
    """Each node expires by its newest deadline, also after it was forgotten and heard again."""
    liveness = Liveness()
    one, two = NodeId("one"), NodeId("two")
    liveness.heard(one, 10)
    liveness.heard(two, 5)
    liveness.heard(one, 20)
    assert liveness.expired(4) == []
    assert liveness.expired(12) == [two]
    assert liveness.expired(13) == [two]
    liveness.forget(two)
    liveness.heard(two, 30)
    assert liveness.expired(25) == [one]
    liveness.extend(40)
    assert liveness.expired(39) == []
    assert liveness.expired(40) == [one, two]
    assert not liveness.is_living(one, 40)
    assert liveness.is_living(two, 39.9)
