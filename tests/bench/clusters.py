"""Clusters as benchmarks need them: everything placed, running and at rest."""

import msgspec

from metastore.store import SqlStore
from reconciler.loop import ReconcileLoop
from tests.unit.reconciler_loops.conftest import HandClock
from trueup.models.allocation import TaskState


def bring_to_rest(store: SqlStore, loop: ReconcileLoop, clock: HandClock) -> None:
    """Everything is placed, runs, is healthy, and its rollout is over."""
    loop.step()
    running = TaskState(state="running", started_at=clock.now())
    with store.transaction() as tx:
        for held in list(tx.state.allocations.values()):
            tx.put_allocation(
                msgspec.structs.replace(
                    held, client_status="running", healthy=True, tasks={"server": running}
                )
            )
    for _ in range(4):
        clock.move(minutes=3)
        loop.step()
