"""What is to be said of tasks that were told to end and have not yet: since when, and how far that got. Pure.

A task's `state` stays `running` for as long as it runs. One in uninterruptible sleep (on a disk or file server that
hangs) may do so long after it was killed, and holds its room and ports until it has ended.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, Protocol

_BEGINS: Final = "Stopping"
_GOES_ON: Final = "Killing"


class Event(Protocol):
    """Something that happened to a task; *at* is None where an older release does not say."""

    @property
    def at(self) -> datetime | None: ...
    @property
    def type(self) -> str: ...
    @property
    def message(self) -> str: ...


class Task(Protocol):
    """A task as its agent reported it, its events in order."""

    @property
    def state(self) -> str: ...
    @property
    def events(self) -> Sequence[Event]: ...


def stopping_words(tasks: Iterable[Task]) -> str:
    """`stopping since 12:00:03 UTC: still running after 5s`, of what has been stopping longest; else empty."""
    found = [
        words for task in tasks if task.state == "running" and (words := _of_task(task.events)) is not None
    ]
    return min(found)[1] if found else ""


def _of_task(events: Sequence[Event]) -> tuple[str, str] | None:
    """The words, and by what they are sorted."""
    newest = events[-1] if events else None
    if newest is None or newest.type not in {_BEGINS, _GOES_ON}:
        return None
    begun = next((event.at for event in reversed(events) if event.type == _BEGINS), newest.at)
    since = "" if begun is None else f" since {begun:%H:%M:%S} UTC"
    how = f": {newest.message}" if newest.type == _GOES_ON and newest.message else ""
    return ("" if begun is None else begun.isoformat(), f"stopping{since}{how}")
