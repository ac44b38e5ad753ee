"""Instructions under way: carried out on workers of their task's driver; what a start has to wait for comes before.

A start that waits, for artifacts or for its image, takes no thread of those that other calls need, and is given up as
soon as it is not wanted any more.
"""

import dataclasses
from typing import Final, Protocol

from agent.calls import Awaits, Calls
from agent.doors import DriverWorkers, Fetch, Workers
from agent.fetches import Fetches, has_artifacts
from agent.instructions import Answer, Instruction, Noted, Start, StartFailed
from agent.service_files import Lists
from agent.shared_fetches import SharedFetches
from trueup.models.ids import AllocationId
from trueup.models.wire import Assignment

PULLING: Final = "Pulling image"


class Answered(Protocol):
    """Told what a call came to, on a worker; *was_busy* unless it is under way still."""

    def __call__(
        self, allocation_id: AllocationId, task: str, answer: Answer | None, *, was_busy: bool = True
    ) -> None: ...


class UnderWay:
    """All of them. `begin` is called by the runner's thread alone."""

    def __init__(
        self,
        *,
        calls: Calls,
        workers: DriverWorkers,
        download_workers: Workers,
        pull_workers: Workers,
        answered: Answered,
    ) -> None:
        self._calls = calls
        self._workers = workers
        self._artifacts = Fetches(calls, download_workers)
        self._pulls = SharedFetches(pull_workers)
        self._answered = answered

    def begin(self, assignment: Assignment, attempt: int, instruction: Instruction, services: Lists) -> None:
        """Has *instruction* carried out; files are made of the addresses in *services*."""
        allocation_id, task = assignment.allocation.id, instruction.task

        def have_done() -> None:
            self._have_done(assignment, attempt, instruction, services)

        if isinstance(instruction, Start) and has_artifacts(assignment, task):
            self._artifacts.begin(
                assignment,
                task,
                start=have_done,
                failed=lambda failed: self._answered(allocation_id, task, failed),
                noted=lambda noted: self._answered(allocation_id, task, noted, was_busy=False),
            )
        else:
            have_done()

    def give_up(self, allocation_id: AllocationId, task: str) -> None:
        """That task is not to start any more. Idempotent; without effect where its start waits for nothing."""
        self._artifacts.give_up(allocation_id, task)
        self._pulls.give_up(allocation_id, task)

    def _have_done(
        self, assignment: Assignment, attempt: int, instruction: Instruction, services: Lists
    ) -> None:
        allocation_id, task = assignment.allocation.id, instruction.task

        def work() -> None:
            answer = self._calls.carry_out(assignment, attempt, instruction, services)
            if isinstance(instruction, Start) and isinstance(answer, Awaits):
                self._await(assignment, attempt, instruction, services, answer.fetch)
            elif not isinstance(answer, Awaits):
                self._answered(allocation_id, task, answer)

        spec = assignment.group.task(task)
        self._workers.of("" if spec is None else spec.driver).submit(f"{allocation_id}/{task}", work)

    def _await(
        self, assignment: Assignment, attempt: int, start: Start, services: Lists, fetch: Fetch
    ) -> None:
        allocation_id = assignment.allocation.id

        def done(failed: StartFailed | None) -> None:
            if failed is None:
                again = dataclasses.replace(start, fetched=True)
                self._have_done(assignment, attempt, again, services)
            else:
                self._answered(allocation_id, start.task, failed)

        self._pulls.begin(allocation_id, start.task, fetch, done)
        # After it began, as this has the runner say again what is not to start any more.
        noted = Noted(event=PULLING, message=fetch.shown)
        self._answered(allocation_id, start.task, noted, was_busy=False)
