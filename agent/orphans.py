"""Tasks of this agent's that no record knows: its journal was lost, or older than what runs. No I/O.

One whose allocation is wanted is adopted. The others are ended `GRACE` after the control plane was heard and has
finished adopting, not before: what runs is never stopped by a lost file (contract, section 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from agent.doors import TaskHandle
from trueup.models.ids import AllocationId

GRACE: Final = timedelta(seconds=60)
_KILL_AFTER: Final = timedelta(seconds=10)
_REMOVE_AFTER: Final = timedelta(seconds=2)
_LOOK_AGAIN: Final = timedelta(seconds=10)

Action = Literal["signal", "kill", "remove"]


@dataclass(slots=True)
class _Orphan:
    handle: TaskHandle
    due_at: datetime
    at_once: bool
    action: Action = "signal"


class Orphans:
    """All tasks without a record."""

    def __init__(self) -> None:
        self._found: dict[TaskHandle, _Orphan] = {}

    def found(self, handle: TaskHandle, steady: datetime, *, at_once: bool) -> None:
        """A driver has found it; *at_once*: its allocation is known and ended, or may never start."""
        if handle not in self._found:
            self._found[handle] = _Orphan(handle, steady if at_once else steady + GRACE, at_once)

    def claim(self, allocation_id: AllocationId) -> Sequence[TaskHandle]:
        """The orphans of an allocation that turned out to be wanted, newest attempt of each task last."""
        mine = [handle for handle in self._found if handle.allocation_id == allocation_id]
        for handle in mine:
            del self._found[handle]
        return sorted(mine, key=lambda handle: (handle.task, handle.attempt))

    def hasten(self, steady: datetime, allocation_id: AllocationId | None = None) -> None:
        """Everything on this node is to end, or what is left of one allocation: no one waits any longer."""
        for handle, orphan in self._found.items():
            if orphan.action == "signal" and allocation_id in {None, handle.allocation_id}:
                orphan.due_at = steady

    @property
    def unknown(self) -> Sequence[AllocationId]:
        """Allocations of which nothing is known but that they run. From any thread."""
        found = {handle.allocation_id for handle, orphan in list(self._found.items()) if not orphan.at_once}
        return sorted(found)

    def has_any_of(self, allocation_id: AllocationId) -> bool:
        """Whether there is one of that allocation."""
        return any(handle.allocation_id == allocation_id for handle in self._found)

    @property
    def are_left(self) -> bool:
        """Whether any has not been ended yet."""
        return any(one.action != "remove" for one in self._found.values())

    @property
    def next_at(self) -> datetime | None:
        """When the next one is due."""
        return min((one.due_at for one in self._found.values()), default=None)

    def due(self, steady: datetime, *, may_end: bool) -> Sequence[tuple[TaskHandle, Action]]:
        """What to do with those that are due: signal, then kill, then remove."""
        actions: list[tuple[TaskHandle, Action]] = []
        for handle, orphan in list(self._found.items()):
            if orphan.due_at > steady:
                continue
            if not may_end:
                orphan.due_at = steady + _LOOK_AGAIN
                continue
            actions.append((handle, orphan.action))
            if orphan.action == "signal":
                orphan.action, orphan.due_at = "kill", steady + _KILL_AFTER
            elif orphan.action == "kill":
                orphan.action, orphan.due_at = "remove", steady + _REMOVE_AFTER
            else:
                del self._found[handle]
        return actions
