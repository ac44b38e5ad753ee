"""Valid things in one line, for tests: only what the test is about needs to be said."""

from datetime import UTC, datetime, timedelta
from typing import Any

from trueup.models.allocation import Allocation, TaskState, allocation_name
from trueup.models.desired import DesiredJob, DesiredState, Place
from trueup.models.digest import group_digest, job_digest
from trueup.models.fit import allocated_resources
from trueup.models.ids import AllocationId, NodeId, RevisionId
from trueup.models.job import Job, Port, Resources, Task, TaskConfig, TaskGroup, Update
from trueup.models.node import DriverState, Node, NodeResources
from trueup.models.record import JobRecord, JobVersion
from trueup.models.revision import Commit
from trueup.models.state import ClusterState
from trueup.models.units import Duration, parse_cores, parse_size

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


class CountingIds:
    """Ids *first*, *first* + 1, … as 32 hexadecimal digits."""

    def __init__(self, first: int = 1) -> None:
        self._given = first - 1

    def new_id(self) -> str:
        self._given += 1
        return f"{self._given:032x}"


def a_task(name: str = "server", *, cpu: float = 0.1, memory: str = "64MiB", **fields: Any) -> Task:
    """A process task that sleeps."""
    fields.setdefault("config", TaskConfig(command=("sleep", "3600")))
    return Task(
        name=name,
        driver=fields.pop("driver", "process"),
        resources=Resources(cpu_millicores=parse_cores(cpu), memory_bytes=parse_size(memory)),
        **fields,
    )


def a_group(
    name: str = "app", *, count: int = 1, tasks: tuple[Task, ...] | None = None, **fields: Any
) -> TaskGroup:
    """A group of one sleeping task."""
    return TaskGroup(name=name, count=count, tasks=tasks or (a_task(),), **fields)


def a_job(
    name: str = "web",
    *,
    count: int = 1,
    cpu: float = 0.1,
    memory: str = "64MiB",
    env: dict[str, str] | None = None,
    ports: tuple[Port, ...] = (),
    max_parallel: int = 1,
    min_healthy_time: str | None = None,
    groups: tuple[TaskGroup, ...] | None = None,
    **fields: Any,
) -> Job:
    """A service of one group `app`."""
    if groups is None:
        task = a_task(cpu=cpu, memory=memory, env=env or {})
        groups = (a_group(count=count, tasks=(task,), ports=ports),)
    fields.setdefault("update", Update(max_parallel=max_parallel, min_healthy_time=Duration(seconds=1)))
    return Job(name=name, groups=groups, **fields)


def a_node(
    name: str = "node-1",
    *,
    cpu: float = 4,
    memory: str = "8GiB",
    **fields: Any,
) -> Node:
    """A ready node with both drivers."""
    labels = fields.pop("labels", {})
    return Node(
        id=NodeId(fields.pop("id", f"id-{name}")),
        name=name,
        resources=NodeResources(cpu_millicores=parse_cores(cpu), memory_bytes=parse_size(memory)),
        labels=labels,
        reported_labels=labels,
        drivers=fields.pop("drivers", {"process": DriverState(), "docker": DriverState()}),
        registered_at=NOON,
        status_changed_at=NOON,
        **fields,
    )


def an_allocation(
    job: Job | None = None,
    node: Node | None = None,
    *,
    index: int = 0,
    group: str | None = None,
    version: int = 1,
    age: timedelta = timedelta(hours=1),
    **fields: Any,
) -> Allocation:
    """A running, healthy allocation of the job's first group."""
    job, node = job or a_job(), node or a_node()
    of = job.groups[0] if group is None else job.group(group)
    assert of is not None
    name = allocation_name(job.name, of.name, index)
    created_at = fields.pop("created_at", NOON - age)
    fields.setdefault("client_status", "running")
    running = fields["client_status"] == "running"
    if running:
        fields.setdefault("healthy", True)
        fields.setdefault(
            "tasks", {task.name: TaskState(state="running", started_at=created_at) for task in of.tasks}
        )
    return Allocation(
        id=AllocationId(fields.pop("id", f"{name}@{node.name}")),
        name=name,
        job=job.name,
        group=of.name,
        index=index,
        node_id=node.id,
        node=node.name,
        job_version=version,
        revision="r1",
        digest=group_digest(job, of),
        resources=allocated_resources(of),
        created_at=created_at,
        modified_at=fields.pop("modified_at", created_at),
        **fields,
    )


def a_record(job: Job, *, version: int = 1, **fields: Any) -> JobRecord:
    """The record of a job that was planned already."""
    fields.setdefault("evaluated_version", version)
    return JobRecord(
        name=job.name,
        version=version,
        revision="r1",
        place=Place(file=f"{job.name}.yaml", line=1),
        files=(f"{job.name}.yaml",),
        created_at=NOON - timedelta(days=1),
        modified_at=NOON - timedelta(days=1),
        **fields,
    )


def a_version(job: Job, *, version: int = 1) -> JobVersion:
    """A stored version."""
    return JobVersion(
        job=job, version=version, revision="r1", digest=job_digest(job), created_at=NOON - timedelta(days=1)
    )


def a_state(*, nodes: tuple[Node, ...] = (), jobs: tuple[Job, ...] = (), **fields: Any) -> ClusterState:
    """A state with nodes and planned jobs in version 1, nothing placed."""
    state = ClusterState(index=1, epoch=1, cluster_id="c1", revision=RevisionId("r1"), **fields)
    for node in nodes:
        state.nodes[node.id] = node
    for job in jobs:
        state.jobs[job.name] = a_record(job)
        state.put_version(a_version(job))
    return state


def a_desired(*jobs: Job, revision: str = "r2", **fields: Any) -> DesiredState:
    """The desired state of a revision that holds *jobs*, each in a file of its own."""
    return DesiredState(
        commit=Commit(
            id=RevisionId(revision), author="Ann", author_email="ann@example.org", subject="change"
        ),
        jobs={
            job.name: DesiredJob(
                job=job, place=Place(file=f"{job.name}.yaml", line=1), files=(f"{job.name}.yaml",)
            )
            for job in jobs
        },
        **fields,
    )
