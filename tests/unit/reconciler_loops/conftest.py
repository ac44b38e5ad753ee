"""A real store, a clock that is moved by hand, and the loops over them."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from metastore.store import SqlStore
from tests.builders import NOON, CountingIds


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = NOON

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return (self.moment - NOON).total_seconds()

    def move(self, **span: float) -> None:
        self.moment += timedelta(**span)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(tmp_path: Path, clock: HandClock) -> Iterator[SqlStore]:
    opened = SqlStore.open(tmp_path / "data", clock, CountingIds(first=10**9))
    yield opened
    opened.close()
