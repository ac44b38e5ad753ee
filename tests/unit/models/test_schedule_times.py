"""Scheduled times at a change of clocks, minute by minute: never in the past, never twice, never forgotten."""

from datetime import UTC, datetime, timedelta

import pytest

from trueup.models.cron import newest_due_run, next_run
from trueup.models.job import Schedule

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("begin", "run"),
    [
        (datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        (datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
    ],
)
def test_a_fixed_time_is_due_once_in_a_night_that_repeats_or_skips_it(begin: datetime, run: datetime) -> None:
    nightly = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    for minute in range(8 * 60):
        now = begin + timedelta(minutes=minute)
        following = next_run(nightly, now)
        assert following is not None
        assert following > now
        assert (following == run) == (now < run)
        assert (newest_due_run(nightly, now - DAY, now) == run) == (now >= run)


@pytest.mark.parametrize("cron", ["30 * * * *", "30 0-23 * * *", "30 */1 * * *"])
def test_wildcards_ranges_and_steps_follow_the_clock(cron: str) -> None:
    hourly = Schedule(cron=cron, timezone="Europe/Berlin")
    for day in (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)):
        runs = [day]
        while runs[-1] < day + timedelta(hours=5):
            following = next_run(hourly, runs[-1])
            assert following is not None
            runs.append(following)
        assert runs[1:] == [day + timedelta(hours=number, minutes=30) for number in range(6)]
        for run in runs[1:]:
            assert newest_due_run(hourly, day, run + timedelta(minutes=59)) == run


def test_a_range_skips_what_the_clock_skips() -> None:
    early = Schedule(cron="30 2-2 * * *", timezone="Europe/Berlin")
    assert next_run(early, datetime(2026, 3, 28, 12, tzinfo=UTC)) == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)
