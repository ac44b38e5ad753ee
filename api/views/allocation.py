"""The form of an allocation's answer. What fills it is `trueup.models.state_document`, one with STATE.json."""

from datetime import datetime

import msgspec

from trueup.models.allocation import ClientStatus, DesiredStatus, TaskStatus


class TaskEventView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a task."""

    at: datetime
    type: str
    message: str


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task as its agent last reported it, its newest ten events; *image_id*: what *image* was at its start."""

    state: TaskStatus
    failed: bool
    restarts: int
    exit_code: int | None
    signal: int | None
    oom_killed: bool
    pid: int | None
    container_id: str
    image: str
    image_id: str
    healthy: bool | None
    started_at: datetime | None
    finished_at: datetime | None
    events: tuple[TaskEventView, ...]


class MembershipView(msgspec.Struct, frozen=True, kw_only=True):
    """An allocation's part in a rollout."""

    id: str
    canary: bool
    healthy: bool | None
    at: datetime | None


class RescheduleEventView(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier attempt of this name that failed, and how long the next had to wait."""

    at: datetime
    delay: str
    node_id: str | None


class AllocationView(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a group on a node."""

    id: str
    name: str
    job: str
    group: str
    index: int
    run: datetime | None
    node: str
    node_id: str
    job_version: int
    revision: str
    digest: str
    epoch: int
    desired_status: DesiredStatus
    client_status: ClientStatus
    reason: str
    tasks: dict[str, TaskView]
    ports: dict[str, int]
    healthy: bool | None
    deployment: MembershipView | None
    reschedule_events: tuple[RescheduleEventView, ...]
    unknown_since: datetime | None
    lost_at: datetime | None
    replaces: str | None
    replaced_by: str | None
    created_at: datetime
    modified_at: datetime
