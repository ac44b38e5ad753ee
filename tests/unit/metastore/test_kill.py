"""kill -9 at any instant: what was said to be durable is there, and what is there is whole."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from metastore.store import SqlStore
from tests.builders import CountingIds
from tests.unit.metastore.talking import HandClock
from trueup.models.fit import usage_of

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("lines", [1, 7, 40])
def test_a_killed_writer_loses_nothing_it_promised(tmp_path: Path, lines: int) -> None:
    """The next server opens the folder at once and finds a state that was committed whole."""
    folder = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.unit.metastore.writing", str(folder)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        promised = 0
        for _ in range(lines):
            promised = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        rest = process.stdout.read().split()
    promised = int(rest[-1]) if rest else promised
    store = SqlStore.open(folder, HandClock(), CountingIds())
    try:
        state = store.state
        assert state.index >= promised
        assert sorted(held.index for held in state.allocations.values()) == [0, 1, 2]
        assert {held.id.split("-")[0] for held in state.allocations.values()} == {str(state.index)}
        newest = store.events(after=None, limit=1, newest_first=True)[0]
        assert (newest.index, newest.value.message) == (state.index, str(state.index))
        assert len(store.outbox()) == state.index - 1
        for node_id in state.nodes:
            assert usage_of(state.allocations_on_node(node_id)) == state.usage(node_id)
    finally:
        store.close()
    with sqlite3.connect(folder / "trueup.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()
