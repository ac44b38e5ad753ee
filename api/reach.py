"""Which agents could not be reached at their endpoint lately, so that nobody waits for a dead one again and again."""

import threading
from dataclasses import dataclass
from typing import Final

from trueup.models.clock import Clock
from trueup.models.ids import NodeId
from trueup.models.node import Node

AWAY_SECONDS: Final = 60.0
"""How long an endpoint that did not answer is left alone; then the next request tries it anew. Doubles each time."""
MOST_AWAY_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class _Failure:
    endpoint: str
    until: float
    seconds: float


class Reach:
    """A memory of failures. A node without an endpoint is never reached. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[NodeId, _Failure] = {}

    def has_failed(self, node: Node) -> bool:
        """Whether the node was not reached when that was last tried."""
        return not node.endpoint or self._failure(node) is not None

    def is_away(self, node: Node) -> bool:
        """Whether it is not worth trying to reach the node now."""
        failure = self._failure(node)
        return not node.endpoint or (failure is not None and self._clock.monotonic() < failure.until)

    def note(self, node: Node, *, reached: bool) -> None:
        """Remembers how a try at the node's endpoint went."""
        with self._lock:
            if reached:
                self._failures.pop(node.id, None)
                return
            now, before = self._clock.monotonic(), self._failures.get(node.id)
            if before is None or before.endpoint != node.endpoint:
                seconds = AWAY_SECONDS
            elif now < before.until:
                # One of several tries that were under way, or a push, which is tried all the same.
                return
            else:
                seconds = min(2 * before.seconds, MOST_AWAY_SECONDS)
            self._failures[node.id] = _Failure(node.endpoint, now + seconds, seconds)

    def _failure(self, node: Node) -> _Failure | None:
        with self._lock:
            failure = self._failures.get(node.id)
        return failure if failure is not None and failure.endpoint == node.endpoint else None
