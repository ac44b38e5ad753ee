"""Which agents could not be reached at their endpoint lately, so that nobody waits for a dead one again and again."""

import threading
from typing import Final

from trueup.models.clock import Clock
from trueup.models.ids import NodeId
from trueup.models.node import Node

AWAY_SECONDS: Final = 60.0
"""How long an endpoint that did not answer is left alone; then the next request tries it anew."""


class Reach:
    """A memory of failures. A node without an endpoint is never reached. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._away: dict[NodeId, tuple[str, float]] = {}

    def is_away(self, node: Node) -> bool:
        """Whether it is not worth trying to reach the node now."""
        if not node.endpoint:
            return True
        with self._lock:
            endpoint, until = self._away.get(node.id, ("", 0.0))
        return endpoint == node.endpoint and self._clock.monotonic() < until

    def note(self, node: Node, *, reached: bool) -> None:
        """Remembers how a try at the node's endpoint went."""
        with self._lock:
            if reached:
                self._away.pop(node.id, None)
            else:
                self._away[node.id] = (node.endpoint, self._clock.monotonic() + AWAY_SECONDS)
