"""Nodes join, beat and come back: what is taken in, what is refused, and what they are told to do."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from metastore.errors import NameTaken, StoreUnavailable, UnknownNode
from metastore.membership import Membership, MembershipSettings
from metastore.store import SqlStore
from tests.builders import NOON, CountingIds, a_node, an_allocation
from tests.unit.metastore.talking import (
    NODE,
    HandClock,
    Talker,
    a_holding,
    a_request,
    an_update,
    event_types,
    place,
    stop,
)
from trueup.models.allocation import TaskEvent, TaskState
from trueup.models.ids import AllocationId, NodeId
from trueup.models.node import DriverState, NodeUse
from trueup.models.template import NodePolicy
from trueup.models.units import Bytes
from trueup.models.wire import HoldingKey


def test_a_node_joins_and_is_ready(store: SqlStore, membership: Membership) -> None:
    """It gets a secret of its own, and git's policy for its name holds from the start."""
    with store.transaction() as tx:
        tx.put_node_policy(NodePolicy(name="node-1", labels={"disk": "ssd"}, eligible=False))
    answer = membership.register(a_request(labels={"rack": "a"}), joined=True, secret=None, peer="10.0.0.9")
    node = store.state.nodes[NODE]
    assert (node.status, node.eligible, node.labels) == ("ready", False, {"rack": "a", "disk": "ssd"})
    assert len(answer.node_secret) == 64
    assert membership.secret_of(NODE) == answer.node_secret
    assert (answer.epoch, answer.cluster_id) == (store.state.epoch, store.state.cluster_id)
    assert answer.deadline_seconds == 15
    assert event_types(store) == ["NodeRegistered"]


def test_an_endpoint_that_nobody_can_dial_gets_the_address_it_came_from(
    store: SqlStore, membership: Membership
) -> None:
    """An agent bound to all addresses does not know its own."""
    membership.register(a_request(endpoint="https://0.0.0.0:7431"), joined=True, secret=None, peer="10.0.0.9")
    assert store.state.nodes[NODE].endpoint == "https://10.0.0.9:7431"


@pytest.mark.parametrize(
    ("peer", "endpoint"),
    [
        ("10.0.0.9", ""),
        ("127.0.0.1", "http://127.0.0.1:7431"),
        ("::1", "http://127.0.0.1:7431"),
        ("::ffff:127.0.0.1", "http://127.0.0.1:7431"),
        ("", "http://127.0.0.1:7431"),
    ],
)
def test_an_endpoint_on_the_loopback_of_another_machine_is_none(
    store: SqlStore, membership: Membership, peer: str, endpoint: str
) -> None:
    """Whoever listens there on this machine would be shown the node's secret."""
    membership.register(a_request(endpoint="http://127.0.0.1:7431"), joined=True, secret=None, peer=peer)
    assert store.state.nodes[NODE].endpoint == endpoint


def test_registering_again_as_before_writes_nothing(store: SqlStore, talker: Talker) -> None:
    """A repeat, with the token or the secret: the secret stays, and so does the index."""
    secret, index = talker.secret, store.state.index
    talker.join()
    talker.come_back()
    assert (talker.secret, store.state.index) == (secret, index)


def test_who_shows_neither_token_nor_secret_is_unknown(membership: Membership, talker: Talker) -> None:
    """Of whatever node; and one node's secret is not another's."""
    other = Talker(membership, "node-2")
    other.join()
    for secret in (None, "", "wrong", "nonsense \udcff".encode("utf-8", "replace").decode(), other.secret):
        with pytest.raises(UnknownNode):
            membership.register(talker.request, joined=False, secret=secret, peer="")
    talker.secret = other.secret
    with pytest.raises(UnknownNode):
        talker.beat()


def test_the_cluster_token_does_not_make_one_node_another(membership: Membership, talker: Talker) -> None:
    """Once a node lives by its own secret, nobody gets in its place with the token alone."""
    talker.beat()
    with pytest.raises(NameTaken, match="alive"):
        membership.register(talker.request, joined=True, secret=None, peer="")


def test_a_name_is_taken_while_its_holder_lives(membership: Membership, talker: Talker) -> None:
    """The word says what to do."""
    with pytest.raises(NameTaken, match="another agent that is alive is called node-1"):
        Talker(membership, "node-1", node_id="other").join()


def test_a_new_id_takes_over_the_name_of_a_silent_node(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """After one deadline, with its allocations; the old id is a stranger then."""
    allocation = place(store)
    clock.move(seconds=15)
    heir = Talker(membership, "node-1", node_id="heir")
    heir.join()
    assert list(store.state.nodes) == ["heir"]
    assert store.state.allocations[allocation.id].node_id == "heir"
    assert [one.allocation.id for one in heir.settle().start] == [allocation.id]
    with pytest.raises(UnknownNode):
        talker.beat()


def test_a_control_plane_started_anew_hears_all_of_a_node_first(
    open_store: Callable[[], SqlStore], clock: HandClock
) -> None:
    """Only a registration says which epoch and index the agent remembers: an older store may have been put back."""
    talker = Talker(Membership(open_store(), clock, CountingIds(first=10**6)))
    talker.join()
    talker.beat()
    talker.membership = Membership(open_store(), clock, CountingIds(first=10**7))
    with pytest.raises(UnknownNode, match="started anew; register again"):
        talker.beat()
    talker.come_back()
    talker.beat()


def test_a_copied_data_folder_is_refused_while_the_first_lives(talker: Talker) -> None:
    """It has the id and the secret, but another machine's boot and address."""
    with pytest.raises(NameTaken, match="on another machine"):
        talker.come_back(incarnation=2, boot_id="boot-2", endpoint="http://10.0.0.7:7431")


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"machine_id": "m2", "boot_id": "boot-2"}, "on another machine"),
        ({"machine_id": "m2"}, "on another machine"),
        ({"folder": "1:3"}, "another data folder of this machine"),
    ],
)
def test_a_copy_at_the_same_address_is_refused_while_the_first_lives(
    store: SqlStore, membership: Membership, clock: HandClock, told: dict[str, str], why: str
) -> None:
    """The first goes on; a copy of what lives no more, or a folder that was moved, is let in."""
    first = Talker(membership, machine_id="m1", folder="1:2")
    first.join()
    copy = Talker(membership, machine_id="m1", folder="1:2", incarnation=2)
    copy.secret = first.secret
    clock.move(seconds=8)
    for _ in range(2):
        with pytest.raises(NameTaken, match=why):
            copy.come_back(**told)
        first.beat()
    first.come_back(incarnation=2)
    clock.move(seconds=15)
    copy.come_back(incarnation=3)
    assert store.state.nodes[NODE].incarnation == 3


def test_a_copy_with_another_boot_alone_is_known_because_the_first_beats(
    membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """A cloned machine has the same id: it is told when to ask again, and finds that the first was heard meanwhile."""
    copy = Talker(membership, incarnation=2, boot_id="boot-2")
    copy.secret = talker.secret
    for _ in range(3):
        clock.move(seconds=3)
        talker.beat()
        clock.move(seconds=1)
        with pytest.raises(NameTaken, match="another machine") as refused:
            copy.come_back()
        assert refused.value.again_seconds == pytest.approx(4)


def test_a_quick_reboot_is_no_copy(store: SqlStore, talker: Talker, clock: HandClock) -> None:
    """The same address with another boot comes back once a beat is missing, long before its deadline."""
    clock.move(seconds=5.1)
    talker.come_back(incarnation=2, boot_id="boot-2")
    assert store.state.nodes[NODE].boot_id == "boot-2"


def test_an_agent_of_the_past_is_refused(talker: Talker) -> None:
    """Its registration or beat was delayed, or its folder put back from a backup."""
    talker.come_back(incarnation=5)
    with pytest.raises(NameTaken, match="started later"):
        talker.come_back(incarnation=4)
    with pytest.raises(UnknownNode):
        talker.beat()


@pytest.mark.parametrize("joined", [False, True], ids=["its own secret", "the cluster token"])
def test_a_data_folder_put_back_from_a_backup_is_let_in_after_a_deadline(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock, *, joined: bool
) -> None:
    """It counts its starts from where it was then; its beats count, and what runs by now it is told again."""
    talker.come_back(incarnation=5)
    for _ in range(3):
        talker.beat()
    allocation = place(store, client_status="running")
    clock.move(seconds=16)
    membership.step()
    assert store.state.nodes[NODE].status == "down"
    restored = Talker(membership, incarnation=4)
    restored.secret = talker.secret
    restored.join() if joined else restored.come_back()
    assert (store.state.nodes[NODE].status, store.state.nodes[NODE].incarnation) == ("ready", 4)
    stop(store, allocation)
    second = place(store, id="a2", index=1)
    assert [one.allocation.id for one in restored.settle().start] == [second.id]
    clock.move(seconds=10)
    restored.beat()
    clock.move(seconds=10)
    membership.step()
    assert store.state.nodes[NODE].status == "ready"


def test_a_backup_that_has_come_to_the_same_count(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """Its messages look like late ones of the agent before; once that one was silent for a deadline they are not."""
    for _ in range(5):
        talker.beat()
    restored = Talker(membership)
    restored.secret = talker.secret
    restored.come_back()
    restored.beat()
    clock.move(seconds=16)
    membership.step()
    assert store.state.nodes[NODE].status == "down"
    with pytest.raises(UnknownNode, match="register again"):
        restored.beat()
    restored.come_back()
    restored.settle()
    assert store.state.nodes[NODE].status == "ready"


def test_a_beat_without_news_writes_nothing(store: SqlStore, talker: Talker, clock: HandClock) -> None:
    """Neither the time nor what is in use is kept."""
    allocation = place(store, client_status="running")
    talker.hold(allocation)
    index = store.state.index
    for _ in range(3):
        clock.move(seconds=3)
        answer = talker.beat(an_update(allocation))
        assert (answer.send_holdings, answer.start, answer.stop) == (False, (), ())
    assert store.state.index == index


def test_what_is_in_use_is_kept_beside_the_store(
    membership: Membership, store: SqlStore, talker: Talker, clock: HandClock
) -> None:
    """That of the newest beat, for as long as the node beats: it changes with each, and is no change of the store."""
    assert membership.used(NODE) is None
    index = store.state.index
    for memory in (5, 7):
        talker.beat(used=NodeUse(memory_bytes=Bytes(memory)))
        assert membership.used(NODE) == NodeUse(memory_bytes=Bytes(memory))
    talker.beat(sequence=2, used=NodeUse(memory_bytes=Bytes(6)))
    assert membership.used(NODE) == NodeUse(memory_bytes=Bytes(7)), "a beat that comes late"
    assert store.state.index == index
    clock.move(seconds=20)
    assert membership.used(NODE) is None


def test_a_beat_brings_news_into_the_store(store: SqlStore, talker: Talker) -> None:
    """States of tasks, health and drivers, in one change with its event."""
    allocation = place(store)
    talker.hold(allocation)
    running = TaskState(state="running", pid=7)
    index = store.state.index
    talker.beat(
        an_update(allocation, tasks={"server": running}, healthy=True), drivers={"docker": DriverState()}
    )
    held = store.state.allocations[allocation.id]
    assert (held.client_status, held.tasks, held.healthy) == ("running", {"server": running}, True)
    assert store.state.nodes[NODE].drivers == {"docker": DriverState()}
    assert store.state.index == index + 1
    assert event_types(store)[-1] == "AllocationRunning"


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (
            TaskState(
                state="dead",
                failed=True,
                signal=15,
                events=(
                    TaskEvent(at=NOON, type="Driver failure", message="the engine was away"),
                    TaskEvent(at=NOON, type="Terminated", message="it ran longer than 10s: by signal 15"),
                    TaskEvent(at=NOON, type="Not restarting", message="no more"),
                ),
            ),
            "failed: task server: it ran longer than 10s: by signal 15",
        ),
        (
            TaskState(
                state="dead",
                failed=True,
                events=(TaskEvent(at=NOON, type="Driver failure", message="no such program"),),
            ),
            "failed: task server: no such program",
        ),
        (TaskState(state="dead", failed=True, exit_code=3), "failed: task server exited with 3"),
        (
            TaskState(state="dead", failed=True, oom_killed=True),
            "failed: task server was killed: out of memory",
        ),
    ],
)
def test_the_news_of_a_failure_says_what_its_agent_says_of_it(
    store: SqlStore, talker: Talker, task: TaskState, words: str
) -> None:
    allocation = place(store)
    talker.beat(an_update(allocation, "failed", tasks={"server": task}))

    told = [entry.value for entry in store.events(after=None, limit=1000)]
    assert told[-1].type == "AllocationFailed"
    assert told[-1].message.endswith(words)


def test_an_older_beat_changes_nothing(store: SqlStore, talker: Talker) -> None:
    """It was overtaken on the way."""
    allocation = place(store)
    talker.hold(allocation)
    talker.beat(an_update(allocation), sequence=9)
    answer = talker.beat(an_update(allocation, "pending"), sequence=4, holds=True)
    assert store.state.allocations[allocation.id].client_status == "running"
    assert (answer.send_holdings, answer.start, answer.stop) == (False, (), ())


@pytest.mark.parametrize("ended", ["complete", "failed"])
def test_what_has_ended_never_goes_back(store: SqlStore, talker: Talker, ended: str) -> None:
    """Whatever a confused agent says later."""
    allocation = place(store)
    talker.beat(an_update(allocation, ended, reason="exit code 3"))
    talker.beat(an_update(allocation, "running"))
    assert store.state.allocations[allocation.id].client_status == ended


def test_a_node_says_nothing_of_anothers_allocation(
    store: SqlStore, membership: Membership, talker: Talker
) -> None:
    """No node can act for another."""
    allocation = place(store)
    other = Talker(membership, "node-2")
    other.join()
    other.beat(an_update(allocation, "failed"))
    assert store.state.allocations[allocation.id].client_status == "pending"
    assert talker.secret != other.secret


def test_a_lost_start_is_mended(store: SqlStore, talker: Talker) -> None:
    """The digests differ, the node says what it holds, and gets what it lacks."""
    allocation = place(store)
    assert talker.beat().send_holdings
    (start,) = talker.beat(holds=True).start
    assert (start.allocation, start.group.name) == (allocation, "app")
    talker.hold(allocation)
    assert not talker.beat().send_holdings


def test_a_lost_update_in_place_is_mended(store: SqlStore, talker: Talker) -> None:
    """An older version than wanted is sent again."""
    talker.hold(place(store, client_status="running"))
    newer = place(store, client_status="running", version=2)
    (start,) = talker.settle().start
    assert start.allocation.job_version == newer.job_version == 2


def test_a_lost_stop_is_mended(store: SqlStore, talker: Talker) -> None:
    """With its reason; what is told to stop already is not told again."""
    allocation = place(store, client_status="running")
    talker.hold(allocation)
    stop(store, allocation, "job removed")
    (order,) = talker.settle().stop
    assert (order.id, order.reason) == (allocation.id, "job removed")
    talker.hold(store.state.allocations[allocation.id])
    assert not talker.beat().send_holdings


def test_a_stop_of_what_never_arrived_is_told_all_the_same(store: SqlStore, talker: Talker) -> None:
    """Its start may still be on its way: the agent keeps a tombstone, and its word ends the matter."""
    allocation = place(store)
    stop(store, allocation)
    assert [order.id for order in talker.settle().stop] == [allocation.id]
    assert not talker.settle(an_update(allocation, "complete", tasks={}, healthy=None)).stop
    assert store.state.allocations[allocation.id].is_terminal


def test_what_runs_though_it_ended_here_is_stopped(store: SqlStore, talker: Talker) -> None:
    """An allocation that failed is replaced: it may not run beside its replacement."""
    allocation = place(store)
    talker.hold(allocation)
    talker.beat(an_update(allocation, "failed"))
    assert [order.id for order in talker.settle().stop] == [allocation.id]


def test_an_orphan_is_stopped_after_a_grace(store: SqlStore, talker: Talker, clock: HandClock) -> None:
    """60 seconds, in which a mistake can be put right (contract, section 4)."""
    place(store)
    talker.held["stranger"] = HoldingKey(id=AllocationId("stranger"), version=1, desired_status="run")
    for _ in range(20):
        assert not talker.settle().stop
        clock.move(seconds=3)
    (order,) = talker.settle().stop
    assert (order.id, order.reason) == ("stranger", "not needed")


def test_the_end_of_a_stranger_needs_no_tombstone(talker: Talker) -> None:
    """The agent is told so a few times, as answers may be lost."""
    said = [talker.beat(an_update(an_allocation(id="stranger"), "complete")).forget]
    said += [talker.beat().forget for _ in range(5)]
    assert said[0] == ("stranger",)
    assert said[-1] == ()
    holding = a_holding(an_allocation(id="old"), client_status="complete")
    talker.come_back(allocations=(holding,))
    assert talker.beat().forget == ("old",)


def test_what_retention_dropped_is_forgotten_by_the_node(membership: Membership, talker: Talker) -> None:
    """With its next beats."""
    membership.forget(NODE, AllocationId("a"))
    membership.forget(NodeId("nobody"), AllocationId("b"))
    assert talker.beat().forget == ("a",)


def test_a_returning_agent_tells_how_all_it_holds_is(store: SqlStore, talker: Talker) -> None:
    """Also what ended while it could not say so."""
    one, two = place(store), place(store, index=1)
    talker.come_back(
        incarnation=2,
        allocations=(a_holding(one, client_status="running"), a_holding(two, client_status="failed")),
    )
    state = store.state
    assert [state.allocations[held.id].client_status for held in (one, two)] == ["running", "failed"]


def test_a_node_of_a_far_release_is_incompatible(store: SqlStore, membership: Membership) -> None:
    """Its tasks run on, nothing is placed, and what to do is said."""
    Talker(membership, protocol=9).join()
    assert store.state.nodes[NODE].status == "incompatible"
    assert event_types(store) == ["NodeIncompatible"]


def test_many_nodes_beat_more_rarely(store: SqlStore, membership: Membership) -> None:
    """So that all together are bearable."""
    assert membership.rhythm.heartbeat_seconds == pytest.approx(10 / 3)
    with store.transaction() as tx:
        for number in range(10_000):
            tx.put_node(a_node(f"n{number}"))
    assert membership.rhythm.heartbeat_seconds == 10
    assert membership.rhythm.deadline_seconds == 35


def test_beats_of_one_node_are_taken_in_one_after_another(store: SqlStore, talker: Talker) -> None:
    """However many threads they come by: the newest one's news stays."""
    allocation = place(store)
    talker.hold(allocation)

    def beat(number: int) -> None:
        task = TaskState(state="running", restarts=number)
        talker.beat(an_update(allocation, tasks={"server": task}), sequence=number)

    with ThreadPoolExecutor(max_workers=8) as pool:
        for done in [pool.submit(beat, number) for number in range(1, 41)]:
            done.result()
    assert store.state.allocations[allocation.id].tasks["server"].restarts == 40


def test_a_full_disk_makes_no_node_silent(
    store: SqlStore, membership: Membership, talker: Talker, clock: HandClock
) -> None:
    """What it said was not kept, and it says it again; it was heard all the same."""
    allocation = place(store)
    clock.move(seconds=10)
    raw = store._connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    raw.execute("PRAGMA query_only=1")
    with pytest.raises(StoreUnavailable):
        talker.beat(an_update(allocation))
    membership.step()
    clock.move(seconds=4)
    membership.step()
    raw.execute("PRAGMA query_only=0")
    talker.beat(an_update(allocation))
    assert store.state.nodes[NODE].status == "ready"
    assert store.state.allocations[allocation.id].client_status == "running"


def test_a_registration_that_comes_late_takes_nothing_back(
    membership: Membership, talker: Talker, store: SqlStore
) -> None:
    """It was sent before the beat that said the task runs, and is older news."""
    early = talker.request
    held = an_allocation(node=store.state.nodes[early.node_id], id="a1", client_status="pending")
    with store.transaction() as tx:
        tx.put_allocation(held)
    talker.hold(held)
    talker.settle(an_update(held, "running"))
    late = msgspec.structs.replace(early, allocations=(a_holding(held, client_status="pending"),))
    membership.register(late, joined=False, secret=talker.secret, peer="")
    assert store.state.allocations[held.id].client_status == "running"


def test_a_registration_that_came_late_after_a_restart_is_put_right_by_the_next_beat(
    talker: Talker, store: SqlStore, clock: HandClock
) -> None:
    """A server that just started cannot know that it is old news, so it asks for all that is held."""
    early = talker.request
    held = an_allocation(node=store.state.nodes[early.node_id], id="a1", client_status="pending")
    with store.transaction() as tx:
        tx.put_allocation(held)
    talker.hold(held)
    talker.settle(an_update(held, "running"))
    restarted = Membership(store, clock, CountingIds(first=10**7), MembershipSettings())
    late = msgspec.structs.replace(early, allocations=(a_holding(held, client_status="pending"),))
    restarted.register(late, joined=False, secret=talker.secret, peer="")
    assert store.state.allocations[held.id].client_status == "pending"
    talker.membership = restarted
    assert talker.beat().send_holdings
    talker.beat(an_update(held, "running"), holds=True)
    assert store.state.allocations[held.id].client_status == "running"
