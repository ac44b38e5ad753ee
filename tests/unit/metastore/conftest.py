"""A real store in a folder of its own, a clock that is moved by hand, and nodes that talk to the membership."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metastore.membership import Membership, MembershipSettings
from metastore.store import SqlStore
from tests.builders import CountingIds
from tests.unit.metastore.talking import HandClock, Talker


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def open_store(tmp_path: Path, clock: HandClock) -> Iterator[Callable[[], SqlStore]]:
    """Opens the store of the same folder again and again; the one before is closed first."""
    opened: list[SqlStore] = []
    ids = CountingIds()

    def open_it() -> SqlStore:
        for store in opened:
            store.close()
        opened.append(SqlStore.open(tmp_path / "data", clock, ids))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], SqlStore]) -> SqlStore:
    return open_store()


@pytest.fixture
def membership(store: SqlStore, clock: HandClock) -> Membership:
    return Membership(store, clock, CountingIds(first=10**6), MembershipSettings(expected_nodes=1))


@pytest.fixture
def talker(membership: Membership) -> Talker:
    """An agent that has joined."""
    agent = Talker(membership)
    agent.join()
    return agent
