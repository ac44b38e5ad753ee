"""Writes for ever, and says on stdout which index is durable: run by a test, which kills it."""

import sys
from pathlib import Path

from metastore.store import SqlStore
from tests.builders import NOON, CountingIds, a_job, a_node, a_record, a_version, an_allocation
from tests.unit.metastore.talking import HandClock
from trueup.models.evaluation import Event


def main(folder: Path) -> None:
    """Puts, replaces and drops, each transaction a whole."""
    store = SqlStore.open(folder, HandClock(), CountingIds())
    job, node = a_job(count=3), a_node()
    with store.transaction() as tx:
        tx.put_version(a_version(job))
        tx.put_job(a_record(job))
        tx.put_node(node)
    number = store.state.index
    while True:
        number += 1
        with store.transaction() as tx:
            for held in list(tx.state.allocations.values()):
                tx.drop_allocation(held.id)
            for index in range(3):
                tx.put_allocation(an_allocation(job, node, index=index, id=f"{number}-{index}"))
            tx.push(node.id, an_allocation(job, node).id, "start")
            tx.put_event(Event(at=NOON, type="Written", message=str(number)))
        sys.stdout.write(f"{store.state.index}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
