"""Who waits to take a node's name over: an agent of the same machine and boot whose data folder was lost.

It is refused while the node it was may still live. When that falls silent for good, what it held is not given up while
such a claimant is about to come back: on that machine it still runs, and the claimant inherits it.
"""

import threading
from typing import Final

from trueup.models.ids import NodeId
from trueup.models.node import Node
from trueup.models.wire import RegisterRequest

CLAIM_SECONDS: Final = 15.0
"""How long after it was refused an agent counts as waiting: it comes again every 10 s, or when it is told to."""


def is_same_machine(node: Node, request: RegisterRequest) -> bool:
    """Whether what runs on the node's machine is what *request* comes from: no reboot, no other machine."""
    return bool(request.boot_id) and (request.boot_id, request.machine_id) == (node.boot_id, node.machine_id)


class Claims:
    """The newest claim on each node. Thread-safe; times are monotonic seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused_at: dict[NodeId, float] = {}

    def note(self, node_id: NodeId, now: float) -> None:
        """A claimant of the same machine was just refused."""
        with self._lock:
            self._refused_at[node_id] = now

    def take(self, node_id: NodeId, now: float) -> float | None:
        """Until when the node's claimant is waited for; None if there is none. Each claim is waited for once."""
        with self._lock:
            refused_at = self._refused_at.pop(node_id, None)
        if refused_at is None or refused_at + CLAIM_SECONDS <= now:
            return None
        return refused_at + CLAIM_SECONDS
