"""The real clock and the real source of ids: what every room is given in production."""

import gc
import time
import uuid
from datetime import UTC, datetime
from typing import Final

_COLLECT_AFTER: Final = (50_000, 20, 20)


class SystemClock:
    """The machine's clocks, as `trueup.models.clock.Clock`."""

    def now(self) -> datetime:
        """The wall clock, aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back and do not follow corrections of the wall clock."""
        return time.monotonic()


class RandomIds:
    """Random ids, as `trueup.models.ids.IdSource`."""

    def new_id(self) -> str:
        """32 hexadecimal digits with 122 random bits."""
        return uuid.uuid4().hex


def collect_seldom() -> None:
    """Has Python look for cycles seldom: a cluster in memory is many small values that are part of none."""
    gc.set_threshold(*_COLLECT_AFTER)
