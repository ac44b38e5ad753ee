"""The reconcile loop: takes dirty jobs, evaluates each, and commits the plans.

Level-triggered: whatever marked a job, a pass reads the state anew, and a pass over a job that is as wanted writes
nothing. A job whose evaluation fails hurts no other: its error is shown, and it is tried again ever more rarely.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from reconciler.changes import earliest
from reconciler.dirty import DirtyJobs
from reconciler.doors import Store, Transaction
from reconciler.evaluate import evaluate
from reconciler.executor import Executor
from trueup.models.clock import Clock
from trueup.models.ids import IdSource

FULL_PASS_EVERY: Final = timedelta(minutes=2)
BATCH_SECONDS: Final = 0.1
"""How long one transaction may go on planning before it commits: heartbeats wait for it."""
ADOPTION_LOOK: Final = timedelta(milliseconds=50)
RETRY_FIRST: Final = timedelta(seconds=1)
RETRY_MOST: Final = timedelta(minutes=5)


class ReconcileLoop:
    """Steps when woken by a commit (`wake`), or when a timer is due.

    *adopting* says whether the control plane still listens to what agents hold: nothing is decided until then, nor
    before a revision was applied. *wake* is called after commits of others, from their threads.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: IdSource,
        *,
        adopting: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store, self._clock, self._ids = store, clock, ids
        self._adopting = adopting
        self._dirty = DirtyJobs()
        self._executor = Executor(ids)
        self._failures: dict[str, int] = {}
        self._full_pass_at: datetime | None = None
        self._log = structlog.stdlib.get_logger("trueup.reconcile")
        store.subscribe(self._dirty.note)

    def step(self) -> datetime | None:
        """Evaluates every job that is dirty now, in batches of one transaction each."""
        now = self._clock.now()
        if self._adopting():
            return now + ADOPTION_LOOK
        if self._store.state.revision is None:
            return None
        if self._full_pass_at is None or now >= self._full_pass_at:
            self._dirty.mark_all(self._store.state)
            self._full_pass_at = now + FULL_PASS_EVERY
        waiting = self._dirty.take(self._store.state, now)
        while waiting:
            waiting = self._batch(waiting)
        return earliest([self._full_pass_at, self._dirty.next_due()])

    def _batch(self, names: list[str]) -> list[str]:
        """Evaluates as many of *names* as time allows, and returns the rest."""
        try:
            return self._commit(names)
        except Exception:
            if len(names) == 1:
                raise
            # One of them cannot be written: each in a transaction of its own, so that it stops no other.
            self._log.exception("a batch of plans did not commit", jobs=len(names))
            self._executor.clear()
            for name in names:
                self._alone(name)
            return []

    def _commit(self, names: list[str]) -> list[str]:
        began = self._clock.monotonic()
        looks: dict[str, datetime | None] = {}
        taken = 0
        with self._store.transaction() as tx:
            for name in names:
                looks[name] = self._evaluate(name, tx)
                taken += 1
                if self._clock.monotonic() - began > BATCH_SECONDS:
                    break
        for name, at in looks.items():
            self._dirty.look_at(name, at)
        return names[taken:]

    def _alone(self, name: str) -> None:
        try:
            self._commit([name])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this job's alone
            self._executor.clear()
            with self._store.transaction() as tx:
                look_at = self._failed(name, error, tx)
            self._dirty.look_at(name, look_at)

    def _evaluate(self, name: str, tx: Transaction) -> datetime | None:
        """One pass over one job; returns when to look again."""
        now = self._clock.now()
        if name not in tx.state.jobs:
            return None
        try:
            outcome = evaluate(name, tx.state, now, self._ids)
        except Exception as error:  # noqa: BLE001 - the fault of one job ends no other's pass
            return self._failed(name, error, tx)
        self._failures.pop(name, None)
        self._executor.enqueue(outcome)
        if name in self._executor.execute(tx, now):
            self._dirty.mark(name)
        return outcome.changes.next_look

    def _failed(self, name: str, error: Exception, tx: Transaction) -> datetime:
        """Shows the error at its job, and says when to try again."""
        now = self._clock.now()
        failures = self._failures.get(name, 0)
        self._failures[name] = failures + 1
        self._log.error("evaluation failed", job=name, exc_info=error)
        held = tx.state.jobs.get(name)
        message = (
            f"the scheduler failed on this job ({type(error).__name__}: {error}); what runs of it runs on"
        )
        if held is not None and held.error != message:
            tx.put_job(msgspec.structs.replace(held, error=message, modified_at=now))
        pause: timedelta = min(RETRY_FIRST * 2 ** min(failures, 16), RETRY_MOST)
        return now + pause
