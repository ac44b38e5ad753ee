"""A job as rendered: what git wants, with units parsed and defaults known.

The JSON form of these types is the spec form of the contract's section 1 (`10s`, `256MiB`, cores), so a stored
version, `spec` in the API and `STATE.json`, and a document a person writes are one and the same.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec

from trueup.models.codec import Model
from trueup.models.units import Bytes, Duration, Millicores

JobType = Literal["service", "batch", "system", "sysbatch"]
DriverName = Literal["process", "docker"]
Operator = Literal[
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "regexp",
    "version",
    "set_contains",
    "set_contains_any",
    "is_set",
    "is_not_set",
    "distinct_hosts",
    "distinct_property",
]


class Constraint(Model, frozen=True, kw_only=True):
    """A node must satisfy it: `{attribute: "node.labels.disk", operator: "=", value: ssd}`."""

    attribute: str = ""
    operator: Operator = "="
    value: str = ""


class Affinity(Model, frozen=True, kw_only=True):
    """A node that satisfies it scores better (*weight* -100..100; below 0: worse)."""

    attribute: str
    operator: Operator = "="
    value: str = ""
    weight: int = 50


class Spread(Model, frozen=True, kw_only=True):
    """Spreads a group over the values of an attribute; *targets* are percentages, empty: evenly."""

    attribute: str
    weight: int = 50
    targets: dict[str, int] = {}


class Update(Model, frozen=True, kw_only=True):
    """How a destructive change rolls; `max_parallel: 0` means all at once."""

    max_parallel: int = 1
    canary: int = 0
    auto_promote: bool = False
    promote: str = ""
    auto_revert: bool = False
    min_healthy_time: Duration = Duration(seconds=10)
    healthy_deadline: Duration = Duration(minutes=5)
    progress_deadline: Duration = Duration(minutes=10)


class Schedule(Model, frozen=True, kw_only=True):
    """When a batch job runs: five fields or a nickname, in *timezone*."""

    cron: str
    timezone: str = "UTC"
    overlap: Literal["forbid", "allow", "replace"] = "forbid"
    catch_up: Duration = Duration()
    keep: int = 10


class Restart(Model, frozen=True, kw_only=True, omit_defaults=False):
    """Restarts on the same node: *attempts* within *interval*, then `fail` or `delay`.

    Written whole: what a document leaves out follows from the job's type, so a field left out would read back wrong.
    """

    attempts: int = 2
    interval: Duration = Duration(minutes=30)
    delay: Duration = Duration(seconds=15)
    mode: Literal["fail", "delay"] = "fail"


class Reschedule(Model, frozen=True, kw_only=True, omit_defaults=False):
    """Placement elsewhere after a failure; unlimited, or *attempts* within *interval*. Written whole, as Restart is."""

    unlimited: bool = False
    attempts: int = 0
    interval: Duration = Duration()
    delay: Duration = Duration(seconds=30)
    delay_function: Literal["constant", "exponential", "fibonacci"] = "exponential"
    max_delay: Duration = Duration(hours=1)


class Disconnect(Model, frozen=True, kw_only=True):
    """What a silent node means for this group."""

    lost_after: Duration = Duration()
    stop_after: Duration | None = None


class Port(Model, frozen=True, kw_only=True):
    """A port of a group: *port* on the host (absent: a free one), *to* inside a container."""

    name: str
    port: int | None = None
    to: int | None = None
    bind: str = ""
    task: str = ""


class Service(Model, frozen=True, kw_only=True):
    """A name under which healthy allocations are found."""

    name: str
    port: str
    labels: dict[str, str] = {}


class Volume(Model, frozen=True, kw_only=True):
    """A host volume a group uses; *source* is the node's name for it."""

    name: str
    type: Literal["host"] = "host"
    source: str
    read_only: bool = False
    sticky: bool = True


class Resources(Model, frozen=True, kw_only=True):
    """What a task needs and, where the node can enforce it, gets at most."""

    cpu_millicores: Millicores = msgspec.field(name="cpu", default=Millicores(100))
    memory_bytes: Bytes = msgspec.field(name="memory", default=Bytes(64 * 1024**2))


class SecretValue(Model, frozen=True, kw_only=True):
    """A value the agent reads from its own secrets folder, or decrypts with its own key: one of the two is set."""

    secret: str = ""
    age: str = ""


class TaskConfig(Model, frozen=True, kw_only=True):
    """Driver settings. *command* and *cwd* are the process driver's, *ulimits* both's, all others Docker's."""

    command: tuple[str, ...] = ()
    cwd: str = ""
    image: str = ""
    entrypoint: tuple[str, ...] | None = None
    args: tuple[str, ...] = ()
    pull: Literal["missing", "always", "never"] = "missing"
    auth: dict[str, Any] = {}
    mounts: tuple[dict[str, Any], ...] = ()
    network_mode: str = ""
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    read_only: bool = False
    pids_limit: int | None = None
    shm_size: Bytes | None = None
    ulimits: dict[str, Any] = {}
    init: bool = True


class Check(Model, frozen=True, kw_only=True):
    """A health check; the first runs at once, then every *interval*."""

    type: Literal["http", "tcp", "exec"]
    name: str = ""
    port: str = ""
    path: str = "/"
    command: tuple[str, ...] = ()
    interval: Duration = Duration(seconds=10)
    timeout: Duration = Duration(seconds=2)
    restart_after: int = 0


class TaskFile(Model, frozen=True, kw_only=True):
    """A file written into the task's folder before it starts; exactly one of the sources is set."""

    path: str
    content: str | None = None
    source: str | None = None
    secret: str | None = None
    age: str | None = None
    services: tuple[str, ...] = ()
    each: str = ""
    mode: str = ""
    on_change: str = "none"


class Artifact(Model, frozen=True, kw_only=True):
    """Something fetched, checked against *checksum* and unpacked before the task starts."""

    source: str
    checksum: str
    destination: str = "local/"


class Lifecycle(Model, frozen=True, kw_only=True):
    """When a task that is no main task runs."""

    hook: Literal["prestart", "poststart", "poststop"]
    sidecar: bool = False


class LogLimits(Model, frozen=True, kw_only=True):
    """How much of a task's output is kept."""

    max_files: int = 10
    max_size: Bytes = Bytes(10 * 1024**2)


class Task(Model, frozen=True, kw_only=True):
    """One process or container of a group."""

    name: str
    driver: DriverName
    config: TaskConfig = TaskConfig()
    env: dict[str, str | SecretValue] = {}
    resources: Resources = Resources()
    checks: tuple[Check, ...] = ()
    volumes: dict[str, str] = {}
    files: tuple[TaskFile, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    lifecycle: Lifecycle | None = None
    kill_signal: str = "SIGTERM"
    kill_timeout: Duration = Duration(seconds=5)
    max_run_duration: Duration | None = None
    user: str = ""
    logs: LogLimits = LogLimits()
    on_secret_change: str = "none"  # noqa: S105 - a word, no password
    splay: Duration = Duration(seconds=5)


class TaskGroup(Model, frozen=True, kw_only=True, dict=True, gc=True):
    """Tasks that run together on one node, *count* times."""

    name: str
    count: int = 1
    ports: tuple[Port, ...] = ()
    services: tuple[Service, ...] = ()
    shutdown_delay: Duration = Duration()
    restart: Restart | None = None
    reschedule: Reschedule | None = None
    disconnect: Disconnect = Disconnect()
    volumes: tuple[Volume, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    affinities: tuple[Affinity, ...] = ()
    spreads: tuple[Spread, ...] = ()
    tasks: tuple[Task, ...]

    def task(self, name: str) -> Task | None:
        """The task of that name, or None."""
        return next((task for task in self.tasks if task.name == name), None)


class Job(Model, frozen=True, kw_only=True, dict=True, gc=True):
    """One job, rendered and complete: every name and driver is filled in."""

    name: str
    type: JobType = "service"
    priority: int = 50
    labels: dict[str, str] = {}
    regions: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    protect: bool = False
    suspended: bool = False
    frozen: bool = False
    restart_token: str = ""
    schedule: Schedule | None = None
    constraints: tuple[Constraint, ...] = ()
    affinities: tuple[Affinity, ...] = ()
    spreads: tuple[Spread, ...] = ()
    update: Update = Update()
    groups: tuple[TaskGroup, ...]

    def group(self, name: str) -> TaskGroup | None:
        """The group of that name, or None."""
        return next((group for group in self.groups if group.name == name), None)


_RESTART_BY_TYPE: Mapping[JobType, Restart] = {
    "service": Restart(),
    "system": Restart(),
    "batch": Restart(attempts=3, interval=Duration(hours=24)),
    "sysbatch": Restart(attempts=3, interval=Duration(hours=24)),
}
_RESCHEDULE_BY_TYPE: Mapping[JobType, Reschedule] = {
    "service": Reschedule(unlimited=True),
    "system": Reschedule(),
    "sysbatch": Reschedule(),
    "batch": Reschedule(
        attempts=1, interval=Duration(hours=24), delay=Duration(seconds=5), delay_function="constant"
    ),
}


def restart_policy(job_type: JobType, group: TaskGroup) -> Restart:
    """How tasks of *group* restart on their node; the contract's defaults by job type where unwritten."""
    return _RESTART_BY_TYPE[job_type] if group.restart is None else group.restart


def reschedule_policy(job_type: JobType, group: TaskGroup) -> Reschedule:
    """How a failed allocation of *group* is placed again; system jobs never are (restart only)."""
    return _RESCHEDULE_BY_TYPE[job_type] if group.reschedule is None else group.reschedule


def usual_reschedule(job_type: str) -> Reschedule:
    """What applies to a job of that type where it says nothing."""
    return _RESCHEDULE_BY_TYPE.get(cast("JobType", job_type), Reschedule())
