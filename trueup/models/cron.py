"""When a schedule is due. Cron times are wall-clock times of a zone, so two rules meet at a change of clocks.

Where minute and hour are plain numbers, a skipped local time runs at the first valid instant and a repeated one
once; wildcards, steps and ranges follow the clock (Debian cron's rule, which cronsim keeps).
"""

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from trueup.models.job import Schedule

NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


def five_fields(cron: str) -> str:
    """The five fields of an expression or nickname. ValueError with a hint if it is neither."""
    expression = NICKNAMES.get(cron.strip(), cron.strip())
    if len(expression.split()) != 5:
        raise ValueError(
            f"{cron!r} is no schedule; write five fields (minute hour day month weekday) or one of "
            + " ".join(NICKNAMES)
        )
    try:
        CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(f"{cron!r} is no schedule: {error}") from error
    return expression


def next_run(schedule: Schedule, after: datetime) -> datetime | None:
    """The first scheduled time later than *after*, in UTC; None if there is none within cronsim's 50 years."""
    zone = ZoneInfo(schedule.timezone)
    iterator = CronSim(five_fields(schedule.cron), after.astimezone(zone))
    try:
        return next(iterator).astimezone(UTC)
    except StopIteration:
        return None


def newest_due_run(schedule: Schedule, after: datetime, now: datetime) -> datetime | None:
    """The latest scheduled time in (*after*, *now*], in UTC; None if there is none."""
    zone = ZoneInfo(schedule.timezone)
    iterator = CronSim(five_fields(schedule.cron), _next_minute(now).astimezone(zone), reverse=True)
    try:
        newest = next(iterator).astimezone(UTC)
    except StopIteration:
        return None
    return newest if after < newest <= now else None


def _next_minute(moment: datetime) -> datetime:
    whole = moment.replace(second=0, microsecond=0).timestamp() + 60
    return datetime.fromtimestamp(whole, UTC)
