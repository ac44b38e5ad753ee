"""The check that a container's image brings along (HEALTHCHECK), beside the checks of its task. Pure.

The engine makes it; what it says counts as one check more of a task that runs.
"""

from collections.abc import Mapping
from typing import Final

from agent.instructions import CheckView
from agent.record import TaskRecord

_PASSING: Final[Mapping[str, bool | None]] = {"healthy": True, "unhealthy": False}
_FAILS: Final = "the HEALTHCHECK of its image fails"


def image_passes(record: TaskRecord) -> bool | None:
    """Whether it passes; None while it has yet to say."""
    return _PASSING.get(record.image_health)


def all_checks(record: TaskRecord, view: CheckView | None) -> CheckView | None:
    """What the checks of a task, as *view* has them, and that of its image say together; None where there are none."""
    mine = view if view is not None and view.attempt == record.attempt else None
    if not record.image_health or record.phase != "running":
        return mine
    image = image_passes(record)
    if mine is None:
        return CheckView(attempt=record.attempt, passing=image, detail=_FAILS if image is False else "")
    if mine.passing is False or image is True:
        return mine
    return CheckView(
        attempt=record.attempt,
        passing=image,
        detail=_FAILS if image is False else mine.detail,
        exhausted=mine.exhausted,
    )
