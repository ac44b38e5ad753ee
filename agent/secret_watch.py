"""Looks now and then whether secrets changed that running tasks want to be told of.

Part of the runner's loop, on its thread, but for the look itself: a folder may be slow, so a worker reads it. A secret
that cannot be read now has not changed.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

import structlog

from agent.contact import Standing
from agent.doors import SecretMissing, Secrets, Workers
from agent.record import AllocationRecord
from agent.secret_changes import SeenSecret, reactions
from agent.secret_policy import SecretPolicy
from agent.value_digests import ValueDigests
from trueup.models.ids import AllocationId
from trueup.models.wire import Assignment

LOOK_EVERY: Final = timedelta(seconds=5)
_log = structlog.stdlib.get_logger("trueup.agent")


class SecretWatch:
    """Which allocations watch which secrets, and what was seen of them."""

    def __init__(
        self,
        *,
        secrets: Secrets,
        policy: SecretPolicy,
        digests: ValueDigests,
        workers: Workers,
        standing: Standing,
        hand_in: Callable[[Callable[[], None]], None],
        changed: Callable[[AllocationId], None],
    ) -> None:
        self._secrets = secrets
        self._policy = policy
        self._digests = digests
        self._workers = workers
        self._standing = standing
        self._hand_in = hand_in
        self._changed = changed
        self._watched: dict[AllocationId, frozenset[str]] = {}
        self._seen: dict[str, SeenSecret] = {}
        self._is_looking = False
        self._look_at: datetime | None = None

    @property
    def next_at(self) -> datetime | None:
        """When to look again; None while nothing is watched, or a look is under way."""
        return None if self._is_looking or not self._watched else self._look_at

    def hold(self, assignment: Assignment, record: AllocationRecord) -> None:
        """Takes in what an allocation's tasks watch; nothing any more once they have ended."""
        allocation = assignment.allocation
        self.let_go(allocation.id)
        names = {name for task in assignment.group.tasks for name in reactions(task)}
        allowed = frozenset(name for name in names if self._policy.allows(name, allocation.job))
        if allowed and not record.has_ended:
            self._watched[allocation.id] = allowed
            self._look_at = self._standing.steady

    def let_go(self, allocation_id: AllocationId) -> None:
        """The allocation watches none."""
        self._watched.pop(allocation_id, None)

    def view(self, allocation_id: AllocationId) -> Mapping[str, SeenSecret]:
        """What was seen of the secrets that an allocation watches, by name."""
        watched = self._watched.get(allocation_id, frozenset())
        return {name: self._seen[name] for name in sorted(watched) if name in self._seen}

    def step(self, steady: datetime) -> None:
        """Has a worker look, when it is due."""
        due = self.next_at
        if due is None or due > steady:
            return
        names = sorted(frozenset().union(*self._watched.values()))
        self._is_looking, self._look_at = True, steady + LOOK_EVERY
        self._workers.submit("secrets", lambda: self._look(names))

    def _look(self, names: Iterable[str]) -> None:
        found: dict[str, str] = {}
        for name in names:
            try:
                found[name] = self._digests.of(self._secrets.value(name))
            except SecretMissing:
                continue
            except Exception:  # noqa: BLE001 - a look that never came back would be the last one
                _log.exception("secret cannot be looked at", secret=name)
        self._hand_in(lambda: self._take(found))

    def _take(self, found: Mapping[str, str]) -> None:
        self._is_looking = False
        steady = self._standing.steady
        news = {name for name, digest in found.items() if self._differs(name, digest)}
        self._seen.update({name: SeenSecret(digest=found[name], since=steady) for name in news})
        for allocation_id, watched in self._watched.items():
            if watched & news:
                self._changed(allocation_id)

    def _differs(self, name: str, digest: str) -> bool:
        seen = self._seen.get(name)
        return seen is None or seen.digest != digest
