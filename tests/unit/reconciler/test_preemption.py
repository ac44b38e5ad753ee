"""More important work takes the room of less important, as little of it as will do."""

from typing import Any

from reconciler.changes import Place
from reconciler.evaluate import evaluate
from reconciler.room import Room
from reconciler.search import Search
from tests.builders import (
    NOON,
    CountingIds,
    a_desired,
    a_job,
    a_node,
    a_record,
    a_state,
    a_version,
    an_allocation,
)
from tests.pure_cluster import PureCluster
from trueup.models.job import Job, Port
from trueup.models.node import Node
from trueup.models.template import ClusterSettings

ON = ClusterSettings(preemption=("service",))


def low(name: str = "low", cpu: float = 1, priority: int = 20, **fields: Any) -> Job:
    return a_job(name, cpu=cpu, priority=priority, **fields)


def full(*jobs: Job, node: Node | None = None, settings: ClusterSettings = ON) -> PureCluster:
    """One node of two cores on which each of *jobs* runs once."""
    node = node or a_node(cpu=2)
    state = a_state(nodes=(node,), jobs=jobs)
    state.settings = settings
    for job in jobs:
        state.put_allocation(an_allocation(job, node, ports={"http": 8080} if job.groups[0].ports else {}))
    return PureCluster(state)


def add(cluster: PureCluster, job: Job) -> list[str]:
    """Registers *job* beside what is there; returns the names that are evicted by its first pass."""
    wanted = [one for name in cluster.state.jobs if (one := cluster.state.wanted_job(name)) is not None]
    cluster.apply(a_desired(*wanted, job, cluster=cluster.state.settings))
    outcome = cluster.one_pass()[job.name]
    return [held.name for placement in outcome.placements for held in placement.evicted]


def test_less_important_work_gives_way_and_waits_for_room() -> None:
    cluster = full(low("a"), low("b"))
    assert add(cluster, a_job("high", cpu=1, priority=90)) == ["a.app[0]"]
    cluster.settle()
    assert cluster.names("high") == ["high.app[0]"]
    assert not cluster.names("a")
    assert cluster.state.jobs["a"].unplaced
    gone = next(held for held in cluster.state.allocations_of_job("a"))
    assert (gone.desired_status, gone.reason) == ("evict", "preempted")


def test_it_is_off_unless_the_cluster_document_names_the_type() -> None:
    assert add(full(low(cpu=2), settings=ClusterSettings()), a_job("high", priority=90)) == []
    batch = a_job("high", type="batch", priority=90)
    assert add(full(low(cpu=2)), batch) == []


def test_a_priority_lower_by_less_than_10_is_safe() -> None:
    assert add(full(low(cpu=2, priority=45)), a_job("high", priority=54)) == []
    assert add(full(low(cpu=2, priority=45)), a_job("high", priority=55)) == ["low.app[0]"]


def test_the_least_important_goes_first() -> None:
    cluster = full(low("a", priority=40), low("b", priority=10))
    assert add(cluster, a_job("high", cpu=1, priority=90)) == ["b.app[0]"]


def test_no_more_goes_than_is_needed() -> None:
    """The small one was closest at first, and proves needless once the large one went."""
    cluster = full(low("small", cpu=0.3), low("large", cpu=1.6))
    assert add(cluster, a_job("high", cpu=1.5, priority=90)) == ["large.app[0]"]


def test_a_fixed_port_is_taken_over() -> None:
    cluster = full(low("web", cpu=0.1, ports=(Port(name="http", port=8080),)), low("other", cpu=0.1))
    assert add(cluster, a_job("high", priority=90, ports=(Port(name="http", port=8080),))) == ["web.app[0]"]
    cluster.settle()
    assert cluster.wanted("high")[0].ports == {"http": 8080}


def test_where_even_that_is_not_enough_nothing_is_evicted() -> None:
    assert add(full(low("a")), a_job("high", cpu=3, priority=90)) == []


def test_the_node_with_the_least_important_victim_is_taken() -> None:
    nodes = (a_node("a", cpu=1), a_node("b", cpu=1))
    jobs = (low("first", priority=40), low("second", priority=10), a_job("high", cpu=1, priority=90))
    state = a_state(nodes=nodes, jobs=jobs)
    state.settings = ON
    for job, node in zip(jobs[:2], nodes, strict=True):
        state.put_allocation(an_allocation(job, node))
    (placement,) = evaluate("high", state, NOON, CountingIds()).placements
    assert (placement.allocation.node, [held.job for held in placement.evicted]) == ("b", ["second"])
    assert placement.allocation.preempts == tuple(held.id for held in placement.evicted)


def test_two_placements_of_one_pass_do_not_evict_the_same() -> None:
    cluster = full(low("a"), low("b"))
    assert sorted(add(cluster, a_job("high", count=2, cpu=1, priority=90))) == ["a.app[0]", "b.app[0]"]


def test_what_is_replaced_in_an_older_version_is_no_more_important_than_its_job_is_now() -> None:
    """The priority is an in-place field: it counts as git wants it now, also for what is of a version before."""
    before, after = a_job("web", priority=90, cpu=2), a_job("web", priority=1, cpu=2, env={"V": "2"})
    cluster = full(low("a"), low("b"))
    state = cluster.state
    for number, job in enumerate((before, after), start=1):
        state.put_version(a_version(job, version=number))
        state.jobs["web"] = a_record(job, version=number)
    place = Place(version=state.versions["web", 1], group=before.groups[0], index=0)
    assert Search(place, Room(state)).by_eviction(place) is None
