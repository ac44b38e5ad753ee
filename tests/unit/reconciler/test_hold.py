"""Revisions that would end too much are held whole, until they end less or that very loss is confirmed."""

import msgspec

from reconciler.hold import confirming_document
from tests.builders import NOON, a_desired, a_job, a_node, a_state, an_allocation
from tests.pure_cluster import PureCluster
from trueup.models.desired import InvalidDocument
from trueup.models.job import Job, Schedule
from trueup.models.template import ClusterSettings, DrainPolicy, Hold, NodePolicy
from trueup.models.units import Percent


def running(*jobs: Job) -> PureCluster:
    node = a_node(cpu=64, memory="64GiB")
    state = a_state(nodes=(node,), jobs=jobs)
    for job in jobs:
        for index in range(job.groups[0].count):
            state.put_allocation(an_allocation(job, node, index=index))
    return PureCluster(state)


def test_removing_the_only_job_is_held_and_says_how_to_confirm() -> None:
    cluster = running(a_job())
    registration = cluster.apply(a_desired())
    held = registration.held
    assert held is not None
    assert held.removes == ("web",)
    assert "no job" in held.reason
    assert cluster.state.held == held
    assert cluster.state.revision == "r1"
    assert f"confirm: {held.confirm}" in confirming_document(held)
    assert cluster.one_pass()["web"].is_empty


def test_the_confirmed_loss_happens() -> None:
    cluster = running(a_job())
    held = cluster.apply(a_desired(revision="r2")).held
    assert held is not None
    after = cluster.apply(a_desired(revision="r3", cluster=ClusterSettings(confirm=held.confirm)))
    assert after.held is None
    assert cluster.state.held is None
    assert len(cluster.one_pass()["web"].stopped) == 1


def test_a_run_that_begins_meanwhile_takes_no_confirmation_back() -> None:
    """A schedule of every minute would leave somebody who reads and confirms no time."""
    hourly = a_job("sums", type="batch", schedule=Schedule(cron="0 * * * *"))
    for left in ((), (a_job("web", count=0), msgspec.structs.replace(hourly, suspended=True))):
        cluster = running(a_job("web", count=3), a_job("db"))
        cluster.apply(a_desired(a_job("web", count=3), a_job("db"), hourly))
        held = cluster.apply(a_desired(*left, revision="r2")).held
        assert held is not None
        (node,) = cluster.state.nodes.values()
        cluster.world.put_allocation(an_allocation(hourly, node, run=NOON))
        after = cluster.apply(a_desired(*left, revision="r3", cluster=ClusterSettings(confirm=held.confirm)))
        assert after.held is None


def test_a_confirmation_of_another_loss_confirms_nothing() -> None:
    cluster = running(a_job(), a_job("db"))
    settings = ClusterSettings(confirm="0123456789abcdef")
    assert cluster.apply(a_desired(cluster=settings)).held is not None


def test_a_hold_survives_further_commits_and_ends_with_one_that_ends_less() -> None:
    jobs = [a_job(name, count=2) for name in ("a", "b", "c")]
    cluster = running(*jobs)
    assert cluster.apply(a_desired(jobs[0], revision="r2")).held is not None
    assert cluster.apply(a_desired(a_job("a", count=2, priority=70), revision="r3")).held is not None
    assert cluster.apply(a_desired(*jobs[:2], revision="r4")).held is None
    assert cluster.state.held is None


def test_more_than_half_of_two_jobs_is_held_and_less_is_not() -> None:
    jobs = [a_job(name, count=2) for name in ("a", "b", "c", "d")]
    assert running(*jobs).apply(a_desired(*jobs[:2])).held is None, "exactly half"
    assert running(*jobs).apply(a_desired(jobs[0])).held is not None


def test_one_job_alone_may_go_whatever_its_share() -> None:
    jobs = [a_job("big", count=10), a_job("small")]
    assert running(*jobs).apply(a_desired(jobs[1])).held is None


def test_count_0_and_suspended_are_losses_too() -> None:
    jobs = [a_job(name, count=2) for name in ("a", "b", "c")]
    emptied = [a_job(name, count=0) for name in ("a", "b")]
    suspended = [a_job(name, count=2, suspended=True) for name in ("a", "b")]
    assert running(*jobs).apply(a_desired(jobs[2], *emptied)).held is not None
    assert running(*jobs).apply(a_desired(jobs[2], *suspended)).held is not None


def test_hold_off_lets_it_happen_but_never_the_last_job() -> None:
    jobs = [a_job(name, count=2) for name in ("a", "b", "c")]
    cluster = running(*jobs)
    cluster.state.settings = ClusterSettings(hold="off")
    settings = ClusterSettings(hold="off")
    assert cluster.apply(a_desired(jobs[0], cluster=settings)).held is None
    assert cluster.apply(a_desired(cluster=settings)).held is not None


def test_hold_counts_as_last_applied() -> None:
    """A revision cannot loosen the hold it would run into."""
    jobs = [a_job(name, count=2) for name in ("a", "b", "c")]
    assert running(*jobs).apply(a_desired(jobs[0], cluster=ClusterSettings(hold="off"))).held is not None
    assert Hold(stops_percent=Percent(50), jobs=2).jobs == 2


def test_a_protected_job_is_neither_removed_nor_emptied() -> None:
    kept, other = a_job("db", protect=True), a_job("web")
    for desired in (
        a_desired(other),
        a_desired(other, a_job("db", count=0)),
        a_desired(other, a_job("db", suspended=True)),
    ):
        held = running(kept, other).apply(desired).held
        assert held is not None
        assert held.removes == ("db",)


def test_removing_most_node_documents_is_held() -> None:
    cluster = running(a_job())
    policies = {name: NodePolicy(name=name) for name in ("a", "b", "c")}
    assert cluster.apply(a_desired(a_job(), revision="r2", nodes=policies)).held is None
    held = cluster.apply(a_desired(a_job(), revision="r3", nodes={"a": policies["a"]})).held
    assert held is not None
    assert "Node documents" in held.reason


def test_an_error_is_no_absence() -> None:
    """An invalid document, or a file nobody can read, removes nothing."""
    jobs = [a_job(name) for name in ("a", "b")]
    invalid = InvalidDocument(kind="Job", name="b", file="b.yaml")
    cluster = running(*jobs)
    assert cluster.apply(a_desired(jobs[0], invalid=(invalid,))).held is None
    assert cluster.state.jobs["b"].invalid
    assert not cluster.state.jobs["b"].removed
    cluster = running(*jobs)
    cluster.apply(a_desired(jobs[0], unreadable_files=("b.yaml",)))
    assert not cluster.state.jobs["b"].removed
    assert all(one.is_empty for one in cluster.one_pass().values())


def test_the_digest_is_of_exactly_that_loss() -> None:
    cluster = running(a_job(count=1))
    first = cluster.apply(a_desired(revision="r2")).held
    again = cluster.apply(a_desired(revision="r3")).held
    assert first is not None
    assert again is not None
    assert first.confirm == again.confirm
    other = running(a_job(count=1), a_job("db")).apply(a_desired(revision="r2")).held
    assert other is not None
    assert other.confirm != first.confirm
    assert msgspec.structs.replace(first, revision=again.revision) == again


def test_the_digest_stays_while_tasks_fail_and_are_replaced() -> None:
    """What is printed now can still be committed in a minute, also for a job that crashes again and again."""
    cluster = running(a_job(count=2))
    first = cluster.apply(a_desired(revision="r2")).held
    (crashed, _) = cluster.wanted()
    cluster.put(crashed, client_status="failed")
    again = cluster.apply(a_desired(revision="r3")).held
    assert first is not None
    assert again is not None
    assert first.confirm == again.confirm


def test_a_confirmation_does_not_wait_for_the_next_accident() -> None:
    """The job came back after its confirmed removal, and is lost again: that was never agreed to."""
    cluster = running(a_job(), a_job("db", protect=True))
    held = cluster.apply(a_desired(a_job(), revision="r2")).held
    assert held is not None
    confirm = ClusterSettings(confirm=held.confirm)
    assert cluster.apply(a_desired(a_job(), revision="r3", cluster=confirm)).held is None
    cluster.settle()
    cluster.apply(a_desired(a_job(), a_job("db", protect=True), revision="r4", cluster=confirm))
    cluster.settle()
    assert cluster.apply(a_desired(a_job(), revision="r5", cluster=confirm)).held is not None


def test_the_digest_names_the_nodes_that_a_system_job_leaves() -> None:
    """What confirmed the drain of two nodes does not confirm that of two others."""
    nodes = tuple(a_node(name) for name in ("a", "b", "c", "d"))
    jobs = (a_job("one", type="system"), a_job("two", type="system"))
    confirms = []
    for drained in (("a", "b", "c"), ("b", "c", "d")):
        state = a_state(nodes=nodes, jobs=jobs)
        for job in jobs:
            for node in nodes:
                state.put_allocation(an_allocation(job, node))
        policies = {name: NodePolicy(name=name, drain=DrainPolicy()) for name in drained}
        held = PureCluster(state).apply(a_desired(*jobs, nodes=policies)).held
        assert held is not None
        assert held.reason == "6 of 8 running allocations of 2 jobs would end"
        confirms.append(held.confirm)
    assert confirms[0] != confirms[1]


def adopted(*jobs: Job) -> PureCluster:
    """What runs of jobs, taken over by a store that knows of no revision."""
    cluster = running(*jobs)
    cluster.state.revision = None
    cluster.state.jobs.clear()
    cluster.state.versions.clear()
    return cluster


def test_a_lost_store_takes_no_error_for_an_absence() -> None:
    """What was adopted may be in the document that is invalid, or in the file that cannot be parsed."""
    jobs = [a_job(name, count=2) for name in ("a", "b", "c")]
    invalid = tuple(InvalidDocument(kind="Job", name=name, file="x.yaml") for name in ("a", "b"))
    assert adopted(*jobs).apply(a_desired(jobs[2])).held is not None
    assert adopted(*jobs).apply(a_desired(jobs[2], invalid=invalid)).held is None
    assert adopted(*jobs).apply(a_desired(jobs[2], invalid=invalid[:1])).held is None, "2 of 6"
    assert adopted(*jobs).apply(a_desired(unreadable_files=("x.yaml",))).held is None
    assert adopted(*jobs).apply(a_desired(a_job("other"))).held is not None
