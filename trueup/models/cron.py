"""When a schedule is due. Cron times are wall-clock times of a zone, so two rules meet at a change of clocks.

Where minute and hour are plain numbers, a skipped local time runs at the first valid instant and a repeated one
once; wildcards, steps and ranges follow the clock.
"""

import re
from datetime import UTC, datetime, timedelta
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

_PLAIN: Final = re.compile(r"[0-9,]+")
_REPEATED: Final = timedelta(hours=1)
"""How much of the clock a change of clocks repeats at most."""


class NeverDue(ValueError):
    """Each field is sound, but no time meets all of them."""


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
        if _is_sound_by_field(expression):
            raise NeverDue(f"{cron!r} never fires: the month has no such day") from error
        raise ValueError(f"{cron!r} is no schedule: {error}") from error
    return expression


def next_run(schedule: Schedule, after: datetime) -> datetime | None:
    """The first scheduled time later than *after*, in UTC; None if there is none within cronsim's 50 years."""
    found = CronSim(_expression(schedule), after.astimezone(ZoneInfo(schedule.timezone)))
    return next((due for one in found if (due := one.astimezone(UTC)) > after), None)


def newest_due_run(schedule: Schedule, after: datetime, now: datetime) -> datetime | None:
    """The latest scheduled time in (*after*, *now*], in UTC; None if there is none."""
    begin = _next_minute(now)
    local = begin.astimezone(ZoneInfo(schedule.timezone))
    if local.fold:
        # A repeated hour: what is later on the clock may have been due the first time round.
        local = (begin + _REPEATED).astimezone(local.tzinfo)
    found = CronSim(_expression(schedule), local, reverse=True)
    newest = next((due for one in found if (due := one.astimezone(UTC)) <= now), None)
    return newest if newest is not None and newest > after else None


def _is_sound_by_field(expression: str) -> bool:
    """Whether only day and month together were at fault."""
    minute, hour, day, month, weekday = expression.split()
    try:
        for alone in (f"{minute} {hour} {day} * {weekday}", f"{minute} {hour} * {month} {weekday}"):
            CronSim(alone, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError:
        return False
    return True


def _expression(schedule: Schedule) -> str:
    """What cronsim reads by our rule: a field for seconds makes it follow the clock, which it does not for ranges."""
    fields = five_fields(schedule.cron)
    minute, hour = fields.split()[:2]
    return fields if _PLAIN.fullmatch(minute) and _PLAIN.fullmatch(hour) else f"0 {fields}"


def _next_minute(moment: datetime) -> datetime:
    whole = moment.replace(second=0, microsecond=0).timestamp() + 60
    return datetime.fromtimestamp(whole, UTC)
