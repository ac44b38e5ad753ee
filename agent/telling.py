"""What of an allocation is news to the control plane, and goes into the reports. On the runner's thread."""

from agent.checks import CheckBoard
from agent.held import Held
from agent.reports import Reports
from agent.views import holding_of, update_of
from trueup.models.ids import AllocationId
from trueup.models.wire import AllocationUpdate


class Telling:
    """Puts into the reports what has changed since it was last told."""

    def __init__(self, reports: Reports, checks: CheckBoard) -> None:
        self._reports = reports
        self._checks = checks

    def publish(self, held: Held, *, known: bool = False) -> None:
        """Has the control plane told what is new of an allocation; *known*: it will be told by the registration."""
        allocation = held.assignment.allocation
        views = self._checks.views(held.id)
        update = update_of(held.assignment, held.record, views)
        # That an allocation it has just assigned is pending is no news to the control plane, unless it waits.
        waits = any(task.events for task in update.tasks.values())
        known = known or (held.told is None and update.client_status == "pending" and not waits)
        if update == held.told and allocation.job_version == held.told_version:
            return
        news = None if known or update == held.told else update
        held.told, held.told_version = update, allocation.job_version
        self._reports.put(holding_of(held.assignment, held.record, views), news)

    def again(self, held: Held) -> None:
        """Tells how it is once more: an order for what has ended shows that its end was not heard."""
        self._reports.tell(update_of(held.assignment, held.record, self._checks.views(held.id)))

    def never_started(self, allocation_id: AllocationId, reason: str) -> None:
        """Tells that an allocation that was stopped before it came has ended."""
        self._reports.tell(AllocationUpdate(id=allocation_id, client_status="complete", reason=reason))

    def forget(self, allocation_id: AllocationId) -> None:
        """Tells nothing more of an allocation."""
        self._reports.drop(allocation_id)
