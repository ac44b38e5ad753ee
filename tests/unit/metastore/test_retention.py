"""What history drops, and what it must not: nothing that has ended starts again for want of memory."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from metastore.retention import Retention
from metastore.store import SqlStore
from tests.builders import NOON, a_job, a_node, a_record, a_version, an_allocation
from tests.unit.metastore.talking import HandClock
from trueup.models.allocation import Allocation, DeploymentState
from trueup.models.deployment import Deployment, DeploymentGroup
from trueup.models.evaluation import Event
from trueup.models.ids import AllocationId, DeploymentId, NodeId
from trueup.models.job import Job, Schedule
from trueup.models.template import ClusterSettings, NodePolicy
from trueup.models.template import Retention as Keeping
from trueup.models.units import Duration

LONG_AGO = NOON - timedelta(days=30)


@pytest.fixture
def retention(store: SqlStore, clock: HandClock) -> Retention:
    return Retention(store, clock)


def put(store: SqlStore, job: Job | None, *allocations: Allocation, **record: Any) -> None:
    with store.transaction() as tx:
        if job is not None:
            tx.put_version(a_version(job))
            tx.put_job(a_record(job, **record))
        for allocation in allocations:
            tx.put_allocation(allocation)


def run_out(retention: Retention, clock: HandClock) -> None:
    """Steps until there is no more to drop."""
    while retention.step() - clock.now() < timedelta(minutes=1):
        pass


def left(store: SqlStore) -> list[str]:
    return sorted(store.state.allocations)


def ended(job: Job, name: str, status: Any = "complete", desired: Any = "run", **fields: Any) -> Allocation:
    fields.setdefault("modified_at", LONG_AGO)
    return an_allocation(job, id=name, client_status=status, desired_status=desired, **fields)


def test_what_ended_long_ago_and_is_not_wanted_goes(
    store: SqlStore, retention: Retention, clock: HandClock
) -> None:
    """And its node is told; what runs, or ended lately, stays."""
    told: list[tuple[NodeId, AllocationId]] = []
    retention = Retention(store, clock, lambda node, allocation: told.append((node, allocation)))
    job = a_job(count=3)
    put(
        store,
        job,
        ended(job, "old", desired="stop", reason="updating"),
        ended(job, "late", desired="stop", reason="updating", modified_at=NOON - timedelta(hours=23)),
        an_allocation(job, id="runs", modified_at=LONG_AGO),
        an_allocation(
            job, index=1, id="ends", desired_status="stop", reason="updating", modified_at=LONG_AGO
        ),
    )
    run_out(retention, clock)
    assert left(store) == ["ends", "late", "runs"]
    assert told == [("id-node-1", "old")]


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("status", ["complete", "failed"])
def test_a_finished_batch_is_remembered(
    store: SqlStore, retention: Retention, clock: HandClock, status: str, removed: bool
) -> None:
    """Also when its document is gone: it may come back, and must not run again."""
    job = a_job("sums", type="batch")
    put(store, job, ended(job, "sum", status), removed=removed)
    clock.move(days=400)
    run_out(retention, clock)
    assert left(store) == ["sum"]
    assert "sums" in store.state.jobs
    assert store.state.current_version("sums") is not None


def test_a_service_that_failed_stands_for_its_name_until_the_job_is_gone(
    store: SqlStore, retention: Retention, clock: HandClock
) -> None:
    """Without it the job would begin anew, its backoff forgotten."""
    job = a_job()
    put(store, job, ended(job, "failed", "failed"))
    run_out(retention, clock)
    assert left(store) == ["failed"]
    put(store, job, removed=True)
    run_out(retention, clock)
    assert left(store) == []


def test_of_scheduled_runs_the_newest_stay(store: SqlStore, retention: Retention, clock: HandClock) -> None:
    """`keep` beats `retention`: so many that have ended, however old or young, and all that run."""
    job = a_job("tick", type="batch", schedule=Schedule(cron="* * * * *", keep=2))
    runs = [NOON - timedelta(minutes=number) for number in range(5)]
    put(
        store,
        job,
        an_allocation(job, id="running", run=runs[4]),
        *(ended(job, f"run-{number}", run=runs[number], modified_at=runs[number]) for number in range(4)),
    )
    run_out(retention, clock)
    assert left(store) == ["run-0", "run-1", "running"]
    clock.move(days=30)
    run_out(retention, clock)
    assert left(store) == ["run-0", "run-1", "running"]


def a_deployment(name: str, version: int, status: Any) -> Deployment:
    return Deployment(
        id=DeploymentId(name),
        job="web",
        job_version=version,
        status=status,
        groups={"app": DeploymentGroup(desired_total=1)},
        created_at=LONG_AGO,
        modified_at=LONG_AGO,
    )


def test_versions_that_nothing_uses_go(store: SqlStore, retention: Retention, clock: HandClock) -> None:
    """The newest six stay, and the current, the stable, and those that something runs in."""
    job = a_job()
    with store.transaction() as tx:
        for number in range(1, 13):
            version = a_version(job, version=number)
            tx.put_version(msgspec.structs.replace(version, stable=number == 2))
        tx.put_job(a_record(job, version=12))
        tx.put_allocation(an_allocation(job, version=3))
        tx.put_deployment(a_deployment("active", 4, "running"))
        tx.put_deployment(a_deployment("over", 5, "failed"))
        tx.put_deployment(a_deployment("newest", 12, "successful"))
    clock.move(days=2)
    run_out(retention, clock)
    assert sorted(number for _, number in store.state.versions) == [2, 3, 4, 7, 8, 9, 10, 11, 12]
    assert sorted(store.state.deployments) == ["active", "newest"]


def test_a_deployment_that_an_allocation_names_stays(
    store: SqlStore, retention: Retention, clock: HandClock
) -> None:
    """It says how that allocation came to be."""
    job = a_job()
    put(store, job, an_allocation(job, deployment=DeploymentState(id=DeploymentId("over"))))
    with store.transaction() as tx:
        tx.put_deployment(a_deployment("over", 1, "successful"))
        tx.put_deployment(a_deployment("newest", 1, "successful"))
    run_out(retention, clock)
    assert sorted(store.state.deployments) == ["newest", "over"]


def test_a_removed_job_goes_when_nothing_is_left_of_it(
    store: SqlStore, retention: Retention, clock: HandClock
) -> None:
    """A week later, as long as events name it."""
    put(store, a_job(), removed=True)
    clock.move(days=5)
    run_out(retention, clock)
    assert "web" in store.state.jobs
    clock.move(days=3)
    run_out(retention, clock)
    assert not store.state.jobs
    assert not store.state.versions


def test_a_node_that_is_gone_for_long_is_forgotten(
    store: SqlStore, retention: Retention, clock: HandClock
) -> None:
    """Unless it holds something, or has a document."""
    with store.transaction() as tx:
        tx.put_node_policy(NodePolicy(name="known"))
        tx.put_node(a_node("gone", status="down"))
        tx.put_node(a_node("known", status="down", declared=True))
        tx.put_node(a_node("holds", status="down"))
        tx.put_node(a_node("ready"))
        tx.put_node_secret(NodeId("id-gone"), "secret")
        tx.put_allocation(an_allocation(a_job(), a_node("holds"), client_status="unknown"))
    clock.move(days=2)
    run_out(retention, clock)
    assert sorted(node.name for node in store.state.nodes.values()) == ["holds", "known", "ready"]
    assert store.node_secret(NodeId("id-gone")) is None


def test_histories_are_cut_by_the_settings(store: SqlStore, retention: Retention, clock: HandClock) -> None:
    """As the Cluster document has them."""
    with store.transaction() as tx:
        tx.put_event(Event(at=NOON, type="Old", message="old"))
    clock.move(days=6)
    run_out(retention, clock)
    assert len(store.events(after=None, limit=9)) == 1
    with store.transaction() as tx:
        tx.put_settings(ClusterSettings(retention=Keeping(events=Duration(days=5))))
    run_out(retention, clock)
    assert not store.events(after=None, limit=9)


def test_pushes_that_can_do_nothing_are_dropped(
    store: SqlStore, retention: Retention, clock: HandClock
) -> None:
    """Of what has ended, or to who is gone: heartbeats mend the rest."""
    job = a_job(count=2)
    put(store, job, an_allocation(job, id="runs"), ended(job, "over", "failed", index=1))
    with store.transaction() as tx:
        tx.put_node(a_node())
        for name in ("runs", "over", "unknown"):
            tx.push(NodeId("id-node-1"), AllocationId(name), "start")
        tx.push(NodeId("nobody"), AllocationId("runs"), "stop")
    retention.step()
    assert [(entry.allocation_id, entry.kind) for entry in store.outbox()] == [("runs", "start")]


def test_a_step_with_nothing_to_drop_writes_nothing(
    store: SqlStore, retention: Retention, clock: HandClock
) -> None:
    """It comes once a minute."""
    put(store, a_job(), an_allocation())
    index = store.state.index
    assert retention.step() - clock.now() == timedelta(minutes=1)
    assert store.state.index == index


def test_much_is_dropped_in_small_parts(store: SqlStore, retention: Retention, clock: HandClock) -> None:
    """Others write in between."""
    job = a_job()
    put(
        store,
        job,
        *(ended(job, f"old-{number}", desired="stop", reason="updating") for number in range(1200)),
    )
    assert retention.step() - clock.now() == timedelta(seconds=1)
    assert len(left(store)) == 700
    run_out(retention, clock)
    assert left(store) == []
