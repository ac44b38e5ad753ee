"""Whether and when an ended task starts again on its node. Pure.

Source: Nomad's `restart` block, with a sliding interval in place of one that begins with the first restart.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from trueup.models.job import Restart
from trueup.models.units import format_duration

_JITTER: Final = 0.25
"""How much longer a delay gets at most, so that tasks that fail together do not start together for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """It starts again at *at*; *earlier* are the restarts that count from now on, this one among them."""

    at: datetime
    earlier: tuple[datetime, ...]
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoMore:
    """It has ended for good, because *message*."""

    message: str


def decide_restart(
    policy: Restart, earlier: tuple[datetime, ...], steady: datetime, jitter: float
) -> Again | NoMore:
    """What the policy says of an end at *steady*, given the *earlier* restarts. *jitter* from 0 to 1."""
    if policy.attempts <= 0:
        return NoMore(message="the restart policy allows no attempts")
    counted = tuple(point for point in earlier if point > steady - policy.interval)
    if len(counted) < policy.attempts:
        delay = policy.delay * (1 + _JITTER * jitter)
        message = (
            f"in {_in_words(delay)} (restart {len(counted) + 1} of {policy.attempts} "
            f"in {format_duration(policy.interval)})"
        )
        return Again(at=steady + delay, earlier=(*counted, steady), message=message)
    if policy.mode == "fail":
        message = f"{policy.attempts} restarts in {format_duration(policy.interval)} are used up"
        return NoMore(message=message)
    free_at = max(counted[-policy.attempts] + policy.interval, steady + policy.delay)
    at = free_at + policy.delay * _JITTER * jitter
    counted = (*counted, at)[-policy.attempts :]
    return Again(at=at, earlier=counted, message=f"in {_in_words(at - steady)} (mode delay)")


def _in_words(span: timedelta) -> str:
    if span < timedelta(seconds=10):
        return format_duration(span)
    return format_duration(timedelta(seconds=round(span.total_seconds())))
