"""Points in time as the store compares them: whole milliseconds since 1970, UTC."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


@lru_cache(maxsize=64)
def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970; *moment* is aware. Kept for a few: all that a commit appends is of one moment."""
    return (moment - _START) // _MILLISECOND
