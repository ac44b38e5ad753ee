"""One allocation of this node in memory: its assignment, its record, and what is under way for it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from agent.calls import handle_of
from agent.doors import TaskHandle
from agent.instructions import Answer
from agent.record import AllocationRecord
from agent.step import live_tasks
from trueup.models.ids import AllocationId
from trueup.models.wire import AllocationUpdate, Assignment


@dataclass(slots=True)
class Held:
    """Changed by the runner's thread alone. Values are swapped whole, so that any thread may read them.

    *busy* are the tasks a call is under way for, *missed* those a driver said something of before the record had what
    their calls answer, which may be older than that. *look_at* is when the next step is due. *told* is what the control
    plane knows or will be told of it, in the version *told_version*.
    """

    assignment: Assignment
    record: AllocationRecord
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    missed: set[str] = field(default_factory=set)
    look_at: datetime | None = None
    told: AllocationUpdate | None = None
    told_version: int = -1

    @property
    def id(self) -> AllocationId:
        """The allocation's id."""
        return self.assignment.allocation.id

    def handle(self, task: str) -> TaskHandle | None:
        """By what the driver finds that task; None where it has nothing of it."""
        record = self.record.tasks.get(task)
        if record is None or record.handle is None:
            return None
        return handle_of(self.id, task, record.handle)

    def live_handles(self) -> Iterator[TaskHandle]:
        """The handles of all tasks that run, as far as the record knows."""
        for name in live_tasks(self.record):
            handle = self.handle(name)
            if handle is not None:
                yield handle

    def take_missed(self) -> Iterator[TaskHandle]:
        """The handles of running tasks to look at again, now that their calls have been answered."""
        for name in sorted(self.missed - self.busy):
            self.missed.discard(name)
            handle = self.handle(name) if name in live_tasks(self.record) else None
            if handle is not None:
                yield handle

    def answered(self, task: str, answer: Answer | None, *, was_busy: bool) -> None:
        """Takes what a call came to, for the next step; *was_busy*: it was one that others waited for."""
        if was_busy:
            self.busy.discard(task)
        if answer is not None:
            self.answers.setdefault(task, []).append(answer)
