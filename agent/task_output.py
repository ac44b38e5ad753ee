"""Output of what runs here, for whoever asks: a request to this agent, or an order that its control plane gave it."""

from collections.abc import Callable, Generator, Mapping, Sequence
from http import HTTPStatus
from typing import Protocol

from agent.log_request import BadLogRequest, LogRequest, parse_log_request
from agent.logs import LogReader
from trueup.models.allocation import Allocation
from trueup.models.ids import AllocationId


class Allocations(Protocol):
    """What runs here (`agent.runner.Runner`)."""

    def allocation(self, allocation_id: AllocationId) -> Allocation | None: ...
    def allocations(self) -> Sequence[Allocation]: ...


class Interrupted(Exception):
    """The agent stops: there would be more, but not from it."""


class TaskOutput:
    """Reads and follows. *stopping* tells that the agent stops, *wait* sleeps so long or until it does."""

    def __init__(
        self,
        allocations: Allocations,
        logs: LogReader,
        *,
        stopping: Callable[[], bool],
        wait: Callable[[float], object],
    ) -> None:
        self._allocations, self._logs = allocations, logs
        self._stopping, self._wait = stopping, wait

    def asked(self, allocation_id: AllocationId, parameters: Mapping[str, str]) -> LogRequest:
        """What is asked for. BadLogRequest, also where nothing of that id is held."""
        held = self._allocations.allocation(allocation_id)
        if held is None:
            raise BadLogRequest(HTTPStatus.NOT_FOUND, f"this node holds no allocation {allocation_id!r}")
        return parse_log_request(parameters, sorted(held.tasks))

    def open(
        self,
        allocation_id: AllocationId,
        asked: LogRequest,
        *,
        left: Callable[[], bool] = lambda: False,
        pausing: Callable[[], object] = lambda: None,
    ) -> Generator[bytes, None, None]:
        """The output; what is followed ends with the task, or when *left*. Interrupted.

        Both are called often: *left* before each look for more, *pausing* where there was no more.
        """

        def wait(seconds: float) -> None:
            pausing()
            self._wait(seconds)

        if not asked.follow:
            yield from self._logs.read(allocation_id, asked)
            return
        yield from self._logs.follow(
            allocation_id,
            asked,
            ended=lambda: self._has_ended(allocation_id, asked.task),
            left=lambda: left() or self._stopping(),
            wait=wait,
        )
        if self._stopping():
            raise Interrupted

    def _has_ended(self, allocation_id: AllocationId, task: str) -> bool:
        held = self._allocations.allocation(allocation_id)
        return held is None or task not in held.tasks or held.tasks[task].state == "dead"
