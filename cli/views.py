"""What the control plane answers, as far as this program reads it.

Every field has a default and unknown ones are ignored, so that releases one minor version apart work together.
`-o json` prints the answers themselves, not these.
"""

from datetime import datetime
from typing import Any, TypeVar

import msgspec

from cli.failures import Failed
from trueup.models.codec import Model, from_plain
from trueup.models.errors import SpecError
from trueup.models.revision import Held

T = TypeVar("T")


class GroupView(Model, frozen=True, kw_only=True):
    """One group of a job, desired against actual."""

    name: str = ""
    desired: int = 0
    placed: int = 0
    running: int = 0
    healthy: int = 0
    failed: int = 0


class UnplacedView(Model, frozen=True, kw_only=True):
    """What of a group found no room, and how many nodes gave each reason."""

    group: str = ""
    count: int = 0
    reasons: dict[str, int] = {}


class PlaceView(Model, frozen=True, kw_only=True):
    """Where a document stands."""

    file: str = ""
    line: int = 0
    root: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file and self.line else self.file


class ScheduleView(Model, frozen=True, kw_only=True):
    """Scheduled times of the newest run and of the next."""

    last: datetime | None = None
    next: datetime | None = None


class JobView(Model, frozen=True, kw_only=True):
    """A job."""

    name: str = ""
    type: str = ""
    status: str = ""
    priority: int = 0
    version: int = 0
    digest: str = ""
    revision: str = ""
    sync: str = ""
    health: str = ""
    reason: str = ""
    groups: tuple[GroupView, ...] = ()
    unplaced: tuple[UnplacedView, ...] = ()
    schedule: ScheduleView | None = None
    place: PlaceView = PlaceView()
    template: str = ""
    invalid: bool = False
    removed: bool = False
    frozen_version: int | None = None
    modified_at: datetime | None = None
    spec: dict[str, Any] = {}

    def total(self, field: str) -> int:
        """The sum of a count over all groups."""
        return sum(getattr(group, field) for group in self.groups)


class TaskEventView(Model, frozen=True, kw_only=True):
    """Something that happened to a task."""

    at: datetime | None = None
    type: str = ""
    message: str = ""


class TaskView(Model, frozen=True, kw_only=True):
    """A task as its agent last reported it."""

    state: str = ""
    failed: bool = False
    restarts: int = 0
    exit_code: int | None = None
    signal: int | None = None
    oom_killed: bool = False
    image: str = ""
    image_id: str = ""
    healthy: bool | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    events: tuple[TaskEventView, ...] = ()


class MembershipView(Model, frozen=True, kw_only=True):
    """An allocation's part in a rollout."""

    id: str = ""
    canary: bool = False
    healthy: bool | None = None


class AllocationView(Model, frozen=True, kw_only=True):
    """One instance of a group on a node."""

    id: str = ""
    name: str = ""
    job: str = ""
    group: str = ""
    index: int = 0
    run: datetime | None = None
    node: str = ""
    job_version: int = 0
    revision: str = ""
    desired_status: str = ""
    client_status: str = ""
    reason: str = ""
    tasks: dict[str, TaskView] = {}
    ports: dict[str, int] = {}
    healthy: bool | None = None
    deployment: MembershipView | None = None
    reschedule_events: tuple[Any, ...] = ()
    replaces: str | None = None
    replaced_by: str | None = None
    created_at: datetime | None = None
    modified_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its tasks have ended for good."""
        return self.client_status in {"complete", "failed", "lost"}

    @property
    def is_over(self) -> bool:
        """Whether it is history: not wanted any more, and ended."""
        return self.desired_status != "run" and self.has_ended


class DrainView(Model, frozen=True, kw_only=True):
    """A drain under way."""

    deadline: str = ""
    started_at: datetime | None = None


class NodeResourcesView(Model, frozen=True, kw_only=True):
    """Cores and MiB."""

    cpu: float = 0
    memory: int = 0


class NodeUseView(Model, frozen=True, kw_only=True):
    """What is in use, by whomever: cores and MiB."""

    cpu: float = 0
    memory: int = 0
    disk: int = 0
    disk_free: int = 0


class DriverView(Model, frozen=True, kw_only=True):
    """One driver of a node."""

    healthy: bool = True
    detail: str = ""


class NodeView(Model, frozen=True, kw_only=True):
    """One machine with an agent."""

    id: str = ""
    name: str = ""
    region: str = ""
    status: str = ""
    eligible: bool = True
    lost: bool = False
    drain: DrainView | None = None
    resources: NodeResourcesView = NodeResourcesView()
    used: NodeUseView | None = None
    attributes: dict[str, str] = {}
    labels: dict[str, str] = {}
    drivers: dict[str, DriverView] = {}
    status_changed_at: datetime | None = None


class ChangedJobsView(Model, frozen=True, kw_only=True):
    """Names of the jobs a revision touched."""

    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()


class RevisionView(Model, frozen=True, kw_only=True):
    """One state of the spec source."""

    id: str = ""
    parent: str | None = None
    author: str = ""
    author_email: str = ""
    subject: str = ""
    committed_at: datetime | None = None
    seen_at: datetime | None = None
    applied_at: datetime | None = None
    state: str = ""
    jobs: ChangedJobsView = ChangedJobsView()
    errors: tuple[SpecError, ...] = ()
    held: Held | None = None


class RemoteView(Model, frozen=True, kw_only=True):
    """How one remote of the source's history does."""

    url: str = ""
    state: str = ""
    commit: str | None = None
    last_success_at: datetime | None = None
    error: str = ""
    emergency: bool = False


class SourceView(Model, frozen=True, kw_only=True):
    """How the spec source does."""

    kind: str = ""
    url: str = ""
    last_success_at: datetime | None = None
    error: str = ""
    remotes: tuple[RemoteView, ...] = ()
    paths: tuple[str, ...] = ()


class StatusView(Model, frozen=True, kw_only=True):
    """The whole."""

    revision: str | None = None
    sync: str = ""
    health: str = ""
    reason: str = ""
    held: Held | None = None
    source: SourceView = SourceView()
    errors: tuple[SpecError, ...] = ()
    jobs: dict[str, int] = {}
    allocations: dict[str, int] = {}
    nodes: dict[str, int] = {}
    version: str = ""


class DeploymentGroupView(Model, frozen=True, kw_only=True):
    """One group's part in a rollout."""

    desired_total: int = 0
    desired_canaries: int = 0
    promoted: bool = False
    placed: int = 0
    healthy: int = 0
    unhealthy: int = 0


class DeploymentView(Model, frozen=True, kw_only=True):
    """One rollout of one job version."""

    id: str = ""
    job_version: int = 0
    digest: str = ""
    status: str = ""
    reason: str = ""
    groups: dict[str, DeploymentGroupView] = {}
    created_at: datetime | None = None


class EvaluationView(Model, frozen=True, kw_only=True):
    """One pass over one job."""

    trigger: str = ""
    status: str = ""
    placed: int = 0
    stopped: int = 0
    unplaced: tuple[UnplacedView, ...] = ()
    error: str = ""
    created_at: datetime | None = None


class EventView(Model, frozen=True, kw_only=True):
    """One thing that happened."""

    index: int = 0
    at: datetime | None = None
    type: str = ""
    message: str = ""
    job: str = ""
    allocation: str = ""
    node: str = ""
    revision: str = ""


class AddressView(Model, frozen=True, kw_only=True):
    """One place where a service answers."""

    address: str = ""
    node: str = ""
    job: str = ""
    allocation: str = ""


class ServiceView(Model, frozen=True, kw_only=True):
    """A service with its healthy addresses."""

    name: str = ""
    addresses: tuple[AddressView, ...] = ()


class TemplateView(Model, frozen=True, kw_only=True):
    """A template and its parameters."""

    name: str = ""
    parameters: dict[str, Any] = {}
    jobs: tuple[str, ...] = ()


def view(body: object, kind: type[T]) -> T:
    """*body* as *kind*. Failed if it has another form: the two releases are too far apart."""
    try:
        return from_plain(body, kind)
    except msgspec.ValidationError as error:
        raise Failed(
            f"the control plane answered in a form this trueup does not know ({error}); use the same release"
        ) from error


def short_id(identifier: str | None) -> str:
    """Enough of a revision or allocation id to tell it by: 8 digits, a directory's with its prefix."""
    if not identifier:
        return ""
    prefix, dash, digest = identifier.rpartition("-")
    return f"{prefix}{dash}{digest[:8]}"
