"""The doors of the agent: control plane, drivers, durable list. Everything it does to the world goes through here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from trueup.models.ids import AllocationId
from trueup.models.job import LogLimits, Resources, TaskConfig
from trueup.models.node import DriverState
from trueup.models.units import Duration
from trueup.models.wire import (
    HeartbeatRequest,
    HeartbeatResponse,
    RegisterRequest,
    RegisterResponse,
)


class ControlPlane(Protocol):
    """The server as an agent sees it. Every call has a deadline."""

    def register(self, request: RegisterRequest) -> RegisterResponse:
        """Joins with the cluster token, or comes back with the node's secret. Unreachable, Refused."""
        ...

    def heartbeat(self, request: HeartbeatRequest) -> HeartbeatResponse:
        """One beat with the node's secret. Unreachable; Unknown when the server does not know the secret."""
        ...


class Unreachable(Exception):
    """No answer, or none to rely on: try again later, obey nothing new."""


class Refused(Exception):
    """The server said no for good (another living node has that name, wrong token): says what to do.

    *again_seconds*: when it may say yes all the same; None: it did not say so.
    """

    def __init__(self, message: str, *, again_seconds: float | None = None) -> None:
        super().__init__(message)
        self.again_seconds = again_seconds


class Unknown(Exception):
    """The server does not know this node or its secret: register again with the cluster token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLaunch:
    """All a driver needs to start one task. *attempt* counts its starts from 1; with it the launch has one identity.

    *environment* is complete and has its variables put in; *ports* are host ports by name, *published* those this
    task publishes from its container: (host ip, host port, container port). *fetched*: what this start asked to have
    fetched first is there.
    """

    allocation_id: AllocationId
    allocation_name: str
    job: str
    group: str
    task: str
    attempt: int
    digest: str
    config: TaskConfig
    environment: Mapping[str, str]
    resources: Resources
    user: str
    task_dir: Path
    logs_dir: Path
    logs: LogLimits
    mounts: Sequence[tuple[str, str, bool]] = ()
    published: Sequence[tuple[str, int, int]] = ()
    fetched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHandle:
    """By what a driver finds a task again after the agent's own death. *data* is the driver's, as JSON text."""

    driver: str
    allocation_id: AllocationId
    task: str
    attempt: int
    data: str


ImageHealth = Literal["", "starting", "healthy", "unhealthy"]
"""What the check that a container's image brings along says; empty where it brings none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """What a driver sees of a task. `gone`: no trace of it, nor of its end.

    *image* is the reference that its container was made from, *image_id* what that was on this node then. *interrupted*
    is what ended it through no fault of its own; empty where nothing did.
    """

    state: Literal["running", "exited", "gone"]
    pid: int | None = None
    container_id: str = ""
    image: str = ""
    image_id: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    oom_killed: bool = False
    error: str = ""
    interrupted: str = ""
    health: ImageHealth = ""


class Driver(Protocol):
    """Starts, watches and stops tasks of one kind. Thread-safe; every call has a deadline.

    Failures raise DriverError. The driver calls the `wake` it was given when a task of its may have changed, with
    the allocation's id: the agent then asks that allocation's tasks for their status, and no others.
    """

    @property
    def name(self) -> str: ...

    def fingerprint(self) -> DriverState | None:
        """The driver's state on this machine; None where it is not offered at all."""
        ...

    def start(self, launch: TaskLaunch) -> TaskHandle:
        """Starts a task. A repeat of the same launch finds the one that runs, and starts nothing twice.

        FetchFirst where it has to wait for something that may take long; it is called again once that is there.
        """
        ...

    def status(self, handle: TaskHandle) -> TaskStatus: ...

    def signal(self, handle: TaskHandle, signal: str) -> None:
        """Sends a signal (`SIGTERM`) to the task's main process; nothing happens if it has ended."""
        ...

    def kill(self, handle: TaskHandle) -> None:
        """Ends the task and everything it started, at once; nothing happens if it has ended."""
        ...

    def remove(self, handle: TaskHandle) -> None:
        """Removes what is left of an ended task, but its logs. Idempotent."""
        ...

    def recover(self) -> Sequence[TaskHandle]:
        """Every task of this agent found on this machine, known to the journal or not."""
        ...

    def execute(self, handle: TaskHandle, command: Sequence[str], timeout: Duration) -> tuple[int, str]:
        """Runs a command in the task's surroundings (its container; its user and cgroup): exit code and output."""
        ...

    def close(self) -> None:
        """Stops watching. Tasks run on."""
        ...


class DriverError(Exception):
    """A start or stop failed. *temporary*: the same call may work later (engine away)."""

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary


class Fetch(Protocol):
    """What a start waits for: an image. Of those with one *key* one is enough.

    *source* is where it comes from (a registry), so that a slow one holds up its own alone; *shown* is what people
    call it.
    """

    @property
    def key(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def shown(self) -> str: ...

    def run(self) -> None:
        """Fetches it, however long that takes. DriverError says why not, also soon after `cancel`."""
        ...

    def cancel(self) -> None:
        """Nobody waits for it any more. Thread-safe, returns at once."""
        ...


class FetchFirst(Exception):
    """A start has to wait for *fetch*."""

    def __init__(self, fetch: Fetch) -> None:
        super().__init__(f"it has to wait for {fetch.shown}")
        self.fetch = fetch


Wake = Callable[[AllocationId], None]
"""Says that an allocation may have changed: a name, never the event. Thread-safe, returns at once."""


class Workers(Protocol):
    """Where calls that may block are made, so that a slow start holds up no other task."""

    def submit(self, key: str, work: Callable[[], None]) -> None:
        """Has *work* done soon: works of one key one after another, in order; of different keys side by side.

        *work* raises nothing. It may be done before this returns.
        """
        ...


class DriverWorkers(Protocol):
    """Workers for each driver: one whose calls hang uses up none that another's tasks need."""

    def of(self, driver: str) -> Workers:
        """Those for calls of *driver*; of an empty name, for what concerns none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One http or tcp check of one address."""

    type: Literal["http", "tcp"]
    host: str
    port: int
    path: str
    timeout_seconds: float


class Prober(Protocol):
    """Asks an address whether it works."""

    def probe(self, probe: Probe) -> str | None:
        """None if the address answered well within the timeout, else why not."""
        ...


class Secrets(Protocol):
    """Secret values of this node. Values leave it only into a task's environment and files."""

    def names(self) -> Sequence[str]:
        """Names of all secrets this node has, sorted."""
        ...

    def value(self, name: str) -> str:
        """The value of one secret; SecretMissing if the node has none of that name, or cannot read it."""
        ...

    def decrypted(self, ciphertext: str) -> str:
        """What was encrypted with age to this node's key; SecretMissing if it was not, or the node has no key."""
        ...


class SecretMissing(Exception):
    """The node has no such secret, or cannot decrypt it. Says the name and where it was looked for, never a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who a task runs as: what its environment says of the user."""

    name: str
    home: str
    uid: int
    gid: int


class Accounts(Protocol):
    """Users of this machine."""

    def account(self, user: str) -> Account:
        """The account of a user name or number; the agent's own for an empty name. LookupError if unknown."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FileContent:
    """A file to write beneath a task's folder: *path* relative to it, *mode* its permission bits."""

    path: str
    content: str
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFolders:
    """Where a task's files are: its own folder, the one its allocation's tasks share, and that of its logs."""

    task: Path
    shared: Path
    logs: Path


class Folders(Protocol):
    """Folders of allocations and tasks on this machine."""

    def paths(self, allocation_id: AllocationId, task: str) -> TaskFolders:
        """Where the folders are, or would be."""
        ...

    def prepare(
        self, allocation_id: AllocationId, task: str, owner: Account | None, files: Sequence[FileContent]
    ) -> None:
        """Makes the folders and writes the files, following no link. Idempotent. FolderError says why not.

        *owner* gets the task's folder; None where the user is known only inside an image: open to all beneath a
        closed folder.
        """
        ...

    def remove(self, allocation_id: AllocationId) -> None:
        """Removes all of an allocation, logs too. Idempotent."""
        ...

    def size_bytes(self, allocation_id: AllocationId) -> int:
        """How much room what an allocation has here takes; 0 where it has nothing."""
        ...

    def all(self) -> Sequence[AllocationId]:
        """Every allocation that has folders here, wanted or not. FolderError."""
        ...


class FolderError(Exception):
    """A folder or file could not be made: where and why. *temporary*: the same may work later (no room)."""

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedArtifact:
    """One artifact of a task with its variables put in; *shown* is its source as messages may say it."""

    source: str = field(repr=False)
    shown: str
    checksum: str
    destination: str


class Artifacts(Protocol):
    """Fetches what tasks want fetched, keeps it by its checksum, and puts it into their folders."""

    def provide(
        self,
        wanted: Sequence[WantedArtifact],
        folders: TaskFolders,
        owner: Account | None,
        *,
        downloads: Callable[[str], None],
        is_unwanted: Callable[[], bool],
    ) -> None:
        """Puts all of *wanted* into the task's folder, which is there; once for each allocation.

        *downloads* is told what is not at hand and has to be waited for. ArtifactError; ArtifactsUnwanted soon after
        *is_unwanted* says so. Idempotent.
        """
        ...

    def clean_up(self) -> None:
        """Drops what was not used for long, and the oldest of what is too much."""
        ...


class ArtifactError(Exception):
    """An artifact cannot be had: which, why and what to do. *temporary*: the same may work later."""

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary


class ArtifactsUnwanted(Exception):
    """Nobody waits for the artifacts any more: the task is not to start."""
