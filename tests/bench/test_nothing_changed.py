"""What it costs that nothing changed: a look at a tree of 1,000 jobs, and a full pass over them.

A look: no store write and under 50 ms of CPU, beside a bare walk with a stat of each file. A full pass over 1,000
jobs and 10,000 allocations: under 0.3 s of CPU and no write, beside reading each allocation's fields once.
"""

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec

from metastore.store import SqlStore
from reconciler.evaluate import evaluate
from reconciler.invariants import violations
from reconciler.loop import ReconcileLoop
from reconciler.sync import SyncLoop
from tests.bench.clusters import bring_to_rest
from tests.bench.measure import cpu_timed, figure, in_turns, note, sample, title
from tests.bench.trees import write_tree
from tests.builders import CountingIds, a_node
from tests.unit.reconciler_loops.conftest import HandClock
from trueup.sources.spec_source import TreeSpecSource, directory_source

JOBS, ALLOCATIONS_EACH, NODES = 1_000, 10, 20
ROUNDS = 9
LOOK_LIMIT_MS = 50
PASS_LIMIT_SECONDS = 0.3


def test_a_look_at_an_unchanged_tree(tmp_path: Path) -> None:
    title(f"A look at an unchanged tree of {JOBS} jobs")
    with _applied(tmp_path) as (store, _, clock, source):
        sync = SyncLoop(source, store, clock)
        sync.step()
        index, written = store.state.index, _written(tmp_path)
        reference, ours = in_turns(
            ROUNDS, lambda: cpu_timed(lambda: _walk(tmp_path / "specs")), lambda: cpu_timed(sync.step)
        )
        assert (store.state.index, _written(tmp_path)) == (index, written), "a look wrote to the store"
    sample("walk and stat, CPU", reference)
    sample("look: source, comparison, store, CPU", ours)
    note(
        f"that is {statistics.median(ours) / statistics.median(reference):.1f} times the bare walk; no write"
    )
    figure("CPU of a look", statistics.median(ours) * 1000, LOOK_LIMIT_MS, "ms")


def test_a_full_pass(tmp_path: Path) -> None:
    title(f"A full pass over {JOBS} jobs and {JOBS * ALLOCATIONS_EACH} allocations")
    with _applied(tmp_path) as (store, loop, clock, _):
        state, ids = store.state, CountingIds()
        names = sorted(state.jobs)
        index, written = state.index, _written(tmp_path)

        def whole() -> float:
            clock.move(minutes=3)
            return cpu_timed(loop.step)

        reference, pure, full = in_turns(
            ROUNDS,
            lambda: cpu_timed(lambda: [msgspec.structs.asdict(one) for one in state.allocations.values()]),
            lambda: cpu_timed(lambda: [evaluate(name, state, clock.now(), ids) for name in names]),
            whole,
        )
        assert (state.index, _written(tmp_path)) == (index, written), "a pass wrote to the store"
    sample("each allocation as a dict, CPU", reference)
    sample("evaluate each job, CPU", pure)
    sample("step of the reconcile loop, CPU", full)
    note(
        f"the step is {statistics.median(full) / statistics.median(reference):.1f} times the dicts; no write"
    )
    figure("CPU of a full pass", statistics.median(full), PASS_LIMIT_SECONDS, "s")


@contextmanager
def _applied(folder: Path) -> Iterator[tuple[SqlStore, ReconcileLoop, HandClock, TreeSpecSource]]:
    """A real store in which all of a real tree runs, healthy, and every rollout is over."""
    clock = HandClock()
    write_tree(folder / "specs", JOBS, count=ALLOCATIONS_EACH)
    source = directory_source([folder / "specs"], clock, removal_settle=timedelta(0))
    store = SqlStore.open(folder / "data", clock, CountingIds(first=10**9))
    try:
        with store.transaction() as tx:
            for number in range(NODES):
                tx.put_node(a_node(f"node-{number}", cpu=64, memory="256GiB"))
        SyncLoop(source, store, clock).step()
        loop = ReconcileLoop(store, clock, CountingIds())
        bring_to_rest(store, loop, clock)
        assert len(store.state.allocations) == JOBS * ALLOCATIONS_EACH
        assert not violations(store.state)
        yield store, loop, clock, source
    finally:
        source.close()
        store.close()


def _walk(folder: Path) -> int:
    return sum(Path(place, name).stat().st_size for place, _, names in os.walk(folder) for name in names)


def _written(folder: Path) -> list[tuple[str, int, int]]:
    """Size and time of the store's file and of its log."""
    found = sorted((folder / "data").glob("trueup.db*"))
    return [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in found if "shm" not in path.name
    ]
