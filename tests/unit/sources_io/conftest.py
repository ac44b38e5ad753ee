"""A clock that stands still, and a repository."""

from pathlib import Path

import pytest

from tests.require import require
from tests.unit.sources_io.repository import ManualClock, Repo


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    require("git")
    return Repo(tmp_path / "repo")
