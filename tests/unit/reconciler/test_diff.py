"""What should change for one job, told as an operator's stories: a situation, a pass, and what comes out."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from reconciler.evaluate import evaluate
from reconciler.planner import Plan
from tests.builders import (
    NOON,
    CountingIds,
    a_desired,
    a_group,
    a_job,
    a_node,
    a_record,
    a_state,
    a_task,
    an_allocation,
)
from tests.pure_cluster import PureCluster
from trueup.models.allocation import RescheduleEvent, TaskState
from trueup.models.job import Disconnect, Job, Port, Reschedule, Schedule, Update
from trueup.models.node import Drain
from trueup.models.state import ClusterState
from trueup.models.units import Duration


def counts(outcome: Plan, group: str = "app") -> dict[str, int]:
    """The counts of a group that are not zero, `ignore` apart."""
    changes = outcome.changes.groups[group]
    found = {
        "place": len(changes.place),
        "stop": len(changes.stop),
        "in_place": len(changes.in_place),
        "destructive": len(changes.destructive),
        "migrate": len(changes.migrate),
    }
    return {name: count for name, count in found.items() if count}


def passed(state: ClusterState, name: str = "web") -> Plan:
    return evaluate(name, state, NOON, CountingIds())


def running_state(job: Job, count: int, **fields: Any) -> ClusterState:
    """A job that runs: *count* healthy allocations on one large node."""
    node = a_node(cpu=64, memory="64GiB")
    state = a_state(nodes=(node,), jobs=(job,))
    for index in range(count):
        state.put_allocation(an_allocation(job, node, index=index, **fields))
    return state


def test_a_new_job_gets_its_lowest_indexes() -> None:
    state = running_state(a_job(count=3), 0)
    outcome = passed(state)
    assert [one.allocation.name for one in outcome.placements] == ["web.app[0]", "web.app[1]", "web.app[2]"]
    assert counts(outcome) == {"place": 3}


def test_what_runs_as_wanted_is_left_alone() -> None:
    outcome = passed(running_state(a_job(count=3), 3))
    assert outcome.is_empty
    assert outcome.changes.groups["app"].ignore == 3


def test_scale_down_stops_the_highest_index() -> None:
    outcome = passed(running_state(a_job(count=1), 3))
    assert [held.name for held in outcome.stopped] == ["web.app[2]", "web.app[1]"]
    assert {held.reason for held in outcome.stopped} == {"not needed"}


def test_gaps_are_filled_and_never_closed_by_moving() -> None:
    state = running_state(a_job(count=3), 3)
    state.drop_allocation(state.allocations_of_job("web")[1].id)
    outcome = passed(state)
    assert [one.allocation.name for one in outcome.placements] == ["web.app[1]"]
    assert not outcome.stopped


def test_a_gap_stays_when_the_count_is_met_above_it() -> None:
    state = running_state(a_job(count=2), 3)
    state.drop_allocation(state.allocations_of_job("web")[0].id)
    assert passed(state).is_empty


def test_of_two_that_share_a_name_the_one_of_the_newest_version_stays() -> None:
    state = running_state(a_job(count=1), 1)
    twin = an_allocation(a_job(), a_node(), index=0, id="twin", version=0)
    state.put_allocation(twin)
    outcome = passed(state)
    assert [held.id for held in outcome.stopped] == ["twin"]


def test_a_group_that_the_job_has_no_more_is_stopped() -> None:
    state = running_state(a_job(count=1), 1)
    old = an_allocation(a_job(groups=(a_group("old"),)), a_node(), id="old")
    state.put_allocation(old)
    outcome = passed(state)
    assert [held.id for held in outcome.stopped] == ["old"]


def test_a_removed_job_is_stopped_with_its_reason() -> None:
    state = running_state(a_job(count=2), 2)
    state.jobs["web"] = a_record(a_job(), removed=True, removed_revision="r2")
    outcome = passed(state)
    assert {held.reason for held in outcome.stopped} == {"job removed"}
    assert len(outcome.stopped) == 2


def test_a_removed_job_waits_for_its_dependants_to_end() -> None:
    base, dependant = a_job("base"), a_job("top", depends_on=("base",))
    node = a_node()
    state = a_state(nodes=(node,), jobs=(base, dependant))
    for job in (base, dependant):
        state.jobs[job.name] = a_record(job, removed=True, removed_revision="r2")
        state.put_allocation(an_allocation(job, node))
    assert not passed(state, "base").stopped
    assert passed(state, "base").changes.waits_for == ("top",)
    assert len(passed(state, "top").stopped) == 1


def test_a_suspended_job_is_stopped() -> None:
    outcome = passed(running_state(a_job(count=1, suspended=True), 1))
    assert [held.reason for held in outcome.stopped] == ["suspended"]


def test_a_job_waits_until_what_it_depends_on_is_healthy() -> None:
    state = a_state(nodes=(a_node(),), jobs=(a_job("base"), a_job(depends_on=("base",))))
    assert passed(state).changes.waits_for == ("base",)
    state.put_allocation(an_allocation(a_job("base"), a_node()))
    assert counts(passed(state)) == {"place": 1}


def test_a_changed_environment_rolls_one_at_a_time() -> None:
    cluster = PureCluster(running_state(a_job(count=3), 3))
    before = {held.id for held in cluster.wanted()}
    cluster.apply(a_desired(a_job(count=3, env={"COLOUR": "blue"})))
    first = cluster.one_pass()["web"]
    assert counts(first) == {"destructive": 1}
    assert first.changes.groups["app"].destructive_total == 3
    assert first.placements[0].stopped is not None
    assert first.placements[0].stopped.reason == "updating"
    assert counts(cluster.one_pass()["web"]) == {}, "the next waits until the first is healthy"
    cluster.settle()
    assert cluster.names() == ["web.app[0]", "web.app[1]", "web.app[2]"]
    assert before.isdisjoint(held.id for held in cluster.wanted())
    assert [one.status for one in cluster.state.deployments_of_job("web")] == ["successful"]


def test_max_parallel_0_changes_all_at_once() -> None:
    cluster = PureCluster(running_state(a_job(count=3, max_parallel=0), 3))
    cluster.apply(a_desired(a_job(count=3, max_parallel=0, env={"COLOUR": "blue"})))
    assert counts(cluster.one_pass()["web"]) == {"destructive": 3}


def test_an_unhealthy_new_one_halts_the_rollout() -> None:
    cluster = PureCluster(running_state(a_job(count=3), 3))
    cluster.apply(a_desired(a_job(count=3, env={"COLOUR": "blue"})))
    new = cluster.one_pass()["web"].placements[0].allocation
    cluster.put(new, client_status="running", healthy=False, tasks={"server": TaskState(state="running")})
    cluster.now += timedelta(minutes=6)
    assert counts(cluster.one_pass()["web"]) == {}
    assert cluster.state.allocations[new.id].deployment.healthy is False  # type: ignore[union-attr]
    told = cluster.state.deployments_of_job("web")[0].groups["app"]
    assert (told.desired_total, told.placed, told.healthy, told.unhealthy) == (3, 1, 0, 1)


def test_a_rollout_that_makes_no_progress_fails_and_still_mends() -> None:
    job = a_job(count=2, env={"COLOUR": "blue"})
    cluster = PureCluster(running_state(a_job(count=2), 2))
    cluster.apply(a_desired(job))
    cluster.one_pass()
    cluster.now += timedelta(minutes=11)
    cluster.one_pass()
    deployment = cluster.state.deployments_of_job("web")[0]
    assert (deployment.status, "no progress" in deployment.reason) == ("failed", True)
    lost = cluster.wanted()[1]
    cluster.put(lost, client_status="lost")
    assert counts(cluster.one_pass()["web"]) == {"place": 1}


def test_a_newer_version_supersedes_a_rollout_under_way() -> None:
    cluster = PureCluster(running_state(a_job(count=3), 3))
    cluster.apply(a_desired(a_job(count=3, env={"COLOUR": "blue"}), revision="r2"))
    cluster.one_pass()
    cluster.apply(a_desired(a_job(count=3, env={"COLOUR": "red"}), revision="r3"))
    cluster.settle()
    assert [one.status for one in cluster.state.deployments_of_job("web")] == ["superseded", "successful"]
    assert {held.revision for held in cluster.wanted()} == {"r3"}


def test_a_commit_of_fields_in_place_touches_no_running_task() -> None:
    cluster = PureCluster(running_state(a_job(count=2), 2))
    before = [held.id for held in cluster.wanted()]
    cluster.apply(a_desired(a_job(count=2, priority=80)))
    assert counts(cluster.one_pass()["web"]) == {"in_place": 2}
    assert [held.id for held in cluster.wanted()] == before
    assert {held.job_version for held in cluster.wanted()} == {2}


def test_an_allocation_that_no_longer_fits_its_constraints_moves() -> None:
    node, other = a_node("node-1"), a_node("node-2", labels={"disk": "ssd"})
    job = a_job()
    state = a_state(nodes=(node, other), jobs=(job,))
    state.put_allocation(an_allocation(job, node))
    cluster = PureCluster(state)
    from trueup.models.job import Constraint

    constraint = Constraint(attribute="node.labels.disk", operator="=", value="ssd")
    cluster.apply(a_desired(a_job(constraints=(constraint,))))
    cluster.settle()
    assert [held.node for held in cluster.wanted()] == ["node-2"]


def test_restart_token_rolls() -> None:
    cluster = PureCluster(running_state(a_job(count=2), 2))
    before = {held.id for held in cluster.wanted()}
    cluster.apply(a_desired(a_job(count=2, restart_token="again")))
    cluster.settle()
    assert before.isdisjoint(held.id for held in cluster.wanted())


def test_a_lost_allocation_is_replaced_at_once_under_its_name() -> None:
    state = running_state(a_job(count=2), 2)
    lost = state.allocations_of_job("web")[1]
    state.put_allocation(msgspec.structs.replace(lost, client_status="lost"))
    outcome = passed(state)
    (placement,) = outcome.placements
    assert placement.allocation.name == lost.name
    assert placement.stopped is not None
    assert (placement.stopped.id, placement.stopped.reason) == (lost.id, "lost")
    assert placement.allocation.replaces == lost.id


def failed(job: Job, seconds_ago: float, *, attempts: int = 0) -> ClusterState:
    """One allocation that failed so long ago, after earlier attempts a minute apart."""
    ended = NOON - timedelta(seconds=seconds_ago)
    events = tuple(
        RescheduleEvent(
            at=ended - timedelta(minutes=attempts - number), delay=Duration(seconds=30 * 2**number)
        )
        for number in range(attempts)
    )
    tasks = {"server": TaskState(state="dead", failed=True, finished_at=ended)}
    state = a_state(nodes=(a_node(),), jobs=(job,))
    state.put_allocation(
        an_allocation(job, a_node(), client_status="failed", tasks=tasks, reschedule_events=events)
    )
    return state


@pytest.mark.parametrize(
    ("attempts", "seconds_ago", "placed"),
    [(0, 29, 0), (0, 31, 1), (1, 59, 0), (1, 61, 1), (3, 239, 0), (3, 241, 1)],
)
def test_a_failed_service_comes_back_after_an_exponential_delay(
    attempts: int, seconds_ago: float, placed: int
) -> None:
    outcome = passed(failed(a_job(), seconds_ago, attempts=attempts))
    assert len(outcome.placements) == placed
    if not placed:
        assert outcome.changes.next_look == NOON + timedelta(seconds=1)


def test_an_exhausted_reschedule_policy_leaves_it_failed() -> None:
    policy = Reschedule(
        attempts=1,
        interval=Duration(hours=1),
        delay=Duration(seconds=5),
        delay_function="constant",
        unlimited=False,
    )
    job = a_job(groups=(a_group(reschedule=policy),))
    outcome = passed(failed(job, 600, attempts=1))
    assert outcome.is_empty
    assert outcome.changes.next_look is None


def test_a_new_version_does_not_wait_for_the_old_ones_backoff() -> None:
    cluster = PureCluster(failed(a_job(), 1))
    cluster.apply(a_desired(a_job(env={"FIXED": "yes"})))
    assert len(cluster.one_pass()["web"].placements) == 1


def test_a_service_that_ends_by_itself_is_placed_again() -> None:
    state = running_state(a_job(), 1, client_status="complete")
    assert counts(passed(state)) == {"place": 1}


def test_a_finished_batch_counts_for_ever() -> None:
    job = a_job(type="batch", count=2)
    state = running_state(job, 2, client_status="complete")
    assert passed(state).is_empty


def test_a_finished_batch_runs_again_for_what_its_tasks_see_alone() -> None:
    job = a_job(type="batch", count=1)
    cluster = PureCluster(running_state(job, 1, client_status="complete"))
    cluster.apply(a_desired(a_job(type="batch", count=2, priority=70), revision="r2"))
    assert [one.allocation.name for one in cluster.one_pass()["web"].placements] == ["web.app[1]"]
    cluster.agents_obey()
    cluster.apply(a_desired(a_job(type="batch", count=2, env={"INPUT": "new"}), revision="r3"))
    assert len(cluster.one_pass()["web"].placements) == 2


def test_a_system_job_runs_on_every_node_that_may() -> None:
    job = a_job(type="system")
    nodes = (a_node("a"), a_node("b"), a_node("c", eligible=False), a_node("d", status="down"))
    outcome = passed(a_state(nodes=nodes, jobs=(job,)))
    assert [(one.allocation.name, one.allocation.node) for one in outcome.placements] == [
        ("web.app[0]", "a"),
        ("web.app[0]", "b"),
    ]


def test_a_system_jobs_lost_allocation_ends_and_its_node_begins_afresh() -> None:
    job = a_job(type="system")
    node = a_node("a", status="down")
    state = a_state(nodes=(node,), jobs=(job,))
    state.put_allocation(an_allocation(job, node))
    cluster = PureCluster(state)
    assert [(held.node, held.reason) for held in cluster.one_pass()["web"].stopped] == [("a", "lost")]
    assert cluster.one_pass()["web"].is_empty
    state.nodes[node.id] = a_node("a")
    assert len(cluster.one_pass()["web"].placements) == 1


def drained(job: Job, count: int, *, minutes_left: float = 60) -> ClusterState:
    """A node that is drained, with *count* running, and an empty one."""
    drain = Drain(started_at=NOON, deadline_at=NOON + timedelta(minutes=minutes_left))
    old, new = a_node("old", drain=drain, eligible=False), a_node("new")
    state = a_state(nodes=(old, new), jobs=(job,))
    for index in range(count):
        state.put_allocation(an_allocation(job, old, index=index))
    return state


def test_services_leave_a_draining_node_by_max_parallel() -> None:
    outcome = passed(drained(a_job(count=3), 3))
    assert counts(outcome) == {"migrate": 1}
    (placement,) = outcome.placements
    assert placement.allocation.node == "new"
    assert placement.stopped is not None
    assert placement.stopped.reason == "migrating"


def test_past_the_drains_deadline_all_leave() -> None:
    outcome = passed(drained(a_job(count=3), 3, minutes_left=-1))
    assert len(outcome.placements) == 3


def test_batch_on_a_draining_node_runs_on_until_the_deadline() -> None:
    outcome = passed(drained(a_job(type="batch"), 1, minutes_left=5))
    assert outcome.is_empty
    assert outcome.changes.next_look == NOON + timedelta(minutes=5)
    assert len(passed(drained(a_job(type="batch"), 1, minutes_left=-5)).placements) == 1


def test_what_finds_no_room_on_another_node_stays_on_the_draining_one() -> None:
    state = drained(a_job(count=1, cpu=2), 1)
    state.nodes[a_node("new").id] = a_node("new", cpu=1)
    outcome = passed(state)
    assert not outcome.placements
    assert not outcome.stopped
    assert outcome.unplaced[0].reasons == {"insufficient cpu": 1, "node is draining": 1}


def scheduled(minutes_ago: float, **fields: object) -> ClusterState:
    """An hourly batch job that was registered so long before a full hour plus a second."""
    schedule = Schedule(cron="0 * * * *", **fields)  # type: ignore[arg-type]
    job = a_job(type="batch", schedule=schedule)
    state = a_state(nodes=(a_node(),), jobs=(job,))
    created = NOON - timedelta(minutes=minutes_ago)
    state.jobs["web"] = msgspec.structs.replace(a_record(job), created_at=created)
    return state


def test_a_scheduled_run_begins_on_time_and_is_known_by_it() -> None:
    outcome = passed(scheduled(30))
    (placement,) = outcome.placements
    assert placement.allocation.run == NOON
    assert outcome.changes.ran_at == NOON
    assert outcome.changes.next_look == NOON + timedelta(hours=1)


def test_before_its_time_no_run_begins() -> None:
    cluster = PureCluster(scheduled(30), now=NOON - timedelta(minutes=1))
    assert cluster.one_pass()["web"].is_empty


def test_a_run_begins_once() -> None:
    cluster = PureCluster(scheduled(30))
    assert len(cluster.one_pass()["web"].placements) == 1
    cluster.agents_obey()
    cluster.now += timedelta(seconds=5)
    assert not cluster.one_pass()["web"].placements


def test_overlap_forbid_skips_a_run_while_the_last_one_goes_on() -> None:
    cluster = PureCluster(scheduled(30, overlap="forbid"))
    cluster.one_pass()
    cluster.agents_obey()
    cluster.now += timedelta(hours=1)
    outcome = cluster.one_pass()["web"]
    assert not outcome.placements
    assert outcome.changes.ran_at == NOON + timedelta(hours=1)


def test_overlap_allow_runs_both() -> None:
    cluster = PureCluster(scheduled(30, overlap="allow"))
    cluster.one_pass()
    cluster.agents_obey()
    cluster.now += timedelta(hours=1)
    cluster.one_pass()
    assert [held.run for held in cluster.wanted()] == [NOON, NOON + timedelta(hours=1)]


def test_overlap_replace_ends_the_last_one() -> None:
    cluster = PureCluster(scheduled(30, overlap="replace"))
    cluster.one_pass()
    cluster.agents_obey()
    cluster.now += timedelta(hours=1)
    outcome = cluster.one_pass()["web"]
    assert [held.run for held in outcome.stopped] == [NOON]
    assert [one.allocation.run for one in outcome.placements] == [NOON + timedelta(hours=1)]


@pytest.mark.parametrize(("catch_up", "runs"), [(0, 0), (30, 0), (60, 1)])
def test_a_missed_run_is_made_up_if_younger_than_catch_up(catch_up: int, runs: int) -> None:
    state = scheduled(30, catch_up=Duration(minutes=catch_up))
    cluster = PureCluster(state, now=NOON + timedelta(minutes=45))
    outcome = cluster.one_pass()["web"]
    assert len(outcome.placements) == runs
    assert outcome.changes.ran_at == NOON, "a run that was missed for good is considered once"


def test_a_frozen_job_takes_no_change_but_is_mended() -> None:
    cluster = PureCluster(running_state(a_job(count=1), 1))
    cluster.apply(a_desired(a_job(count=1, frozen=True, env={"COLOUR": "blue"})))
    assert cluster.one_pass()["web"].is_empty
    cluster.put(cluster.wanted()[0], client_status="lost")
    cluster.one_pass()
    (held,) = cluster.wanted()
    assert held.job_version == 1


def test_a_changed_type_is_a_deletion_and_a_creation() -> None:
    cluster = PureCluster(running_state(a_job(count=1), 1))
    cluster.apply(a_desired(a_job(count=1, type="batch")))
    outcome = cluster.one_pass()["web"]
    assert len(outcome.stopped) == 1
    assert len(outcome.placements) == 1


def test_a_fixed_port_passes_on_when_the_old_holder_is_coupled() -> None:
    ports = (Port(name="http", port=8080),)
    cluster = PureCluster(running_state(a_job(ports=ports), 0))
    cluster.settle()
    cluster.apply(a_desired(a_job(ports=ports, env={"COLOUR": "blue"})))
    cluster.settle()
    (held,) = cluster.wanted()
    assert (held.job_version, held.ports) == (2, {"http": 8080})


def test_a_deployment_opens_for_the_first_version_and_succeeds() -> None:
    job = a_job(count=2, update=Update(max_parallel=1, min_healthy_time=Duration(seconds=1)))
    cluster = PureCluster(running_state(job, 0))
    cluster.settle()
    assert [one.status for one in cluster.state.deployments_of_job("web")] == ["successful"]
    assert cluster.state.versions["web", 1].stable


def test_several_groups_change_on_their_own() -> None:
    groups = (a_group("front", count=2), a_group("back", count=1, tasks=(a_task("db"),)))
    cluster = PureCluster(a_state(nodes=(a_node(),), jobs=(a_job(groups=groups),)))
    cluster.settle()
    assert cluster.names() == ["web.back[0]", "web.front[0]", "web.front[1]"]


def silent(status: str, **disconnect: Any) -> tuple[ClusterState, Job]:
    """One that runs on a node that fell silent at noon, and another node with room."""
    job = a_job(groups=(a_group(disconnect=Disconnect(**disconnect)),))
    node = a_node("a", status=status)
    state = a_state(nodes=(node, a_node("b")), jobs=(job,))
    fields: dict[str, Any] = (
        {"client_status": "unknown", "unknown_since": NOON} if status == "disconnected" else {}
    )
    state.put_allocation(an_allocation(job, node, **fields))
    return state, job


def test_what_runs_on_a_node_that_is_down_is_lost() -> None:
    state, _ = silent("down")
    (placement,) = passed(state).placements
    assert placement.allocation.node == "b"
    assert placement.stopped is not None
    assert placement.stopped.reason == "lost"


@pytest.mark.parametrize(
    ("disconnect", "seconds"),
    [({"lost_after": Duration(seconds=60)}, 60), ({"stop_after": Duration(seconds=60)}, 65)],
)
def test_what_is_unknown_counts_until_its_patience_is_over(
    disconnect: dict[str, Duration], seconds: int
) -> None:
    """With `stop_after` the agent ends it by itself, for which the longest kill timeout is waited too."""
    state, _ = silent("disconnected", **disconnect)
    cluster = PureCluster(state, now=NOON + timedelta(seconds=seconds - 1))
    outcome = cluster.one_pass()["web"]
    assert outcome.is_empty
    assert outcome.changes.next_look == NOON + timedelta(seconds=seconds)
    cluster.now += timedelta(seconds=1)
    assert len(cluster.one_pass()["web"].placements) == 1


@pytest.mark.parametrize(("count", "canaries"), [(0, 0), (1, 1)])
def test_what_ends_for_a_lower_count_gets_no_canary(count: int, canaries: int) -> None:
    cluster = PureCluster(running_state(a_job(count=2), 2))
    cluster.apply(a_desired(a_job(count=count, env={"MODE": "new"}, update=Update(canary=1))))
    outcome = cluster.one_pass()["web"]
    assert len(outcome.changes.groups["app"].canary) == canaries
    again = cluster.one_pass()["web"]
    assert not again.placements
    assert not again.stopped
