"""Answers of the control plane as the contract's section 3 has them."""

from typing import Any

NOON = "2026-06-01T12:00:00Z"
COMMIT = "1a2b3c4d" + "0" * 32


def a_job(name: str = "web", **fields: Any) -> dict[str, Any]:
    """A healthy service of three."""
    return {
        "name": name,
        "type": "service",
        "status": "running",
        "priority": 50,
        "version": 4,
        "digest": "0123456789abcdef",
        "revision": COMMIT,
        "sync": "Synced",
        "health": "Healthy",
        "reason": "",
        "groups": [{"name": "app", "desired": 3, "placed": 3, "running": 3, "healthy": 3, "failed": 0}],
        "unplaced": [],
        "schedule": None,
        "place": {"file": "jobs/web.yaml", "line": 3},
        "files": ["jobs/web.yaml"],
        "template": "",
        "invalid": False,
        "removed": False,
        "frozen_version": None,
        "created_at": NOON,
        "modified_at": NOON,
        "spec": {
            "name": name,
            "constraints": [{"attribute": "node.labels.disk", "operator": "=", "value": "ssd"}],
            "groups": [{"name": "app", "count": 3, "tasks": [{"name": "server", "driver": "process"}]}],
        },
        **fields,
    }


def a_task(**fields: Any) -> dict[str, Any]:
    """A running task."""
    return {
        "state": "running",
        "failed": False,
        "restarts": 0,
        "exit_code": None,
        "signal": None,
        "oom_killed": False,
        "pid": 4711,
        "container_id": "",
        "image": "",
        "image_id": "",
        "healthy": True,
        "started_at": NOON,
        "finished_at": None,
        "events": [{"at": NOON, "type": "Started", "message": "pid 4711"}],
        **fields,
    }


def an_allocation(index: int = 0, job: str = "web", **fields: Any) -> dict[str, Any]:
    """A running, healthy allocation."""
    return {
        "id": f"{index:08x}" + "a" * 24,
        "name": f"{job}.app[{index}]",
        "job": job,
        "group": "app",
        "index": index,
        "run": None,
        "node": "node-1",
        "node_id": "n1",
        "job_version": 4,
        "revision": COMMIT,
        "digest": "0123456789abcdef",
        "epoch": 0,
        "desired_status": "run",
        "client_status": "running",
        "reason": "",
        "tasks": {"server": a_task()},
        "ports": {"http": 20001},
        "healthy": True,
        "deployment": None,
        "reschedule_events": [],
        "unknown_since": None,
        "lost_at": None,
        "replaces": None,
        "replaced_by": None,
        "created_at": NOON,
        "modified_at": NOON,
        **fields,
    }


def a_node(name: str = "node-1", **fields: Any) -> dict[str, Any]:
    """A ready node."""
    return {
        "id": f"id-{name}",
        "name": name,
        "region": "eu",
        "status": "ready",
        "eligible": True,
        "lost": False,
        "declared": True,
        "drain": None,
        "resources": {"cpu": 4, "memory": 8192},
        "attributes": {},
        "labels": {"disk": "ssd"},
        "drivers": {"process": {"healthy": True, "detail": "", "attributes": {}}},
        "volumes": [],
        "secrets": [],
        "status_changed_at": NOON,
        **fields,
    }


def a_revision(identifier: str = COMMIT, **fields: Any) -> dict[str, Any]:
    """An applied commit that updated web."""
    return {
        "id": identifier,
        "parent": None,
        "author": "Ann",
        "author_email": "ann@example.org",
        "subject": "More web",
        "committed_at": NOON,
        "seen_at": NOON,
        "applied_at": NOON,
        "state": "applied",
        "jobs": {"created": [], "updated": ["web"], "removed": [], "invalid": []},
        "errors": [],
        "held": None,
        **fields,
    }


def a_status(**fields: Any) -> dict[str, Any]:
    """All is well."""
    return {
        "revision": COMMIT,
        "sync": "Synced",
        "health": "Healthy",
        "reason": "",
        "held": None,
        "source": {"kind": "git", "url": "https://git.example.org/ops", "last_success_at": NOON, "error": ""},
        "errors": [],
        "jobs": {"Healthy": 1},
        "allocations": {"running": 3, "failed": 0},
        "nodes": {"ready": 1, "down": 0},
        "index": 1,
        "epoch": 1,
        "version": "0.1.0",
        "cluster_id": "c",
        **fields,
    }


def a_deployment(**fields: Any) -> dict[str, Any]:
    """A rollout of version 4 under way."""
    return {
        "id": "d" * 32,
        "job": "web",
        "job_version": 4,
        "digest": "0123456789abcdef",
        "status": "running",
        "reason": "",
        "groups": {
            "app": {
                "desired_total": 3,
                "desired_canaries": 0,
                "promoted": False,
                "placed": 1,
                "healthy": 1,
                "unhealthy": 0,
                "progress_at": NOON,
            }
        },
        "created_at": NOON,
        "modified_at": NOON,
        **fields,
    }


def a_cluster(**answers: Any) -> dict[str, Any]:
    """Answers for one healthy job of three on one node."""
    allocations = [an_allocation(index) for index in range(3)]
    return {
        "/status": a_status(),
        "/jobs": [a_job()],
        "/jobs/web": a_job(),
        "/jobs/web/allocations": allocations,
        "/jobs/web/deployments": [a_deployment(status="successful")],
        "/allocations": allocations,
        **{f"/allocations/{held['id']}": held for held in allocations},
        "/nodes": [a_node()],
        "/nodes/node-1": a_node(),
        "/revisions": [a_revision()],
        "/evaluations": [],
        **answers,
    }
