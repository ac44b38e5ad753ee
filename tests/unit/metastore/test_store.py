"""Transactions: all or nothing, durable, and nothing written where nothing changed."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from metastore.errors import NameConflict, StoreUnavailable
from metastore.store import SqlStore
from tests.builders import NOON, a_job, a_node, a_record, a_version, an_allocation
from trueup.models.commit import Committed
from trueup.models.evaluation import Event
from trueup.models.ids import NodeId, RevisionId
from trueup.models.revision import Held, Revision, SourceStatus
from trueup.models.template import ClusterSettings, NodePolicy, Template


def put_job(store: SqlStore, count: int = 1) -> None:
    with store.transaction() as tx:
        tx.put_version(a_version(a_job(count=count)))
        tx.put_job(a_record(a_job(count=count)))
        tx.put_node(a_node())


def test_what_was_committed_is_there_after_a_restart(open_store: Callable[[], SqlStore]) -> None:
    """Everything the state has comes back as it was."""
    store = open_store()
    put_job(store)
    held = Held(revision=RevisionId("r2"), reason="too much", removes=("web",), confirm="abc")
    with store.transaction() as tx:
        tx.put_allocation(an_allocation())
        tx.put_template(Template(name="web", job={"groups": [{"name": "app", "count": "{{ count }}"}]}))
        tx.put_node_policy(NodePolicy(name="node-1", labels={"disk": "ssd"}))
        tx.put_settings(ClusterSettings(placement="spread"))
        tx.set_revision(RevisionId("r1"), held)
        tx.set_source(SourceStatus(kind="git", url="https://example.org/a.git", last_success_at=NOON))
        tx.push(NodeId("id-node-1"), an_allocation().id, "start")
    before, pushes = store.state.copy(), store.outbox()
    store = open_store()
    assert store.state == before
    assert store.outbox() == pushes
    assert store.state.held == held


def test_an_error_inside_leaves_no_trace(store: SqlStore, open_store: Callable[[], SqlStore]) -> None:
    """Neither in memory nor in the file, and the next transaction begins from what was committed."""
    put_job(store)
    before = store.state.copy()

    def fail() -> None:
        with store.transaction() as tx:
            tx.put_allocation(an_allocation())
            tx.drop_job("web")
            tx.set_revision(RevisionId("r9"), None)
            tx.put_event(Event(at=NOON, type="Lost", message="never happened"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.state == before
    with store.transaction() as tx:
        assert tx.state == before
    assert open_store().state == before


def test_a_transaction_sees_its_own_puts_and_no_one_else_does(store: SqlStore) -> None:
    """Until it is committed."""
    with store.transaction() as tx:
        tx.put_node(a_node())
        assert tx.state.node_named("node-1") is not None
        assert store.state.node_named("node-1") is None
        assert tx.next_index == store.state.index + 1
    assert store.state.node_named("node-1") is not None


def test_what_changed_nothing_writes_nothing(store: SqlStore, tmp_path: Path) -> None:
    """The index stays, the listeners hear nothing, and not a byte of the files changes."""
    put_job(store)
    heard: list[Committed] = []
    store.subscribe(heard.append)
    files = [tmp_path / "data" / name for name in ("trueup.db", "trueup.db-wal")]
    before, index = [file.read_bytes() for file in files], store.state.index
    put_job(store)
    with store.transaction() as tx:
        tx.put_allocation(an_allocation())
        tx.drop_allocation(an_allocation().id)
        tx.drop_job("unknown")
    assert (store.state.index, heard) == (index, [])
    assert [file.read_bytes() for file in files] == before


def test_a_revision_seen_again_as_it_was_writes_nothing(store: SqlStore) -> None:
    """An unchanged tree is looked at often."""
    revision = Revision(id=RevisionId("r1"), seen_at=NOON, state="applied")
    for _ in range(2):
        with store.transaction() as tx:
            tx.put_revision(revision)
    assert store.state.index == 1
    assert store.newest_revision() == store.revision(RevisionId("r1")) == revision
    assert store.revision(RevisionId("r2")) is None


def test_the_time_of_the_last_success_is_no_change(
    store: SqlStore, open_store: Callable[[], SqlStore]
) -> None:
    """It is shown at once, and kept with the next change."""
    with store.transaction() as tx:
        tx.set_source(SourceStatus(url="specs"))
    with store.transaction() as tx:
        tx.set_source(SourceStatus(url="specs", last_success_at=NOON))
    assert (store.state.index, store.state.source.last_success_at) == (1, NOON)
    assert store.snapshot().source.last_success_at == NOON
    put_job(store)
    assert open_store().state.source.last_success_at == NOON


def test_a_name_is_wanted_once(store: SqlStore) -> None:
    """The database refuses it, whatever the code believed; the names are said."""
    put_job(store, count=2)
    with store.transaction() as tx:
        tx.put_allocation(an_allocation(id="one"))
    with pytest.raises(NameConflict, match=r"web\.app\[0\]"), store.transaction() as tx:
        tx.put_allocation(an_allocation(id="two"))
    assert list(store.state.allocations) == ["one"]


def test_a_replacement_takes_a_name_over_in_one_transaction(store: SqlStore) -> None:
    """Whatever the order of the puts, and also in a swap."""
    put_job(store)
    one, two = an_allocation(id="one"), an_allocation(id="two")
    with store.transaction() as tx:
        tx.put_allocation(one)
    with store.transaction() as tx:
        tx.put_allocation(two)
        tx.put_allocation(msgspec.structs.replace(one, desired_status="stop", reason="updating"))
    assert [held.id for held in store.state.allocations.values() if held.is_wanted] == ["two"]
    with store.transaction() as tx:
        tx.put_allocation(one)
        tx.put_allocation(msgspec.structs.replace(two, desired_status="stop", reason="updating"))
    assert [held.id for held in store.state.allocations.values() if held.is_wanted] == ["one"]


def test_a_system_job_wants_its_name_once_a_node(store: SqlStore) -> None:
    """And no other job does."""
    system = a_job("logs", type="system")
    with store.transaction() as tx:
        tx.put_version(a_version(system))
        tx.put_job(a_record(system))
        for node in (a_node("node-1"), a_node("node-2")):
            tx.put_allocation(an_allocation(system, node))
    with pytest.raises(NameConflict), store.transaction() as tx:
        tx.put_allocation(an_allocation(system, a_node("node-1"), id="twin"))


def test_the_outbox_hands_out_and_takes_off(open_store: Callable[[], SqlStore]) -> None:
    """Pushes of a commit are gone for good with the transaction after the last of them; before, they may come again."""
    store = open_store()
    put_job(store)
    for indexes in ((0, 1), (2, 3)):
        with store.transaction() as tx:
            for index in indexes:
                tx.push(NodeId("n"), an_allocation(index=index).id, "start")
    first, second, third, fourth = store.outbox()
    store.pushed([first.number, second.number, third.number, 99])
    assert store.outbox() == (fourth,)
    with store.transaction() as tx:
        tx.put_node(a_node("node-2"))
    store = open_store()
    assert store.outbox() == (third, fourth)
    store.pushed([third.number, fourth.number])
    with store.transaction() as tx:
        tx.push(NodeId("n"), an_allocation().id, "stop")
    assert store.outbox()[-1].number > fourth.number
    store = open_store()
    assert len(store.outbox()) == 1


def test_listeners_hear_names_after_the_commit(store: SqlStore) -> None:
    """What changed, who has new pushes, and whether room came free."""
    put_job(store)
    heard: list[tuple[Committed, int]] = []
    store.subscribe(lambda committed: heard.append((committed, store.state.index)))
    allocation = an_allocation()
    with store.transaction() as tx:
        tx.put_allocation(allocation)
        tx.push(allocation.node_id, allocation.id, "start")
    with store.transaction() as tx:
        tx.put_allocation(msgspec.structs.replace(allocation, client_status="complete"))
    (first, at_first), (second, _) = heard
    assert (set(first.jobs), set(first.outbox), first.room_freed) == ({"web"}, {allocation.node_id}, False)
    assert at_first == first.index
    assert second.room_freed


def test_transactions_do_not_nest(store: SqlStore) -> None:
    """It would wait for itself for ever."""
    with store.transaction(), pytest.raises(RuntimeError, match="wait for itself"), store.transaction():
        pass


def test_a_closed_store_takes_nothing(store: SqlStore) -> None:
    """And closing twice does no harm."""
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable), store.transaction():
        pass


def test_a_snapshot_does_not_move(store: SqlStore) -> None:
    """The state does; the snapshot is made once an index."""
    put_job(store)
    snapshot = store.snapshot()
    assert store.snapshot() is snapshot
    with store.transaction() as tx:
        tx.put_allocation(an_allocation())
    assert not snapshot.allocations
    assert store.snapshot().allocations
