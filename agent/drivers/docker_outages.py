"""When the engine was away. Without live-restore it ends all containers then: no fault of theirs. Thread-safe."""

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

_KEPT: Final = 16
_EVER: Final = datetime.min.replace(tzinfo=UTC)


class Outages:
    """Each from the engine's last answer (*answered_at*; None: it never gave one) until it is heard again.

    One that is being shut down ends containers after it took its last call, and closes the connections that are open
    after it ended them: so when one of those breaks says little.
    """

    def __init__(self, answered_at: Callable[[], datetime | None]) -> None:
        self._answered_at = answered_at
        self._lock = threading.Lock()
        self._since: datetime | None = None
        self._over: deque[tuple[datetime, datetime]] = deque(maxlen=_KEPT)

    def begin(self) -> None:
        """It is not heard any more; a repeat changes nothing."""
        with self._lock:
            if self._since is None:
                self._since = self._answered_at() or _EVER

    def end(self) -> None:
        """It is heard."""
        with self._lock:
            if self._since is not None:
                self._over.append((self._since, datetime.now(UTC)))
                self._since = None

    def had(self, moment: datetime) -> bool:
        """Whether it was away at that moment."""
        with self._lock:
            if self._since is not None and self._since < moment:
                return True
            return any(since < moment <= until for since, until in self._over)
