"""Until when a control plane only listens: what runs is taken over before anything is decided.

After a restart every known node is heard once, or one deadline passes. A new store knows nobody: it waits for the
nodes it was told to expect; else a moment, and for a whole deadline if an agent that came by then holds something.
"""

import threading
from collections.abc import Collection
from typing import Final

from trueup.models.ids import NodeId

SETTLE_SECONDS: Final = 2.0


class Adoption:
    """Once over it never begins again. Thread-safe; times are monotonic seconds."""

    def __init__(
        self,
        *,
        known: Collection[NodeId],
        is_new: bool,
        expected_nodes: int,
        now: float,
        deadline_seconds: float,
    ) -> None:
        """*known* are the nodes that were ready when the store was left; *is_new*: it knows no node at all."""
        self._lock = threading.Lock()
        self._awaited = set(known)
        self._is_new = is_new
        self._expected_nodes = expected_nodes
        self._began = now
        self._deadline = now + deadline_seconds
        self._heard: set[NodeId] = set()
        self._met_holders = False
        self._is_over = False

    def heard(self, node_id: NodeId, *, holds_any: bool) -> None:
        """What the node holds is taken over. *holds_any*: it held something."""
        with self._lock:
            self._heard.add(node_id)
            self._awaited.discard(node_id)
            self._met_holders = self._met_holders or holds_any

    def is_over(self, now: float) -> bool:
        """Whether decisions may be made."""
        if not self._is_over:
            with self._lock:
                self._is_over = now >= self._end() or self._heard_enough()
        return self._is_over

    def ends_at(self, now: float) -> float | None:
        """When time alone ends it; None once it is over."""
        return None if self.is_over(now) else self._end()

    def _end(self) -> float:
        if self._is_new and not self._expected_nodes and not self._met_holders:
            return min(self._began + SETTLE_SECONDS, self._deadline)
        return self._deadline

    def _heard_enough(self) -> bool:
        if not self._is_new:
            return not self._awaited
        return 0 < self._expected_nodes <= len(self._heard)
