"""What the status page shows, as plain values: the worst first, and no more than a person reads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from api.views.job import schedule_view
from api.views.status import StatusView, Summary
from trueup.models.allocation import Allocation
from trueup.models.health import WORST_FIRST, Health, JobHealth
from trueup.models.node import Node
from trueup.models.record import JobRecord
from trueup.models.revision import Held, Revision
from trueup.models.state import ClusterState
from trueup.models.stopping import stopping_words

MAX_ROWS: Final = 200
MAX_REVISIONS: Final = 10
_WORST_FIRST: Final = (
    *("failed", "lost", "unhealthy", "unknown", "pending", "starting", "stopping", "running", "complete"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One line of the table of jobs."""

    health: JobHealth
    record: JobRecord
    type: str
    running: str
    next_run_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationRow:
    """One line of the table of allocations; *restarts* are those of all its tasks."""

    allocation: Allocation
    word: str
    restarts: int
    since: datetime
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One line of the table of nodes; shares are percentages of what the node gives."""

    node: Node
    word: str
    allocations: int
    cpu_percent: int
    memory_percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows shown, and how many there are in all."""

    rows: Sequence[object]
    total: int

    @property
    def left_out(self) -> int:
        """How many are not shown."""
        return self.total - len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageView:
    """The whole page."""

    now: datetime
    status: StatusView
    confirm_document: str
    jobs: Table
    allocations: Table
    nodes: Table
    revisions: Sequence[Revision]


def page_view(
    state: ClusterState, summary: Summary, status: StatusView, revisions: Sequence[Revision], now: datetime
) -> PageView:
    """The page of *state*; *revisions* are the newest, newest first."""
    return PageView(
        now=now,
        status=status,
        confirm_document=confirm_document(state.held) if state.held and state.held.confirm else "",
        jobs=_jobs(state, summary.jobs, now),
        allocations=_allocations(state),
        nodes=_nodes(state),
        revisions=revisions,
    )


def confirm_document(held: Held) -> str:
    """The document that lets exactly the held loss happen."""
    return f'kind: Cluster\nname: cluster\nconfirm: "{held.confirm}"\n'


def _jobs(state: ClusterState, found: Iterable[JobHealth], now: datetime) -> Table:
    worst: dict[Health, int] = {word: place for place, word in enumerate(WORST_FIRST)}
    ordered = sorted(found, key=lambda job: (worst[job.health], job.sync == "Synced", job.name))
    return Table(rows=[_job_row(state, job, now) for job in ordered[:MAX_ROWS]], total=len(ordered))


def _job_row(state: ClusterState, job: JobHealth, now: datetime) -> JobRow:
    record = state.jobs[job.name]
    version = state.versions[job.name, record.version]
    schedule = schedule_view(record, version.job, now)
    return JobRow(
        health=job,
        record=record,
        type="scheduled " + version.job.type if version.job.schedule is not None else version.job.type,
        running=_running(state, job),
        next_run_at=None if schedule is None else schedule.next,
    )


def _running(state: ClusterState, job: JobHealth) -> str:
    running = sum(group.running for group in job.groups)
    desired = sum(group.desired for group in job.groups)
    if not desired and not running:
        # Between the runs of a schedule, or nothing wanted: no share of nothing.
        return "–"
    held = state.allocations_of_job(job.name)
    complete = sum(1 for one in held if one.is_wanted and one.client_status == "complete")
    # Of a finished batch job nothing runs, and that is as it should be.
    return f"{complete}/{desired} done" if complete and not running else f"{running}/{desired}"


def _allocations(state: ClusterState) -> Table:
    """Wanted ones, and those that were told to stop and have not yet."""
    shown = [held for held in state.allocations.values() if held.is_wanted or not held.is_terminal]
    ordered = sorted(shown, key=lambda held: (_WORST_FIRST.index(_word(held)), held.name, held.id))
    return Table(rows=[_allocation_row(held) for held in ordered[:MAX_ROWS]], total=len(ordered))


def _allocation_row(held: Allocation) -> AllocationRow:
    started = [task.started_at for task in held.tasks.values() if task.started_at is not None]
    return AllocationRow(
        allocation=held,
        word=_word(held),
        restarts=sum(task.restarts for task in held.tasks.values()),
        since=max(started, default=held.created_at),
        detail=_detail(held),
    )


def _word(held: Allocation) -> str:
    if not held.is_wanted and not held.is_terminal:
        return "stopping"
    if held.client_status == "running" and held.healthy is not True:
        return "starting" if held.healthy is None else "unhealthy"
    return held.client_status


def _detail(held: Allocation) -> str:
    stopping = "" if held.is_terminal else stopping_words(held.tasks.values())
    return "; ".join(part for part in (held.reason, stopping) if part) or _newest_event(held)


def _newest_event(held: Allocation) -> str:
    if held.client_status == "running" and held.healthy:
        return ""
    events = [event for task in held.tasks.values() for event in task.events]
    newest = max(events, key=lambda event: event.at, default=None)
    return "" if newest is None else f"{newest.type}: {newest.message}" if newest.message else newest.type


def _nodes(state: ClusterState) -> Table:
    nodes = sorted(state.nodes.values(), key=lambda node: (node.status == "ready", node.name))
    return Table(rows=[_node_row(state, node) for node in nodes[:MAX_ROWS]], total=len(nodes))


def _node_row(state: ClusterState, node: Node) -> NodeRow:
    used = state.usage(node.id)
    word: str = node.status
    if node.lost:
        word = "lost"
    elif node.status == "ready" and node.drain is not None:
        word = "draining"
    elif node.status == "ready" and not node.eligible:
        word = "ineligible"
    return NodeRow(
        node=node,
        word=word,
        allocations=used.allocations,
        cpu_percent=_percent(used.cpu_millicores, node.resources.cpu_millicores),
        memory_percent=_percent(used.memory_bytes, node.resources.memory_bytes),
    )


def _percent(used: int, total: int) -> int:
    return min(100, used * 100 // total) if total else 0
