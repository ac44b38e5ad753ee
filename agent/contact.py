"""What the agent knows of the control plane: whether it was heard, and whether its stops may be obeyed. Thread-safe.

The contract's section 4: an agent never goes back to a lower epoch, and while the control plane is adopting, or when
it meets another epoch or a lower index, it obeys no stop. What it once heard is in the journal, so that this outlives
the agent.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from agent.journal import Journal
from trueup.models.clock import Clock

Word = Literal["obey", "start only", "refuse"]
"""What may be done of an answer: all of it, its starts, or nothing."""

_HEARD_STEP: Final = 0.1
"""How exactly the last contact is kept over the agent's death, as a share of the span that depends on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """A reading: *heard* since this agent started, *silent_since* (steady) the last answer."""

    heard: bool
    silent_since: datetime | None


class Standing:
    """How agent and control plane stand to each other."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._lock = threading.Lock()
        # Steady time: the wall clock at the start and the monotonic time since, so that no jump ends a task.
        self._wall_at_start = clock.now()
        self._monotonic_at_start = clock.monotonic()
        self._heard = False
        self._adopting = True
        self._silent_since: datetime | None = None
        known = journal.identity.heard_at
        if known is not None:
            self._silent_since = min(known, self._wall_at_start)
        self._on_heard: Callable[[], None] = _nothing
        self._span = timedelta()

    def when_heard(self, listener: Callable[[], None]) -> None:
        """Calls *listener* when the control plane is heard for the first time, on the thread that heard it."""
        self._on_heard = listener

    def keep_to(self, shortest: timedelta | None) -> None:
        """Says the shortest `stop_after` of what is held (None: nothing depends on the last contact)."""
        self._span = shortest or timedelta()

    @property
    def steady(self) -> datetime:
        """Steady time now."""
        return self._wall_at_start + timedelta(seconds=self._clock.monotonic() - self._monotonic_at_start)

    def wall(self, steady: datetime) -> datetime:
        """The wall clock's reading at the steady time *steady*, unless it is set meanwhile."""
        return self._clock.now() + (steady - self.steady)

    @property
    def contact(self) -> Contact:
        """The reading now."""
        return Contact(heard=self._heard, silent_since=self._silent_since)

    @property
    def obeys_stops(self) -> bool:
        """Whether stops that come by themselves (pushes) may be obeyed."""
        return self._heard and not self._adopting

    def judge_push(self, epoch: int | None) -> Word:
        """What may be done of a push whose sender says its *epoch* (None: it does not say)."""
        known = self._journal.identity.epoch
        if epoch is not None and epoch < known:
            return "refuse"
        if not self.obeys_stops or (epoch is not None and epoch != known):
            return "start only"
        return "obey"

    def hear(self, *, epoch: int, index: int, adopting: bool) -> Word:
        """Takes an answer in and says what may be done of it. Writes to the journal what later answers are held to."""
        with self._lock:
            identity = self._journal.identity
            if epoch < identity.epoch:
                return "refuse"
            news = identity.epoch not in {0, epoch}
            older = epoch == identity.epoch and index < identity.index
            self._adopting = adopting
            self._silent_since = self.steady
            self._journal.change_identity(
                epoch=epoch,
                index=index if epoch != identity.epoch else max(index, identity.index),
                heard_at=self._heard_at(identity.heard_at),
            )
            first, self._heard = not self._heard, True
        if first:
            self._on_heard()
        return "start only" if adopting or news or older else "obey"

    def _heard_at(self, kept: datetime | None) -> datetime | None:
        if not self._span:
            return None
        now = self._clock.now()
        return kept if kept is not None and abs(now - kept) < self._span * _HEARD_STEP else now


def _nothing() -> None:
    return None
