"""Many read while one writes; those who wait are woken; a fault of the disk is said and passes."""

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from metastore.errors import StoreUnavailable
from metastore.store import SqlStore
from tests.builders import NOON, a_job, a_node, a_record, a_version, an_allocation
from trueup.models.evaluation import Event


def write_pairs(store: SqlStore, rounds: int) -> None:
    """Each transaction changes two things that belong together, and says so in an event."""
    for number in range(rounds):
        with store.transaction() as tx:
            for index in (0, 1):
                tx.put_allocation(an_allocation(a_job(count=2), index=index, reason=str(number)))
            tx.put_event(Event(at=NOON, type="Round", message=str(number)))


def test_readers_see_whole_commits_while_one_writes(store: SqlStore) -> None:
    """A snapshot holds both halves of a change or neither, and the history is never ahead of the index."""
    done = threading.Event()

    def read() -> int:
        seen = 0
        while not done.is_set():
            snapshot = store.snapshot()
            reasons = {held.reason for held in snapshot.allocations.values()}
            assert len(reasons) <= 1
            assert snapshot.index >= seen
            seen = snapshot.index
            newest = store.events(after=None, limit=1, newest_first=True)
            assert not newest or newest[0].index <= store.state.index + 1
            for held in store.state.allocations_on_node(a_node().id):
                assert held.job == "web"
        return seen

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            write_pairs(store, 40)
        finally:
            done.set()
        assert all(reader.result() <= store.state.index for reader in readers)
    assert store.state.index == 40


def test_writers_come_one_after_another(store: SqlStore) -> None:
    """No change is lost between threads that each build on what was there."""

    def count_up(times: int) -> None:
        for _ in range(times):
            with store.transaction() as tx:
                node = tx.state.nodes.get(a_node().id, a_node(incarnation=0))
                tx.put_node(msgspec.structs.replace(node, incarnation=node.incarnation + 1))

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(count_up, 20) for _ in range(4)]:
            done.result()
    assert store.state.nodes[a_node().id].incarnation == 80
    assert store.state.index == 80


def test_who_waits_is_woken_by_the_next_change(store: SqlStore) -> None:
    """And sees it."""
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(store.wait_newer, 0, 10.0)
        with store.transaction() as tx:
            tx.put_node(a_node())
        assert waiting.result(timeout=5) == 1
    assert store.wait_newer(0, 0.0) == 1
    assert store.wait_newer(1, 0.001) == 1


@pytest.mark.parametrize("wake", [SqlStore.wake_all, SqlStore.close])
def test_the_end_wakes_all_who_wait(store: SqlStore, wake: Callable[[SqlStore], None]) -> None:
    """A server that stops waits for nobody."""
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(store.wait_newer, 0, 60.0) for _ in range(5)]
        while not all(one.done() for one in waiting):
            wake(store)
        assert {one.result() for one in waiting} == {0}


def test_a_full_disk_is_said_and_passes(store: SqlStore, open_store: Callable[[], SqlStore]) -> None:
    """Nothing of the change stays, reading goes on, and once there is room writing does."""
    with store.transaction() as tx:
        tx.put_version(a_version(a_job()))
        tx.put_job(a_record(a_job()))
    before = store.state.copy()
    limit(store, pages=1)
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        write_big(store)
    assert "the disk is full" in store.not_writable()
    assert store.state == before
    assert store.snapshot() == before
    limit(store, pages=2**30)
    store.probe()
    assert store.not_writable() == ""
    write_big(store)
    assert open_store().state.allocations


def test_a_write_that_goes_through_ends_the_fault(store: SqlStore) -> None:
    """Without a probe."""
    limit(store, pages=1)
    with pytest.raises(StoreUnavailable):
        write_big(store)
    limit(store, pages=2**30)
    write_big(store)
    assert store.not_writable() == ""


def write_big(store: SqlStore) -> None:
    with store.transaction() as tx:
        for index in range(200):
            tx.put_allocation(an_allocation(index=index))


def limit(store: SqlStore, *, pages: int) -> None:
    """Has SQLite itself refuse to grow the file, with the very error of a full disk."""
    raw = store._connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    raw.execute(f"PRAGMA max_page_count={pages}")
