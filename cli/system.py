"""The real clock and the real source of ids: what every room is given in production."""

import contextlib
import gc
import resource
import time
import uuid
from datetime import UTC, datetime
from typing import Final

_COLLECT_AFTER: Final = (50_000, 20, 20)
_MANY_FILES: Final = 2**19
"""What systemd gives every service as its hard limit."""


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


def allow_many_files() -> None:
    """Lets this process open as many files as it may: the usual 1024 are fewer than the tasks of a full node.

    What is allowed beyond that to who asks for it (the hard limit) is meant for programs like this one, which use no
    `select`. Tasks do not inherit it: they have limits of their own.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
    if soft not in {resource.RLIM_INFINITY, wanted} and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def collect_seldom() -> None:
    """Has Python look for cycles seldom: a cluster in memory is many small values that are part of none."""
    gc.set_threshold(*_COLLECT_AFTER)
