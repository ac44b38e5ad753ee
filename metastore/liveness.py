"""When each node was last heard, and which are silent for too long: an ordered heap of deadlines, never a scan.

Times are monotonic seconds: no jump of the wall clock makes a node silent.
"""

import heapq
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from trueup.models.ids import NodeId

_BEATS_PER_DEADLINE: Final = 3
_BEATS_PER_SECOND: Final = 1000.0
"""What one control plane takes without sweat: with more nodes each beats more rarely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often a node beats, and after how long a silence it is down."""

    heartbeat_seconds: float
    deadline_seconds: float


def rhythm_of(nodes: int, node_timeout: timedelta, grace: timedelta) -> Rhythm:
    """The rhythm of a cluster of so many nodes: three beats in *node_timeout*, fewer in a very large one."""
    interval = max(node_timeout.total_seconds() / _BEATS_PER_DEADLINE, nodes / _BEATS_PER_SECOND)
    return Rhythm(
        heartbeat_seconds=interval,
        deadline_seconds=interval * _BEATS_PER_DEADLINE + grace.total_seconds(),
    )


class Liveness:
    """Deadlines by node. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadlines: dict[NodeId, float] = {}
        # One entry a node, which may lag behind its deadline: it is put right when it comes up.
        self._heap: list[tuple[float, NodeId]] = []

    def heard(self, node_id: NodeId, deadline: float) -> None:
        """The node is silent for too long at *deadline*, and no earlier."""
        with self._lock:
            if node_id not in self._deadlines:
                heapq.heappush(self._heap, (deadline, node_id))
            self._deadlines[node_id] = deadline

    def forget(self, node_id: NodeId) -> None:
        """The node is not waited for: it is down, or gone."""
        with self._lock:
            self._deadlines.pop(node_id, None)

    def is_living(self, node_id: NodeId, now: float) -> bool:
        """Whether it is waited for and its deadline is still ahead."""
        return self._deadlines.get(node_id, now) > now

    def seconds_left(self, node_id: NodeId, now: float) -> float:
        """How long until it is silent for too long."""
        return max(self._deadlines.get(node_id, now) - now, 0.0)

    def expired(self, now: float) -> list[NodeId]:
        """Nodes whose deadline has passed. They stay expired until they are heard or forgotten."""
        with self._lock:
            came_up: dict[NodeId, float] = {}
            while self._heap and self._heap[0][0] <= now:
                _, node_id = heapq.heappop(self._heap)
                if node_id in self._deadlines:
                    came_up[node_id] = self._deadlines[node_id]
            for node_id, deadline in came_up.items():
                heapq.heappush(self._heap, (deadline, node_id))
            return [node_id for node_id, deadline in came_up.items() if deadline <= now]

    def extend(self, deadline: float) -> None:
        """Gives every node that is waited for at least until *deadline*: we were away, not they."""
        with self._lock:
            self._deadlines = {node_id: max(held, deadline) for node_id, held in self._deadlines.items()}

    def next_deadline(self) -> float | None:
        """No node expires before this; None if none is waited for."""
        with self._lock:
            return self._heap[0][0] if self._heap else None


def earliest(moments: Iterable[float | None]) -> float | None:
    """The first of those that are set, or None."""
    return min((moment for moment in moments if moment is not None), default=None)
