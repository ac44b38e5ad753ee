"""What a plan shows is what is applied: the same names on the same nodes, in one pass and over many."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.dry_run import dry_run
from reconciler.report import report_document
from tests.builders import (
    NOON,
    CountingIds,
    a_desired,
    a_group,
    a_job,
    a_node,
    a_state,
    a_task,
    an_allocation,
)
from tests.pure_cluster import PureCluster
from trueup.models.allocation import Allocation
from trueup.models.codec import to_json
from trueup.models.desired import DesiredState
from trueup.models.ids import AllocationId
from trueup.models.job import Job, Port, Update
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings
from trueup.models.units import Duration

NAMES = ("api", "db", "web")


@st.composite
def jobs(draw: st.DrawFn, name: str) -> Job:
    kind = draw(st.sampled_from(["service", "service", "batch", "system"]))
    tasks = (
        a_task(
            cpu=draw(st.sampled_from([0.1, 1.0, 3.0])),
            env={"V": draw(st.sampled_from("ab"))},
        ),
    )
    ports = draw(st.sampled_from([(), (Port(name="http"),), (Port(name="http", port=8080),)]))
    count = 1 if kind == "system" else draw(st.integers(0, 5))
    return a_job(
        name,
        groups=(a_group(count=count, tasks=tasks, ports=ports),),
        type=kind,
        priority=draw(st.integers(1, 100)),
        update=Update(
            max_parallel=draw(st.integers(0, 2)),
            canary=draw(st.sampled_from([0, 0, 1, 2])),
            auto_promote=draw(st.booleans()),
            auto_revert=draw(st.booleans()),
            min_healthy_time=Duration(seconds=1),
        ),
        suspended=draw(st.sampled_from([False, False, False, True])),
    )


@st.composite
def wanted(draw: st.DrawFn, revision: str) -> DesiredState:
    names = draw(st.sets(st.sampled_from(NAMES), min_size=1))
    return a_desired(
        *[draw(jobs(name)) for name in sorted(names)],
        revision=revision,
        cluster=ClusterSettings(hold="off", preemption=draw(st.sampled_from([(), ("service",)]))),
    )


@st.composite
def worlds(draw: st.DrawFn) -> PureCluster:
    """A cluster that came to be by a few revisions and mishaps, at any point of its way."""
    nodes = [
        a_node(
            f"n{number}",
            cpu=draw(st.sampled_from([1, 4])),
            eligible=draw(st.sampled_from([True, True, False])),
        )
        for number in range(draw(st.integers(1, 4)))
    ]
    cluster = PureCluster(a_state(nodes=tuple(nodes)))
    cluster.state.settings = ClusterSettings(hold="off")
    for number in range(draw(st.integers(0, 3))):
        cluster.apply(draw(wanted(f"r{number}")))
        for _ in range(draw(st.integers(0, 3))):
            cluster.one_pass()
            if draw(st.booleans()):
                cluster.agents_obey()
        alive = [held for held in cluster.state.allocations.values() if held.client_status == "running"]
        if draw(st.booleans()) and alive:
            victim = draw(st.sampled_from(sorted(alive, key=lambda held: held.id)))
            cluster.put(victim, client_status=draw(st.sampled_from(["failed", "lost", "complete"])))
    return cluster


@settings(max_examples=100)
@given(worlds(), wanted("next"))
def test_what_is_planned_is_what_is_applied(cluster: PureCluster, desired: DesiredState) -> None:
    report = dry_run(cluster.state, desired, cluster.now, CountingIds(first=1_000_000))
    planned = {(placement.name, placement.node) for job in report.jobs for placement in job.placements}
    stops = sorted(stop.id for job in report.jobs for stop in job.stops)
    cluster.apply(desired)
    if report.held is not None:
        assert cluster.state.held == report.held
    outcomes = cluster.one_pass()
    applied = {
        (placement.allocation.name, placement.allocation.node)
        for outcome in outcomes.values()
        for placement in outcome.placements
    }
    assert applied == planned
    stopped = [held.id for outcome in outcomes.values() for held in outcome.all_stopped]
    assert sorted(stopped) == stops


@settings(max_examples=100)
@given(worlds(), wanted("next"))
def test_a_dry_run_changes_nothing(cluster: PureCluster, desired: DesiredState) -> None:
    before = snapshot(cluster.state)
    dry_run(cluster.state, desired, cluster.now, CountingIds(first=1_000_000))
    assert snapshot(cluster.state) == before


@settings(max_examples=60)
@given(worlds(), wanted("next"))
def test_passes_come_to_rest(cluster: PureCluster, desired: DesiredState) -> None:
    """Once agents do as told and nothing new is committed, passes end, and nothing unneeded was stopped."""
    cluster.apply(desired)
    cluster.settle(most=80)
    assert all(outcome.is_empty for outcome in cluster.one_pass().values())


def snapshot(state: ClusterState) -> list[bytes]:
    found = [to_json(held) for _, held in sorted(state.allocations.items())]
    found += [to_json(held) for _, held in sorted(state.jobs.items())]
    found += [to_json(held) for _, held in sorted(state.nodes.items())]
    return [*found, repr((state.index, state.revision, state.held)).encode()]


def a_large_report() -> bytes:
    """A report of many jobs on many nodes, as JSON: what must not depend on a hash seed."""
    nodes = tuple(
        a_node(f"n{number}", labels={"rack": str(number % 3)}, cpu=2 + number % 3) for number in range(12)
    )
    held = [a_job(f"job-{number}", count=number % 4 + 1, priority=number % 5 + 1) for number in range(20)]
    state = a_state(nodes=nodes, jobs=tuple(held[:10]))
    for number, job in enumerate(held[:10]):
        state.put_allocation(an_allocation(job, nodes[number]))
    report = dry_run(state, a_desired(*held[3:]), NOON, CountingIds())
    return to_json(report_document(report))


def test_the_same_input_gives_the_same_bytes_under_any_hash_seed() -> None:
    root = Path(__file__).parents[3]
    code = """if True:
        import sys
        sys.path[:0] = [".", sys.argv[1]]
        import test_dry_run
        sys.stdout.buffer.write(test_dry_run.a_large_report())
    """
    outputs = set()
    for seed in ("0", "1", "4242"):
        ran = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            cwd=root,
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=True,
        )
        outputs.add(ran.stdout)
    assert len(outputs) == 1
    assert len(outputs.pop()) > 1000


@settings(max_examples=60)
@given(worlds(), wanted("next"))
def test_what_must_always_hold(cluster: PureCluster, desired: DesiredState) -> None:
    """No more than the count and the canaries; nothing placed where nothing may be; no stop without need."""
    cluster.apply(desired)
    for _ in range(6):
        before = dict(cluster.state.allocations)
        for name, outcome in cluster.one_pass().items():
            for placement in outcome.placements:
                node = cluster.state.nodes[placement.allocation.node_id]
                assert node.status == "ready"
                assert node.eligible
            job = cluster.state.wanted_job(name)
            if job is None or job.type != "service" or job.suspended:
                continue
            (group,) = job.groups
            wanted_now = [held for held in cluster.wanted(name) if held.group == group.name]
            canaries = [held for held in wanted_now if held.deployment is not None and held.deployment.canary]
            assert len(wanted_now) - len(canaries) <= max(group.count, _wanted(before, name))
            assert len(canaries) <= job.update.canary
        cluster.agents_obey()
        cluster.now += timedelta(seconds=1)


def _wanted(allocations: dict[AllocationId, Allocation], job: str) -> int:
    return sum(1 for held in allocations.values() if held.job == job and held.is_wanted)
