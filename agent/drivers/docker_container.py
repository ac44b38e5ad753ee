"""What the engine says of itself and of a container, as far as the driver reads it, and what that makes of a task."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec

from agent.doors import DriverError, ImageHealth, TaskStatus
from trueup.models.codec import understood

_T = TypeVar("_T")
_HEALTH: Final[Mapping[str, ImageHealth]] = {
    "starting": "starting",
    "healthy": "healthy",
    "unhealthy": "unhealthy",
}
_NEVER = "0001-01-01"


class Health(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What the image's HEALTHCHECK says: `none`, `starting`, `healthy`, `unhealthy`."""

    status: str = ""


class ContainerState(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """`State` of an inspected container; times as the engine writes them."""

    status: str = ""
    running: bool = False
    restarting: bool = False
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = msgspec.field(name="OOMKilled", default=False)
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    health: Health | None = None


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """`Config` of an inspected container or image; *image* is the reference that a container was made from."""

    image: str = ""
    labels: dict[str, str] | None = None
    env: list[str] | None = None
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None


class Mount(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A mount as a container was asked for with it; *source* empty where it needs none."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False


class HostConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """`HostConfig` of an inspected container: all by which something is mounted."""

    mounts: list[Mount] | None = None
    binds: list[str] | None = None
    volumes_from: list[str] | None = None
    tmpfs: dict[str, str] | None = None


class Image(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """An inspected image; *config* None where it says nothing of how it is run."""

    id: str
    config: ContainerConfig | None = None


class Container(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """An inspected container; *name* begins with a slash, *image* is that one's id.

    *restart_count*: how often the engine started it again by itself.
    """

    id: str
    name: str = ""
    image: str = ""
    restart_count: int = 0
    state: ContainerState = ContainerState()
    config: ContainerConfig = ContainerConfig()
    host_config: HostConfig = HostConfig()

    @property
    def labels(self) -> dict[str, str]:
        """Its labels, empty where it has none."""
        return self.config.labels or {}

    @property
    def is_restarted(self) -> bool:
        """Whether the engine starts it again by itself: it has ended, and somebody gave it another restart policy."""
        return self.restart_count > 0 or self.state.restarting

    @property
    def started(self) -> bool:
        """Whether it runs or ever ran: one that could not be started keeps the state it was created in."""
        return self.state.running or self.state.status not in {"created", ""}


class Listed(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A container in a list; *state* `created`, `running`, `paused`, `exited` …"""

    id: str
    state: str = ""
    labels: dict[str, str] | None = None


class Info(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """How the engine is set up; *live_restore_enabled*: containers outlive it."""

    live_restore_enabled: bool = False


class Version(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What the engine says of itself."""

    version: str = ""
    api_version: str = ""
    os: str = ""
    arch: str = ""


def parsed(value: object, kind: type[_T]) -> _T:
    """An answer of the engine as *kind*. DriverError if it has another form: then it is no Docker engine."""
    try:
        return msgspec.convert(value, understood(kind))
    except msgspec.ValidationError as error:
        raise DriverError(f"the Docker engine's answer is not understood: {error}") from None


def task_status(container: Container) -> TaskStatus:
    """The task in that container. One that never started has left no trace of an end: `gone`."""
    state = container.state
    if not container.started:
        why = f"its container was made and not started: {state.error}" if state.error else ""
        return TaskStatus(
            state="gone",
            container_id=container.id,
            error=why or "its container was made and not started",
        )
    if container.is_restarted:
        return TaskStatus(
            state="gone",
            container_id=container.id,
            error="the engine started its container again: its restart policy was changed by hand",
        )
    if state.running:
        return TaskStatus(
            state="running",
            pid=state.pid or None,
            container_id=container.id,
            image=container.config.image,
            image_id=container.image,
            started_at=moment(state.started_at),
            health="" if state.health is None else _HEALTH.get(state.health.status, ""),
        )
    started_at, finished_at = moment(state.started_at), moment(state.finished_at)
    if started_at is not None and finished_at is not None:
        # Of a task of a few milliseconds the engine notes the start after the end.
        finished_at = max(started_at, finished_at)
    return TaskStatus(
        state="exited",
        container_id=container.id,
        image=container.config.image,
        image_id=container.image,
        started_at=started_at,
        finished_at=finished_at,
        exit_code=state.exit_code,
        oom_killed=state.oom_killed,
        error=state.error,
    )


def moment(text: str) -> datetime | None:
    """A time as the engine writes it (nanoseconds, any zone); None for its zero or none at all."""
    if not text or text.startswith(_NEVER):
        return None
    try:
        return msgspec.convert(text, datetime).astimezone(UTC)
    except (msgspec.ValidationError, ValueError):
        return None
