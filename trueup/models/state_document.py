"""STATE.json, both ways: what `GET /state` and `trueup export` write and `trueup plan --state` reads.

A person may write one by hand, so reading gives every missing field a natural default; writing leaves none out.
Node resources are cores and MiB here, and an allocation names its node by name.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from trueup.models.allocation import Allocation, DeploymentState, RescheduleEvent, TaskState
from trueup.models.codec import from_plain, to_plain
from trueup.models.deployment import Deployment, DeploymentGroup
from trueup.models.desired import Place
from trueup.models.digest import group_digest, job_digest
from trueup.models.evaluation import UnplacedGroup
from trueup.models.fit import allocated_resources
from trueup.models.ids import AllocationId, DeploymentId, NodeId, RevisionId
from trueup.models.job import Job
from trueup.models.node import Drain, DriverState, Node, NodeResources
from trueup.models.record import JobRecord, JobVersion
from trueup.models.revision import Held
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings, NodePolicy, Template
from trueup.models.units import Bytes, Duration, Millicores, format_cores, format_duration, parse_duration

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_MIB = 1024**2

Plain = Mapping[str, Any]
T = TypeVar("T")
JobReader = Callable[[Plain], Job]
"""Builds a job from the spec form, filling in names and drivers."""


def state_document(state: ClusterState, now: datetime) -> dict[str, Any]:
    """The whole state as plain data; lists in a stated order, so equal states give equal documents."""
    versions = _versions(state)
    return {
        "now": _time(now),
        "index": state.index,
        "epoch": state.epoch,
        "revision": state.revision,
        "held": None if state.held is None else to_plain(state.held),
        "cluster": to_plain(state.settings),
        "templates": [to_plain(state.templates[name]) for name in sorted(state.templates)],
        "node_policies": [to_plain(state.node_policies[name]) for name in sorted(state.node_policies)],
        "nodes": [node_document(node) for node in sorted(state.nodes.values(), key=lambda node: node.name)],
        "jobs": [_job_document(state, name, versions[name]) for name in state.job_names()],
        "allocations": [
            allocation_document(held)
            for held in sorted(state.allocations.values(), key=lambda held: (held.job, held.name, held.id))
        ],
        "deployments": [
            _deployment_document(held)
            for held in sorted(
                state.deployments.values(), key=lambda held: (held.job, held.job_version, held.id)
            )
        ],
    }


def node_document(node: Node) -> dict[str, Any]:
    """A node by the contract's section 3: cores, MiB."""
    return {
        "id": node.id,
        "name": node.name,
        "region": node.region,
        "status": node.status,
        "eligible": node.eligible,
        "lost": node.lost,
        "declared": node.declared,
        "drain": None
        if node.drain is None
        else {
            "deadline": format_duration(node.drain.deadline_at - node.drain.started_at),
            "started_at": _time(node.drain.started_at),
        },
        "resources": {
            "cpu": format_cores(node.resources.cpu_millicores),
            "memory": node.resources.memory_bytes // _MIB,
        },
        "attributes": dict(node.attributes),
        "labels": dict(node.labels),
        "reported_labels": dict(node.reported_labels),
        "drivers": {
            name: {"healthy": driver.healthy, "detail": driver.detail, "attributes": dict(driver.attributes)}
            for name, driver in node.drivers.items()
        },
        "volumes": list(node.volumes),
        "secrets": list(node.secrets),
        "status_changed_at": _time(node.status_changed_at),
    }


def allocation_document(held: Allocation) -> dict[str, Any]:
    """An allocation by the contract's section 3, every field present."""
    return {
        "id": held.id,
        "name": held.name,
        "job": held.job,
        "group": held.group,
        "index": held.index,
        "run": _time(held.run),
        "node": held.node,
        "node_id": held.node_id,
        "job_version": held.job_version,
        "revision": held.revision,
        "digest": held.digest,
        "epoch": held.epoch,
        "desired_status": held.desired_status,
        "client_status": held.client_status,
        "reason": held.reason,
        "tasks": {name: task_document(task) for name, task in held.tasks.items()},
        "ports": dict(held.ports),
        "healthy": held.healthy,
        "deployment": None
        if held.deployment is None
        else {
            "id": held.deployment.id,
            "canary": held.deployment.canary,
            "healthy": held.deployment.healthy,
            "at": _time(held.deployment.at),
        },
        "reschedule_events": [
            {"at": _time(event.at), "delay": format_duration(event.delay), "node_id": event.node_id}
            for event in held.reschedule_events
        ],
        "unknown_since": _time(held.unknown_since),
        "lost_at": _time(held.lost_at),
        "replaces": held.replaces,
        "replaced_by": held.replaced_by,
        "created_at": _time(held.created_at),
        "modified_at": _time(held.modified_at),
    }


def task_document(task: TaskState) -> dict[str, Any]:
    """A task's state, every field present."""
    return {
        "state": task.state,
        "failed": task.failed,
        "restarts": task.restarts,
        "exit_code": task.exit_code,
        "signal": task.signal,
        "oom_killed": task.oom_killed,
        "pid": task.pid,
        "container_id": task.container_id,
        "image": task.image,
        "image_id": task.image_id,
        "healthy": task.healthy,
        "started_at": _time(task.started_at),
        "finished_at": _time(task.finished_at),
        "events": [
            {"at": _time(event.at), "type": event.type, "message": event.message} for event in task.events
        ],
    }


def state_from_document(document: Plain, read_job: JobReader) -> ClusterState:
    """The state a document describes. ValueError names the entry that does not fit.

    *read_job* builds jobs from the spec form. Without a revision, the state counts as never applied. A drain or a
    silence of which nobody says when it began, begins at the document's `now`.
    """
    now = document_time(document)
    state = ClusterState(
        index=int(document.get("index") or 0),
        epoch=int(document.get("epoch") or 0),
        revision=None if document.get("revision") is None else RevisionId(str(document["revision"])),
        held=None if not document.get("held") else from_plain(document["held"], Held),
        settings=from_plain(document.get("cluster") or {}, ClusterSettings),
    )
    for plain in _entries(document, "templates"):
        template = _entry(plain, "templates", lambda one: from_plain(one, Template))
        state.templates[template.name] = template
    for plain in _entries(document, "node_policies"):
        policy = _entry(plain, "node_policies", lambda one: from_plain(one, NodePolicy))
        state.node_policies[policy.name] = policy
    for plain in _entries(document, "nodes"):
        node = _entry(plain, "nodes", lambda one: node_from_document(one, now))
        state.nodes[node.id] = node
    for plain in _entries(document, "jobs"):
        _entry(plain, "jobs", lambda one: _read_job(state, one, read_job))
    nodes_by_name = {node.name: node for node in state.nodes.values()}
    for plain in _entries(document, "allocations"):
        allocation = _entry(plain, "allocations", lambda one: _read_allocation(state, one, nodes_by_name))
        state.put_allocation(allocation)
    for plain in _entries(document, "jobs"):
        if plain.get("frozen_version") is None:
            _freeze(state, str(plain["name"]))
    for plain in _entries(document, "deployments"):
        state.put_deployment(_entry(plain, "deployments", lambda one: _read_deployment(state, one)))
    return state


def document_time(document: Plain) -> datetime | None:
    """The document's own clock, if it has one."""
    return _read_time(document.get("now"))


def node_from_document(plain: Plain, now: datetime | None = None) -> Node:
    """A node as a person writes it: ready, eligible, region `global`, every driver; drained, or silent, since *now*."""
    name = str(plain["name"])
    resources = plain.get("resources") or {}
    drivers = plain.get("drivers")
    if drivers is None:
        drivers = {"process": {}, "docker": {}}
    elif not isinstance(drivers, Mapping):
        drivers = {str(driver): {} for driver in drivers}
    drain = plain.get("drain")
    status = plain.get("status") or "ready"
    labels, reported = _texts(plain.get("labels") or {}), plain.get("reported_labels")
    eligible = plain.get("eligible")
    return Node(
        id=NodeId(str(plain.get("id") or name)),
        name=name,
        region=str(plain.get("region") or "global"),
        status=from_plain(status, Node.__annotations__["status"]),
        eligible=(eligible is None or bool(eligible)) and drain is None and not plain.get("lost"),
        lost=bool(plain.get("lost") or False),
        declared=bool(plain.get("declared") or False),
        drain=None if drain is None else _read_drain(drain, now),
        resources=NodeResources(
            cpu_millicores=Millicores(round(float(resources.get("cpu", 4)) * 1000)),
            memory_bytes=Bytes(round(float(resources.get("memory", 8192)) * _MIB)),
        ),
        attributes=_texts(plain.get("attributes") or {}),
        reported_labels=labels if reported is None else _texts(reported),
        labels=labels,
        drivers={str(key): from_plain(value or {}, DriverState) for key, value in drivers.items()},
        volumes=tuple(plain.get("volumes") or ()),
        secrets=tuple(plain.get("secrets") or ()),
        registered_at=LONG_AGO,
        status_changed_at=_read_time(plain.get("status_changed_at"))
        or (now if status != "ready" else None)
        or LONG_AGO,
    )


def _versions(state: ClusterState) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for (job, number), version in sorted(state.versions.items()):
        found.setdefault(job, {})[str(number)] = to_plain(version.job)
    return found


def _job_document(state: ClusterState, name: str, versions: Mapping[str, Any]) -> dict[str, Any]:
    record = state.jobs[name]
    return {
        "name": name,
        "version": record.version,
        "revision": record.revision,
        "place": {"file": record.place.file, "line": record.place.line},
        "files": list(record.files),
        "template": record.template,
        "removed": record.removed,
        "invalid": record.invalid,
        "reverted": record.reverted,
        "reverted_to": record.reverted_to,
        "evaluated_version": record.evaluated_version,
        "unplaced": to_plain(record.unplaced),
        "frozen_version": record.frozen_version,
        "last_run_at": _time(record.last_run_at),
        "last_run_token": record.last_run_token,
        "spec": versions[str(record.version)],
        "versions": dict(versions),
        "stable_versions": [int(number) for number in versions if state.versions[name, int(number)].stable],
    }


def _deployment_document(held: Deployment) -> dict[str, Any]:
    return {
        "id": held.id,
        "job": held.job,
        "job_version": held.job_version,
        "digest": held.digest,
        "status": held.status,
        "reason": held.reason,
        "groups": {
            name: {
                "desired_total": group.desired_total,
                "desired_canaries": group.desired_canaries,
                "promoted": group.promoted,
                "placed": group.placed,
                "healthy": group.healthy,
                "unhealthy": group.unhealthy,
                "progress_at": _time(group.progress_at),
            }
            for name, group in held.groups.items()
        },
        "created_at": _time(held.created_at),
        "modified_at": _time(held.modified_at),
    }


def _read_job(state: ClusterState, plain: Plain, read_job: JobReader) -> None:
    name = str(plain["name"])
    version = int(plain.get("version") or 1)
    specs = {int(number): spec for number, spec in (plain.get("versions") or {}).items()}
    specs[version] = plain.get("spec") or specs[version]
    stable = plain.get("stable_versions")
    revision = str(plain.get("revision") or state.revision or "")
    for number, spec in sorted(specs.items()):
        job = read_job({**spec, "name": name})
        state.put_version(
            JobVersion(
                job=job,
                version=number,
                revision=revision,
                digest=job_digest(job),
                created_at=LONG_AGO,
                stable=stable is None or number in stable,
            )
        )
    job = state.versions[name, version].job
    state.jobs[name] = JobRecord(
        name=name,
        version=version,
        revision=revision,
        place=from_plain(plain.get("place") or {"file": "", "line": 0}, Place),
        files=tuple(plain.get("files") or ()),
        template=str(plain.get("template") or ""),
        removed=bool(plain.get("removed") or False),
        invalid=bool(plain.get("invalid") or False),
        reverted=str(plain.get("reverted") or ""),
        reverted_to=plain.get("reverted_to"),
        evaluated_version=int(plain.get("evaluated_version") or 0),
        unplaced=from_plain(plain.get("unplaced") or (), tuple[UnplacedGroup, ...]),
        frozen_version=plain.get("frozen_version"),
        last_run_at=_read_time(plain.get("last_run_at") or (plain.get("schedule") or {}).get("last")),
        last_run_token=str(plain.get("last_run_token", job.restart_token) or ""),
        created_at=LONG_AGO,
        modified_at=LONG_AGO,
    )


def _freeze(state: ClusterState, name: str) -> None:
    """A frozen job of which nobody says at which version: at the newest that runs, or the one it has."""
    job, record = state.wanted_job(name), state.jobs[name]
    if job is None or not job.frozen:
        return
    running = {held.job_version for held in state.allocations_of_job(name) if held.is_wanted}
    known = [number for number in running if (name, number) in state.versions]
    state.jobs[name] = msgspec.structs.replace(record, frozen_version=max(known, default=record.version))


def _read_allocation(state: ClusterState, plain: Plain, nodes_by_name: Mapping[str, Node]) -> Allocation:
    name = str(plain["name"])
    job_name, group_name, index = split_name(name)
    job_name, group_name = str(plain.get("job") or job_name), str(plain.get("group") or group_name)
    record = state.jobs.get(job_name)
    number = int(plain.get("job_version") or (record.version if record is not None else 1))
    version = state.versions.get((job_name, number))
    group = None if version is None else version.job.group(group_name)
    node = nodes_by_name.get(str(plain.get("node")))
    known = {
        key: value
        for key, value in plain.items()
        if key not in {"resources", "deployment", "reschedule_events"}
    }
    known |= {
        "id": str(plain.get("id") or f"{name}@{plain.get('node')}#{len(state.allocations)}"),
        "job": job_name,
        "group": group_name,
        "index": int(plain["index"]) if plain.get("index") is not None else index,
        "node": str(plain.get("node") or ""),
        "node_id": str(plain.get("node_id") or (node.id if node is not None else plain.get("node") or "")),
        "job_version": number,
        "revision": str(plain.get("revision") or (version.revision if version is not None else "")),
        "digest": plain.get("digest")
        or (group_digest(version.job, group) if version is not None and group is not None else ""),
        "desired_status": plain.get("desired_status") or "run",
        "client_status": plain.get("client_status") or "running",
        "tasks": plain.get("tasks") or {},
        "ports": plain.get("ports") or {},
        "created_at": plain.get("created_at") or LONG_AGO,
        "modified_at": plain.get("modified_at") or plain.get("created_at") or LONG_AGO,
    }
    allocation = from_plain({key: value for key, value in known.items() if value is not None}, Allocation)
    healthy = allocation.healthy
    if "healthy" not in plain and not plain.get("deployment") and allocation.client_status == "running":
        healthy = all(task.state == "running" for task in allocation.tasks.values())
    return msgspec.structs.replace(
        allocation,
        healthy=healthy,
        resources=allocation.resources if group is None else allocated_resources(group),
        deployment=_read_membership(plain.get("deployment")),
        reschedule_events=tuple(
            RescheduleEvent(
                at=_read_time(event["at"]) or LONG_AGO,
                delay=_read_span(event.get("delay")),
                node_id=event.get("node_id"),
            )
            for event in plain.get("reschedule_events") or ()
        ),
        node_id=NodeId(allocation.node_id),
        id=AllocationId(allocation.id),
    )


def _read_membership(plain: Plain | None) -> DeploymentState | None:
    if not plain:
        return None
    return from_plain({key: value for key, value in plain.items() if value is not None}, DeploymentState)


def _read_deployment(state: ClusterState, plain: Plain) -> Deployment:
    """What a person leaves out follows from the version that is rolled out: its digest, how many canaries."""
    number = int(plain.get("job_version") or 1)
    version = state.versions.get((str(plain["job"]), number))
    canaries = 0 if version is None else version.job.update.canary
    groups = {
        str(name): from_plain(
            {
                "desired_total": 0,
                "desired_canaries": canaries,
                **{key: value for key, value in group.items() if value is not None},
            },
            DeploymentGroup,
        )
        for name, group in (plain.get("groups") or {}).items()
    }
    return Deployment(
        id=DeploymentId(str(plain["id"])),
        job=str(plain["job"]),
        job_version=number,
        digest=str(plain.get("digest") or (version.digest if version is not None else "")),
        status=from_plain(plain.get("status") or "running", Deployment.__annotations__["status"]),
        reason=str(plain.get("reason") or ""),
        groups=groups,
        created_at=_read_time(plain.get("created_at")) or LONG_AGO,
        modified_at=_read_time(plain.get("modified_at")) or LONG_AGO,
    )


def split_name(name: str) -> tuple[str, str, int]:
    """`job.group[index]` in its parts. ValueError if *name* has another form."""
    head, _, tail = name.partition("[")
    job, _, group = head.partition(".")
    if not job or not group or not tail.endswith("]") or not tail[:-1].isdigit():
        raise ValueError(f"{name!r} is no allocation name; write job.group[index]")
    return job, group, int(tail[:-1])


def _texts(plain: Plain) -> dict[str, str]:
    return {str(key): str(value) for key, value in plain.items()}


def _read_drain(plain: object, now: datetime | None) -> Drain:
    fields: Plain = plain if isinstance(plain, Mapping) else {}
    started = _read_time(fields.get("started_at")) or now or LONG_AGO
    deadline = _read_span(fields["deadline"]) if fields.get("deadline") is not None else Duration(hours=1)
    return Drain(started_at=started, deadline_at=started + deadline)


def _read_span(value: object) -> Duration:
    if isinstance(value, (int, float)):
        return Duration(seconds=value)
    return parse_duration(str(value)) if value else Duration()


def _read_time(value: object) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    return msgspec.convert(value, datetime)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else str(msgspec.to_builtins(moment))


def _entries(document: Plain, key: str) -> list[Plain]:
    """The list under *key*, none if it is absent. ValueError if it is no list of mappings."""
    held: object = document.get(key)
    if held is None:
        return []
    if not isinstance(held, list):
        raise ValueError(f"{key}: write a list")  # noqa: TRY004 - what a person wrote, not what a caller did
    for number, plain in enumerate(held):
        if not isinstance(plain, Mapping):
            raise ValueError(f"{key}: entry {number + 1}: write a mapping, like {{name: …}}")  # noqa: TRY004 - as above
    return held


def _entry(plain: Plain, where: str, read: Callable[[Plain], T]) -> T:
    try:
        return read(plain)
    except (KeyError, TypeError, AttributeError, ValueError, msgspec.ValidationError) as error:
        name = plain.get("name") or plain.get("id")
        detail = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{where}: {name}: {detail}") from error
