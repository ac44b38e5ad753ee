"""A large cluster as the control plane has it, with its store: 100,000 allocations committed, one more, and no change.

Beside them what SQLite itself takes for as many rows of the same size, with as many indexes.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metastore.store import SqlStore
from reconciler.loop import ReconcileLoop
from tests.bench.clusters import bring_to_rest
from tests.bench.measure import cpu_timed, figure, note, sample, timed, title
from tests.builders import CountingIds, a_job, a_node, a_record, a_version
from tests.unit.reconciler_loops.conftest import HandClock
from trueup.models.ids import RevisionId
from trueup.models.job import Constraint, Spread
from trueup.models.node import Node

NODES, ALLOCATIONS = 10_000, 100_000
COMMITTED_SECONDS, ONE_MORE_MS, FULL_PASS_SECONDS = 3.0, 20.0, 3.0


def test_a_hundred_thousand_committed_in_groups_of_a_thousand(tmp_path: Path) -> None:
    title(f"{ALLOCATIONS} allocations on {NODES} unlike nodes, planned and committed")
    with _cluster(tmp_path, jobs=100, count=1_000) as (store, loop, _):
        rows = timed(lambda: _plain_rows(tmp_path / "plain.db"))
        began = time.process_time()
        seconds = timed(loop.step)
        spent = time.process_time() - began
        assert len(store.state.allocations) == ALLOCATIONS
    sample("as many rows of 740 bytes, three indexes, one commit", [rows])
    sample("planned and committed, wall", [seconds])
    note(f"that is {seconds / rows:.1f} times the rows alone; CPU {spent:.2f} s")
    figure(f"seconds of CPU for {ALLOCATIONS}, committed", spent, COMMITTED_SECONDS, "s")


def test_one_more_among_many(tmp_path: Path) -> None:
    jobs = 10_000
    title(f"One allocation more among {NODES} nodes, {jobs} jobs and {ALLOCATIONS} allocations")
    with _cluster(tmp_path, jobs=jobs, count=ALLOCATIONS // jobs) as (store, loop, clock):
        bring_to_rest(store, loop, clock)
        full = _full_pass(loop, clock)
        added = []
        for number in range(20):
            _add_job(store, f"one-more-{number}", 1)
            added.append(cpu_timed(loop.step))
        assert len(store.state.allocations) == ALLOCATIONS + 20
    sample("one more job of one, planned and committed, CPU", added)
    figure("CPU of one more, the slowest", max(added) * 1000, ONE_MORE_MS, "ms")
    sample("a pass over all of it that changes nothing, CPU", [full])
    figure("CPU of that pass", full, FULL_PASS_SECONDS, "s")


@pytest.mark.parametrize("spread", [False, True], ids=["", "spread over racks"])
@pytest.mark.parametrize("nodes", [500, 5_000, 10_000])
def test_grid(tmp_path: Path, nodes: int, *, spread: bool) -> None:
    title(f"One job on {nodes} empty nodes{', spread over 50 racks' if spread else ''}")
    for count in (50, 600, 1_200):
        with _cluster(tmp_path / str(count), jobs=0, count=0, nodes=nodes) as (store, loop, _):
            loop.step()
            _add_job(store, "grid", count, spread=spread)
            seconds = cpu_timed(loop.step)
            assert len(store.state.allocations) == count
        note(
            f"{count:5} placed and committed: {seconds * 1000:8.1f} ms of CPU, {count / seconds:8.0f} a second"
        )


@contextmanager
def _cluster(
    folder: Path, *, jobs: int, count: int, nodes: int = NODES
) -> Iterator[tuple[SqlStore, ReconcileLoop, HandClock]]:
    clock = HandClock()
    store = SqlStore.open(folder / "data", clock, CountingIds(first=10**9))
    try:
        with store.transaction() as tx:
            for number in range(nodes):
                tx.put_node(_node(number))
            tx.set_revision(RevisionId("r1"), None)
        loop = ReconcileLoop(store, clock, CountingIds())
        for number in range(jobs):
            _add_job(store, f"j{number:05}", count, number)
        yield store, loop, clock
    finally:
        store.close()


def _node(number: int) -> Node:
    labels = {"rack": str(number % 50), "disk": "ssd" if number % 3 else "hdd"}
    return a_node(f"n{number:05d}", cpu=8 + number % 17, memory=f"{16 + number % 31}GiB", labels=labels)


def _add_job(store: SqlStore, name: str, count: int, number: int = 0, *, spread: bool = False) -> None:
    constraint = Constraint(attribute="node.labels.disk", operator="=", value="ssd")
    job = a_job(
        name,
        count=count,
        cpu=0.1 + number % 7 / 10,
        memory=f"{64 + number % 500}MiB",
        constraints=(constraint,) if number % 2 else (),
        spreads=(Spread(attribute="node.labels.rack"),) if spread else (),
    )
    with store.transaction() as tx:
        tx.put_version(a_version(job))
        tx.put_job(a_record(job))


def _full_pass(loop: ReconcileLoop, clock: HandClock) -> float:
    clock.move(minutes=3)
    return cpu_timed(loop.step)


def _plain_rows(path: Path) -> None:
    with sqlite3.connect(path) as plain:
        plain.execute("PRAGMA journal_mode=WAL")
        plain.execute("CREATE TABLE held (id TEXT PRIMARY KEY, job TEXT, node TEXT, status TEXT, body BLOB)")
        for column in ("job", "node", "status"):
            plain.execute(f"CREATE INDEX by_{column} ON held ({column})")
        body = b"x" * 600
        plain.executemany(
            "INSERT INTO held VALUES (?, ?, ?, ?, ?)",
            ((f"{n:032x}", f"j{n % 100}", f"n{n % NODES}", "run", body) for n in range(ALLOCATIONS)),
        )
    plain.close()
