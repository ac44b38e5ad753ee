"""A live plan reads the state over `/state`: nothing that a decision looks at may be lost on the way."""

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from cli.plan_inputs import CountedIds, stored_job
from reconciler.dry_run import dry_run
from reconciler.report import report_document
from tests.builders import (
    NOON,
    a_desired,
    a_group,
    a_job,
    a_node,
    a_record,
    a_state,
    a_task,
    a_version,
    an_allocation,
)
from trueup.models.allocation import DeploymentState, RescheduleEvent, TaskState
from trueup.models.deployment import Deployment, DeploymentGroup
from trueup.models.ids import DeploymentId
from trueup.models.job import Job, Port, Schedule, Update
from trueup.models.node import Drain, DriverState
from trueup.models.record import JobVersion
from trueup.models.revision import Held
from trueup.models.state import ClusterState
from trueup.models.state_document import state_document, state_from_document
from trueup.models.template import ClusterSettings, DrainPolicy, NodePolicy, Template
from trueup.models.units import Duration
from trueup.sources.job_spec import job_from_spec

OLD = a_job(count=4, env={"MODE": "old"}, ports=(Port(name="admin", port=9000), Port(name="http")))
NEW = a_job(
    count=4,
    env={"MODE": "new"},
    ports=(Port(name="admin", port=9000), Port(name="http")),
    update=Update(max_parallel=2, canary=1, auto_revert=True),
)


def a_rich_state() -> ClusterState:
    """Much at once: a rollout with a canary, a failure, a drain, a lost node, a schedule, a system job, removals."""
    one = a_node("node-1", labels={"disk": "ssd", "rack": "a"}, attributes={"kernel.version": "6.1"})
    two = a_node("node-2", drivers={"docker": DriverState(healthy=False, detail="away")}, volumes=("data",))
    three = msgspec.structs.replace(
        a_node("node-3"),
        eligible=False,
        declared=True,
        drain=Drain(started_at=NOON, deadline_at=NOON + timedelta(minutes=10)),
        labels={"zone": "z1"},
        reported_labels={},
    )
    four = a_node("node-4", status="down", secrets=("key",))
    system = Job(name="exporter", type="system", groups=(a_group(),))
    report = Job(name="report", type="batch", schedule=Schedule(cron="*/5 * * * *"), groups=(a_group(),))
    once = Job(name="once", type="batch", groups=(a_group(tasks=(a_task(),)),), restart_token="2")
    gone = a_job("gone", count=2)
    state = a_state(nodes=(one, two, three, four), jobs=(NEW, system, report, once, gone))
    state.put_version(msgspec.structs.replace(a_version(OLD), stable=True))
    state.put_version(a_version(NEW, version=2))
    state.jobs["web"] = a_record(NEW, version=2, template="tpl", invalid=True)
    state.jobs["gone"] = a_record(gone, removed=True)
    state.jobs["report"] = a_record(report, last_run_at=NOON - timedelta(minutes=5))
    state.templates["tpl"] = Template(name="tpl", parameters={"x": {"default": 1}}, job={"priority": 7})
    state.node_policies["node-3"] = NodePolicy(
        name="node-3", labels={"zone": "z1"}, drain=DrainPolicy(deadline=Duration(minutes=10))
    )
    state.settings = ClusterSettings(placement="spread", preemption=("system",))
    rollout = DeploymentId("d" * 32)
    state.put_deployment(
        Deployment(
            id=rollout,
            job="web",
            job_version=2,
            digest="abc",
            groups={"app": DeploymentGroup(desired_total=4, desired_canaries=1, placed=1, progress_at=NOON)},
            created_at=NOON,
            modified_at=NOON,
        )
    )
    dead = TaskState(state="dead", failed=True, exit_code=3, started_at=NOON, finished_at=NOON)
    for allocation in (
        an_allocation(OLD, one, index=0, ports={"http": 20001, "admin": 9000}),
        an_allocation(OLD, three, index=1),
        an_allocation(OLD, four, index=2, unknown_since=NOON),
        an_allocation(OLD, two, index=3, client_status="failed", tasks={"server": dead}, reschedule_events=(
            RescheduleEvent(at=NOON - timedelta(minutes=1), delay=Duration(seconds=30), node_id=one.id),
        )),
        an_allocation(NEW, one, index=0, version=2, id="canary", healthy=None,
                      deployment=DeploymentState(id=rollout, canary=True)),
        an_allocation(OLD, two, index=5, desired_status="stop", reason="not needed", id="leaving"),
        an_allocation(system, one, id="s1", healthy=None),
        an_allocation(report, one, id="run", run=NOON - timedelta(minutes=5), client_status="complete"),
        an_allocation(once, one, id="done", client_status="complete"),
        an_allocation(gone, two, index=1, lost_at=NOON, epoch=3),
    ):  # fmt: skip
        state.put_allocation(allocation)
    return state


def over_the_wire(state: ClusterState) -> ClusterState:
    """The state as a client reads it."""
    document: dict[str, Any] = json.loads(msgspec.json.encode(state_document(state, NOON)))
    live = state_from_document(document, stored_job)
    assert state_from_document(document, job_from_spec) == live
    return live


def test_what_decisions_read_comes_over_the_wire_unchanged() -> None:
    """Allocations, deployments, versions, policies and settings are equal; of nodes and records all but times."""
    state = a_rich_state()
    read = over_the_wire(state)
    assert read.allocations == state.allocations
    assert read.deployments == state.deployments
    assert read.templates == state.templates
    assert read.node_policies == state.node_policies
    assert read.settings == state.settings
    assert (read.index, read.epoch, read.revision) == (state.index, state.epoch, state.revision)
    for found, sent in ((read.nodes, state.nodes), (read.jobs, state.jobs)):
        assert found.keys() == sent.keys()
    for node_id, node in state.nodes.items():
        times = {"registered_at": node.registered_at}
        assert msgspec.structs.replace(read.nodes[node_id], **times) == node
    for name, record in state.jobs.items():
        times = {"created_at": record.created_at, "modified_at": record.modified_at}
        assert msgspec.structs.replace(read.jobs[name], **times) == record
    for key, version in state.versions.items():
        assert _essence(read.versions[key]) == _essence(version)


@pytest.mark.parametrize("age", [timedelta(), timedelta(minutes=1), timedelta(hours=2)])
def test_the_same_is_planned_on_both_sides(age: timedelta) -> None:
    """Of the state as it stands, of a change, and of an emptied tree."""
    state = a_rich_state()
    for desired in (None, a_desired(OLD, a_job("more", count=3)), a_desired()):
        here = dry_run(state, desired, NOON + age, CountedIds())
        there = dry_run(over_the_wire(state), desired, NOON + age, CountedIds())
        assert report_document(here) == report_document(there)


def test_a_held_state_is_held_over_there_too() -> None:
    """With its digest."""
    state = a_rich_state()
    held = dry_run(state, a_desired(), NOON, CountedIds()).held
    assert isinstance(held, Held)
    state.held = held
    assert over_the_wire(state).held == held


def test_a_plan_changes_nothing_of_the_state_it_is_given() -> None:
    """It works on a copy."""
    state = a_rich_state()
    before = state_document(state, NOON)
    dry_run(state, a_desired(OLD, a_job("more", count=3)), NOON, CountedIds())
    assert state_document(state, NOON) == before


def _essence(version: JobVersion) -> tuple[Job, int, str, bool]:
    return version.job, version.version, version.digest, version.stable
