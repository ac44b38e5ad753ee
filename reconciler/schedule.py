"""Which scheduled run is due, by the contract's rules of overlap and catch-up. Cron arithmetic is `models/cron`."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from trueup.models.allocation import Allocation
from trueup.models.cron import newest_due_run, next_run
from trueup.models.record import JobRecord, JobVersion

PUNCTUAL: Final = timedelta(seconds=10)
"""A run looked at within this after its time is on time, not missed: a pass takes a moment, and a control plane
that restarts at the full minute should not lose the minute. Below any cron step, so it never doubles a run."""


class DueRun(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """*starts_at*: the run to begin now. *considered_at*: the newest scheduled time now decided upon, begun or not.

    *replaces_running*: runs under way end first (`overlap: replace`). *next_at*: when the next one is due.
    """

    starts_at: datetime | None = None
    considered_at: datetime | None = None
    replaces_running: bool = False
    next_at: datetime | None = None


def due_run(
    version: JobVersion,
    record: JobRecord | None,
    allocations: Sequence[Allocation],
    now: datetime,
    *,
    under_way: bool,
) -> DueRun:
    """The run that is due at *now*, if any; *under_way*: an earlier one goes on. Only jobs with a schedule."""
    schedule = version.job.schedule
    if schedule is None:
        raise ValueError(f"job {version.job.name} has no schedule")
    next_at = next_run(schedule, now)
    replaces = under_way and schedule.overlap == "replace"
    if record is not None and record.last_run_token != version.job.restart_token:
        if under_way and schedule.overlap == "forbid":
            # It was asked for and stays so: it begins once what runs has ended.
            return DueRun(next_at=next_at)
        at = now.replace(microsecond=0)
        return DueRun(starts_at=at, considered_at=at, replaces_running=replaces, next_at=next_at)
    due = newest_due_run(schedule, _decided_until(version, record, allocations), now)
    if due is None:
        return DueRun(next_at=next_at)
    if now - due > max(schedule.catch_up, PUNCTUAL) or (under_way and schedule.overlap == "forbid"):
        return DueRun(considered_at=due, next_at=next_at)
    return DueRun(starts_at=due, considered_at=due, replaces_running=replaces, next_at=next_at)


def _decided_until(
    version: JobVersion, record: JobRecord | None, allocations: Sequence[Allocation]
) -> datetime:
    """The newest scheduled time that was decided upon. A run is known by its time: what ran at it is not run again."""
    noted = None if record is None else record.last_run_at
    ran = [held.run for held in allocations if held.run is not None]
    if noted is None and not ran:
        return version.created_at if record is None else record.created_at
    return max([*ran, *([] if noted is None else [noted])])
