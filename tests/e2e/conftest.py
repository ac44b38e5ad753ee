"""What end-to-end tests begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Up


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """`trueup up`, not started yet: a test writes its first specs, then calls `start`. All ends with the test."""
    made = Up(tmp_path)
    yield made
    made.end()
