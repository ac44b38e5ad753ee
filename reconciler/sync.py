"""From the spec source to the store: reads a revision and registers it, in one transaction.

A source that cannot be read changes nothing but the note of it. Looking at an unchanged source writes nothing.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from reconciler.doors import SourceUnavailable, SpecSource, Store, Transaction
from reconciler.register import register, write
from trueup.models.clock import Clock
from trueup.models.desired import DesiredState
from trueup.models.evaluation import Event
from trueup.models.revision import SourceStatus

ADOPTION_LOOK: Final = timedelta(milliseconds=50)
SHOWN_NAMES: Final = 20


class SyncLoop:
    """Steps when the source's watch wakes it, or when the source says to look again.

    *adopting*: nothing is registered while the control plane still listens to what agents hold, since a first
    revision is compared with that.
    """

    def __init__(
        self,
        source: SpecSource,
        store: Store,
        clock: Clock,
        *,
        adopting: Callable[[], bool] = lambda: False,
        atomic: bool = False,
    ) -> None:
        """*atomic*: a revision with any invalid document is held whole."""
        self._source, self._store, self._clock = source, store, clock
        self._atomic = atomic
        self._adopting = adopting
        self._registered: DesiredState | None = None
        self._has_read = False
        self._trouble = ""
        self._log = structlog.stdlib.get_logger("trueup.source")

    @property
    def has_read(self) -> bool:
        """Whether a revision was read since this control plane started, and what came of it is in the store."""
        return self._has_read

    def step(self) -> datetime | None:
        """Reads the source, and registers what is new."""
        if self._adopting():
            return self._clock.now() + ADOPTION_LOOK
        try:
            desired = self._source.read(self._store.state.revision)
        except SourceUnavailable as error:
            self._note_trouble(str(error))
        else:
            self._trouble = ""
            if desired != self._registered:
                self._register(desired)
                self._registered = desired
            self._has_read = True
        self._note_source()
        return self._source.next_look

    def _note_trouble(self, error: str) -> None:
        """Once for each cause: it is tried every second, and /status has the age of the last success."""
        if error != self._trouble:
            self._log.warning("the source cannot be read; what runs stays as it is", error=error)
        self._trouble = error

    def _register(self, desired: DesiredState) -> None:
        now = self._clock.now()
        with self._store.transaction() as tx:
            registration = register(tx.state, desired, now, atomic=self._atomic)
            if registration.is_known_to(tx.state):
                return
            self._supersede_held(desired, tx)
            write(registration, tx.state, tx, now, self._store.revision)
        if registration.held is not None:
            self._log.warning("revision held", revision=desired.commit.id, reason=registration.held.reason)
        else:
            names = sorted(registration.jobs_changed)
            more = [f"and {len(names) - SHOWN_NAMES} more"] if len(names) > SHOWN_NAMES else []
            self._log.info("revision applied", revision=desired.commit.id, jobs=names[:SHOWN_NAMES] + more)
        for error in registration.errors:
            self._log.warning("invalid", error=str(error))

    def _supersede_held(self, desired: DesiredState, tx: Transaction) -> None:
        """A held revision that is not the newest any more will never be applied."""
        held = tx.state.held
        if held is None or held.revision == desired.commit.id:
            return
        earlier = self._store.revision(held.revision)
        if earlier is not None:
            tx.put_revision(msgspec.structs.replace(earlier, state="superseded"))

    def _note_source(self) -> None:
        """Keeps the source's trouble in the store while it lasts; successes alone write nothing."""
        held = self._store.state.source
        status = self._source.status.with_success_of(held)
        before, after = _remotes_in_trouble(held), _remotes_in_trouble(status)
        if (status.error, status.kind, status.url, after) == (held.error, held.kind, held.url, before):
            return
        with self._store.transaction() as tx:
            tx.set_source(status)
            if status.error != held.error:
                tx.put_event(_event(status, self._clock.now()))
                return
            for url in sorted(before.keys() | after.keys()):
                if after.get(url) != before.get(url):
                    tx.put_event(_remote_event(url, after.get(url, ""), self._clock.now()))


def _remotes_in_trouble(status: SourceStatus) -> dict[str, str]:
    """How it is with each remote that is not followed because of trouble; being behind is none."""
    return {
        remote.url: remote.state for remote in status.remotes if remote.state in {"unreachable", "diverged"}
    }


def _remote_event(url: str, trouble: str, now: datetime) -> Event:
    if trouble:
        return Event(at=now, type="RemoteUnavailable", message=f"{url} is {trouble}; see `trueup status`")
    return Event(at=now, type="RemoteAvailable", message=f"{url} can be read again")


def _event(status: SourceStatus, now: datetime) -> Event:
    if status.error:
        return Event(at=now, type="SourceUnavailable", message=status.error)
    return Event(at=now, type="SourceAvailable", message="the source can be read again")
