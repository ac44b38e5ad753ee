"""Tells webhooks what needs a person: looks at the state, sends what is due, keeps in the store what was told.

Level-triggered: what is sent follows from what is wrong now and what was told, so a restart repeats nothing and
forgets no end. One delivery a webhook at a time, each on a thread of its own: a receiver that hangs holds up itself
alone. A crash between a delivery and its note sends it once more.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog

from trueup.models.clock import Clock
from trueup.models.codec import to_json
from trueup.models.commit import Committed
from trueup.models.evaluation import Event
from trueup.models.notice import Told
from trueup.models.state import ClusterState
from trueup.notifications.causes import Cause, Key, cluster_causes, job_causes
from trueup.notifications.telling import NOTHING_SEEN, Hook, Notice, due, hooks, look, payload
from trueup.notifications.webhook import Outcome, post
from trueup.signing import sign

LOOK_EVERY: Final = timedelta(milliseconds=500)
"""Looks are so far apart, however often something changes."""
RETRY_FIRST: Final = timedelta(seconds=5)
RETRY_MOST: Final = timedelta(minutes=5)
AT_ONCE: Final = 16
"""So many deliveries are under way at most, of however many webhooks."""
_ASKED_MOST: Final = timedelta(hours=1)


class Transaction(Protocol):
    """One write of the store."""

    @property
    def state(self) -> ClusterState: ...
    def set_told(self, told: tuple[Told, ...]) -> None: ...
    def put_event(self, event: Event) -> None: ...


class Store(Protocol):
    """The store, as far as telling needs it."""

    @property
    def state(self) -> ClusterState: ...
    def transaction(self) -> AbstractContextManager[Transaction]: ...
    def subscribe(self, listener: Callable[[Committed], None]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivery:
    hook: Hook
    notice: Notice
    outcome: Outcome


@dataclass(slots=True)
class _Failing:
    """A webhook whose deliveries fail: how often in a row, why, and when it is tried again."""

    times: int
    problem: str
    again_at: datetime


class NoticeLoop:
    """Steps when woken by a commit or the end of a delivery, or when something is due.

    *secret* gives the value of a secret by its name, LookupError with what to do if there is none. *allowed_hosts* are
    the hosts that webhooks may go to; none: none goes out. *wake* is to be set to what wakes the loop.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        secret: Callable[[str], str],
        allowed_hosts: Collection[str],
        retry_first: timedelta = RETRY_FIRST,
    ) -> None:
        self._store, self._clock = store, clock
        self._secret = secret
        self._allowed_hosts = allowed_hosts
        self._retry_first = retry_first
        self._began_at, self._began_monotonic = clock.now(), clock.monotonic()
        self.wake: Callable[[], None] = lambda: None
        self._noted: deque[Committed] = deque()
        self._done: deque[_Delivery] = deque()
        self._busy: set[str] = set()
        self._failing: dict[str, _Failing] = {}
        self._of_jobs: dict[str, list[Cause]] = {}
        self._seen = NOTHING_SEEN
        self._knows_jobs = False
        self._looked_at: datetime | None = None
        self._log = structlog.stdlib.get_logger("trueup.notifications")
        store.subscribe(self._note)

    def step(self) -> datetime | None:
        """Takes in what was delivered, looks at the state, and sends what is due."""
        while self._done:
            # Taken off once it is noted: a store that cannot be written must not have it sent again.
            self._take(self._done[0])
            self._done.popleft()
        wanted = hooks(self._store.state.settings.notifications)
        self._forget({hook.id for hook in wanted})
        if not wanted:
            self._seen, self._knows_jobs, self._looked_at = NOTHING_SEEN, False, None
            self._noted.clear()
            return None
        now = self._steady()
        if self._looked_at is not None and now - self._looked_at < LOOK_EVERY:
            return self._clock.now() + (self._looked_at + LOOK_EVERY - now)
        self._looked_at = now
        told = self._store.state.told
        self._seen = look(self._seen, self._causes(), told, now)
        looks = [at for hook in wanted if (at := self._tell(hook, told, now)) is not None]
        return self._clock.now() + (min(looks) - now) if looks else None

    def _steady(self) -> datetime:
        """The time without the jumps that a wall clock makes: what lasts is measured by it."""
        return self._began_at + timedelta(seconds=self._clock.monotonic() - self._began_monotonic)

    def _note(self, committed: Committed) -> None:
        # While there are no webhooks this must cost nothing: the first look with one is at all jobs anyway.
        if self._knows_jobs:
            self._noted.append(committed)
        self.wake()

    def _causes(self) -> Mapping[Key, Cause]:
        """All there are now; jobs are asked again only if something of them changed."""
        state = self._store.state
        names = set[str]()
        if not self._knows_jobs:
            self._knows_jobs = True
            self._of_jobs.clear()
            names.update(list(state.jobs))
        while self._noted:
            names |= self._noted.popleft().jobs
        for name in names:
            try:
                found = job_causes(state, name)
            except KeyError:
                found = []  # it was dropped while it was looked at; the commit that did so is noted
            if found:
                self._of_jobs[name] = found
            else:
                self._of_jobs.pop(name, None)
        causes = [one for of_job in self._of_jobs.values() for one in of_job]
        return {one.key: one for one in [*causes, *cluster_causes(state)]}

    def _tell(self, hook: Hook, told: tuple[Told, ...], now: datetime) -> datetime | None:
        """Sends one thing that is due; returns when to look at this webhook again."""
        if hook.id in self._busy or len(self._busy) >= AT_ONCE:
            return None  # the end of a delivery wakes the loop
        found = due(hook, self._seen, told, now)
        if not found.notices:
            return found.next_at
        failing = self._failing.get(hook.id)
        if failing is not None and failing.again_at > now:
            return failing.again_at
        self._busy.add(hook.id)
        # One that the receiver never takes must not keep the others from it.
        notice = found.notices[0 if failing is None else failing.times % len(found.notices)]
        threading.Thread(target=self._deliver, args=(hook, notice), name="webhook", daemon=True).start()
        return None

    def _deliver(self, hook: Hook, notice: Notice) -> None:
        try:
            outcome = self._post(hook, notice)
        except LookupError as error:
            outcome = Outcome(problem=str(error.args[0]))
        except Exception as error:  # noqa: BLE001 - whatever it is, the webhook is not to stay busy for ever
            outcome = Outcome(problem=f"this is a fault of trueup ({type(error).__name__})")
        self._done.append(_Delivery(hook=hook, notice=notice, outcome=outcome))
        self.wake()

    def _post(self, hook: Hook, notice: Notice) -> Outcome:
        now = self._clock.now()
        url = hook.url if isinstance(hook.url, str) else self._secret(hook.url.secret).strip()
        body = to_json(payload(notice, cluster_id=self._store.state.cluster_id, now=now))
        message, at = f"{notice.told.id}-{notice.status}", str(int(now.timestamp()))
        headers = {"webhook-id": message, "webhook-timestamp": at}
        if hook.secret:
            headers["webhook-signature"] = sign(self._secret(hook.secret).strip(), message, at, body)
        return post(url, body, headers, allowed_hosts=self._allowed_hosts)

    def _take(self, delivery: _Delivery) -> None:
        hook, notice, problem = delivery.hook, delivery.notice, delivery.outcome.problem
        if problem:
            self._failed(hook, delivery.outcome)
        else:
            with self._store.transaction() as tx:
                others = tuple(
                    one for one in tx.state.told if (one.hook, one.id) != (hook.id, notice.told.id)
                )
                tx.set_told((*others, notice.told) if notice.status == "firing" else others)
            if self._failing.pop(hook.id, None) is not None:
                self._log.info("webhook works again", webhook=_name(hook))
        self._busy.discard(hook.id)
        self._looked_at = None

    def _failed(self, hook: Hook, outcome: Outcome) -> None:
        problem = outcome.problem
        earlier = self._failing.get(hook.id)
        times = 0 if earlier is None else earlier.times
        pause = min(self._retry_first * 2 ** min(times, 16), RETRY_MOST)
        asked = min(timedelta(seconds=outcome.retry_after_seconds), _ASKED_MOST)
        if earlier is None or earlier.problem != problem:
            message = f"the webhook {_name(hook)} takes nothing: {problem}"
            with self._store.transaction() as tx:
                tx.put_event(Event(at=self._clock.now(), type="NotificationFailed", message=message))
            self._log.warning("webhook failed", webhook=_name(hook), problem=problem)
        self._failing[hook.id] = _Failing(
            times=times + 1, problem=problem, again_at=self._steady() + max(pause, asked)
        )

    def _forget(self, known: Collection[str]) -> None:
        """A webhook that the Cluster document names no more is told nothing more, also no end."""
        for gone in self._failing.keys() - known:
            del self._failing[gone]
        if any(one.hook not in known for one in self._store.state.told):
            with self._store.transaction() as tx:
                tx.set_told(tuple(one for one in tx.state.told if one.hook in known))


def _name(hook: Hook) -> str:
    """What may be shown of it: the path of an address is often a secret."""
    if not isinstance(hook.url, str):
        return f"of secret {hook.url.secret}"
    parts = urlsplit(hook.url)
    return f"at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
