"""What the control plane has to be told: updates not yet answered, and the digest of all that is held. Thread-safe.

The runner puts in what it has written to the journal; the heartbeat takes out, and tells back what was answered. An
update that changed while a beat was under way stays to be told.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from trueup.models.ids import AllocationId
from trueup.models.wire import AllocationUpdate, Holding, HoldingKey, holdings_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """All that one message says of allocations, as of one moment. *numbers* tell whether an update changed since."""

    updates: tuple[AllocationUpdate, ...]
    keys: tuple[HoldingKey, ...]
    digest: str
    numbers: Mapping[AllocationId, int] = field(default_factory=dict)


class Reports:
    """The outgoing side of the agent."""

    def __init__(self, on_news: Callable[[], None] = lambda: None) -> None:
        self.on_news = on_news
        self._lock = threading.Lock()
        self._number = 0
        self._untold: dict[AllocationId, tuple[int, AllocationUpdate]] = {}
        self._holdings: dict[AllocationId, Holding] = {}
        self._held: tuple[tuple[HoldingKey, ...], str] | None = None

    def put(self, holding: Holding, update: AllocationUpdate | None) -> None:
        """Takes in how an allocation is now, and what to tell of it (None: nothing new)."""
        with self._lock:
            before = self._holdings.get(holding.id)
            self._holdings[holding.id] = holding
            if before is None or _key(before) != _key(holding):
                self._held = None
        if update is not None:
            self.tell(update)

    def tell(self, update: AllocationUpdate) -> None:
        """Has *update* told with the next beat; used alone for an allocation that is not held."""
        with self._lock:
            self._number += 1
            self._untold[update.id] = (self._number, update)
        self.on_news()

    def drop(self, allocation_id: AllocationId) -> None:
        """Forgets an allocation."""
        with self._lock:
            self._untold.pop(allocation_id, None)
            if self._holdings.pop(allocation_id, None) is not None:
                self._held = None

    @property
    def has_news(self) -> bool:
        """Whether anything is untold."""
        return bool(self._untold)

    def sheet(self, *, everything: bool = False) -> Sheet:
        """What to say now: what is untold, or how *everything* held is."""
        with self._lock:
            if self._held is None:
                living = self._keys()
                self._held = (living, holdings_digest(living))
            keys, digest = self._held
            updates = {key: update for key, (_, update) in self._untold.items()}
            if everything:
                updates = {key: _update(held) for key, held in self._holdings.items()} | updates
            return Sheet(
                updates=tuple(updates.values()),
                keys=keys,
                digest=digest,
                numbers={key: number for key, (number, _) in self._untold.items()},
            )

    def holdings(self) -> tuple[Holding, ...]:
        """Every allocation held, ended ones too, sorted by id."""
        with self._lock:
            return tuple(self._holdings[key] for key in sorted(self._holdings))

    def told(self, sheet: Sheet, *, only_held: bool = False) -> None:
        """*sheet* was answered: what has not changed since need not be told again.

        *only_held*: a registration, which tells of what is held and of nothing else.
        """
        with self._lock:
            for key, number in sheet.numbers.items():
                if only_held and key not in self._holdings:
                    continue
                if key in self._untold and self._untold[key][0] == number:
                    del self._untold[key]

    def _keys(self) -> tuple[HoldingKey, ...]:
        held = (self._holdings[key] for key in sorted(self._holdings))
        return tuple(key for key in map(_key, held) if key is not None)


def _update(holding: Holding) -> AllocationUpdate:
    return AllocationUpdate(
        id=holding.id, client_status=holding.client_status, tasks=holding.tasks, healthy=holding.healthy
    )


def _key(holding: Holding) -> HoldingKey | None:
    """What the digest covers of it: nothing once its tasks have ended."""
    if holding.client_status in {"complete", "failed", "lost"}:
        return None
    return HoldingKey(id=holding.id, version=holding.version, desired_status=holding.desired_status)
