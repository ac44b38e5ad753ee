"""Rollouts with canaries, and those that go back by themselves, as an operator's stories."""

from datetime import timedelta
from typing import Any

import pytest

from tests.builders import a_desired, a_job, a_node, a_state, an_allocation
from tests.pure_cluster import PureCluster
from trueup.models.allocation import Allocation, TaskState
from trueup.models.digest import job_digest
from trueup.models.health import job_health
from trueup.models.job import Job, Update
from trueup.models.units import Duration

BLUE, GREEN, RED = ({"COLOUR": colour} for colour in ("blue", "green", "red"))


def web(env: dict[str, str], count: int = 3, **update: Any) -> Job:
    update.setdefault("canary", 1)
    settings = Update(max_parallel=1, min_healthy_time=Duration(seconds=1), **update)
    return a_job(count=count, env=env, update=settings)


@pytest.fixture
def cluster() -> PureCluster:
    """Three of web in blue, healthy."""
    node = a_node(cpu=64, memory="64GiB")
    state = a_state(nodes=(node,), jobs=(web(BLUE),))
    for index in range(3):
        state.put_allocation(an_allocation(web(BLUE), node, index=index))
    return PureCluster(state)


def colours(cluster: PureCluster) -> list[tuple[str, int, bool]]:
    """What is wanted: name, version, and whether as a canary."""
    return [(held.name, held.job_version, is_canary(held)) for held in cluster.wanted()]


def is_canary(held: Allocation) -> bool:
    return held.deployment is not None and held.deployment.canary


def test_canaries_come_first_and_alone_under_the_names_of_what_they_may_replace(cluster: PureCluster) -> None:
    cluster.apply(a_desired(web(GREEN, canary=2)))
    changes = cluster.one_pass()["web"].changes.groups["app"]
    assert (len(changes.canary), len(changes.place), len(changes.destructive)) == (2, 0, 0)
    assert changes.destructive_total == 3
    cluster.settle()
    assert [one for one in colours(cluster) if one[2]] == [("web.app[0]", 2, True), ("web.app[1]", 2, True)]
    assert [one for one in colours(cluster) if not one[2]] == [
        (f"web.app[{index}]", 1, False) for index in range(3)
    ]
    cluster.now += timedelta(hours=3)
    assert cluster.one_pass()["web"].is_empty, "waiting for a person has no deadline"
    assert [one.status for one in cluster.state.deployments_of_job("web")] == ["running"]


@pytest.mark.parametrize("by", ["digest", "short digest", "commit"])
def test_a_commit_promotes_by_digest_or_commit(cluster: PureCluster, by: str) -> None:
    cluster.apply(a_desired(web(GREEN), revision="feedfacecafe"))
    cluster.settle()
    digest = job_digest(web(GREEN))
    promote = {"digest": digest, "short digest": digest[:8], "commit": "feedface"}[by]
    cluster.apply(a_desired(web(GREEN, promote=promote), revision="r3"))
    outcome = cluster.one_pass()["web"]
    assert [held.reason for held in outcome.stopped] == ["updating"], "the canary's twin goes"
    cluster.settle()
    assert {(held.digest, is_canary(held)) for held in cluster.wanted()} == {
        (cluster.wanted()[0].digest, False)
    }
    assert cluster.names() == ["web.app[0]", "web.app[1]", "web.app[2]"]
    assert [one.status for one in cluster.state.deployments_of_job("web")] == ["successful"]


def test_another_digest_promotes_nothing(cluster: PureCluster) -> None:
    cluster.apply(a_desired(web(GREEN), revision="r2"))
    cluster.settle()
    cluster.apply(a_desired(web(GREEN, promote=job_digest(web(BLUE))), revision="r3"))
    cluster.settle()
    assert sum(canary for _, _, canary in colours(cluster)) == 1


def test_unhealthy_canaries_are_not_promoted(cluster: PureCluster) -> None:
    promote = job_digest(web(GREEN))
    cluster.apply(a_desired(web(GREEN, promote=promote, auto_promote=True)))
    cluster.one_pass()
    for held in cluster.wanted():
        if is_canary(held):
            cluster.put(
                held, client_status="running", healthy=False, tasks={"server": TaskState(state="running")}
            )
    cluster.now += timedelta(seconds=30)
    outcome = cluster.one_pass()["web"]
    assert not outcome.placements
    assert not outcome.stopped
    assert [one.groups["app"].promoted for one in cluster.state.deployments_of_job("web")] == [False]


def test_healthy_canaries_are_promoted_by_themselves_where_the_job_says_so(cluster: PureCluster) -> None:
    cluster.apply(a_desired(web(GREEN, auto_promote=True)))
    cluster.settle()
    assert colours(cluster) == [(f"web.app[{index}]", 2, False) for index in range(3)]


def test_what_is_lost_beside_canaries_is_replaced_in_the_old_version(cluster: PureCluster) -> None:
    cluster.apply(a_desired(web(GREEN)))
    cluster.settle()
    old = next(held for held in cluster.wanted() if held.name == "web.app[2]")
    cluster.put(old, client_status="lost")
    cluster.settle()
    assert ("web.app[2]", 1, False) in colours(cluster)
    assert next(held for held in cluster.wanted() if held.name == "web.app[2]").id != old.id


def test_a_lost_canary_is_replaced_as_a_canary(cluster: PureCluster) -> None:
    cluster.apply(a_desired(web(GREEN)))
    cluster.settle()
    canary = next(held for held in cluster.wanted() if is_canary(held))
    cluster.put(canary, client_status="lost")
    outcome = cluster.one_pass()["web"]
    assert len(outcome.changes.groups["app"].canary) == 1
    assert outcome.placements[0].allocation.name == canary.name
    assert is_canary(outcome.placements[0].allocation)


def test_a_higher_count_beside_canaries_runs_the_old_version(cluster: PureCluster) -> None:
    cluster.apply(a_desired(web(GREEN)))
    cluster.settle()
    cluster.apply(a_desired(web(GREEN, count=4), revision="r3"))
    cluster.settle()
    assert ("web.app[3]", 1, False) in colours(cluster)
    assert sum(canary for _, _, canary in colours(cluster)) == 1


def test_a_newer_version_drops_the_canaries_of_the_older(cluster: PureCluster) -> None:
    cluster.apply(a_desired(web(GREEN), revision="r2"))
    cluster.settle()
    cluster.apply(a_desired(web(RED), revision="r3"))
    cluster.settle()
    assert sorted(colours(cluster)) == [
        ("web.app[0]", 1, False),
        ("web.app[0]", 3, True),
        ("web.app[1]", 1, False),
        ("web.app[2]", 1, False),
    ]


def test_git_revert_drops_the_canaries_and_touches_nothing_else(cluster: PureCluster) -> None:
    before = {held.id for held in cluster.wanted()}
    cluster.apply(a_desired(web(GREEN), revision="r2"))
    cluster.settle()
    cluster.apply(a_desired(web(BLUE), revision="r3"))
    cluster.settle()
    assert {held.id for held in cluster.wanted()} == before


def test_a_first_version_has_no_canaries() -> None:
    cluster = PureCluster(a_state(nodes=(a_node(),)))
    cluster.apply(a_desired(web(BLUE)))
    assert not cluster.one_pass()["web"].changes.groups["app"].canary


def break_new_ones(cluster: PureCluster) -> None:
    """New ones run and never become healthy, until the rollout has failed."""
    rollout = cluster.state.deployments_of_job("web")[-1].id
    while any(one.is_active for one in cluster.state.deployments_of_job("web") if one.id == rollout):
        for held in cluster.wanted():
            if held.client_status == "pending":
                cluster.put(
                    held, client_status="running", healthy=False, tasks={"server": TaskState(state="running")}
                )
        cluster.now += timedelta(minutes=6)
        cluster.one_pass()


def test_a_failed_rollout_drops_its_canaries_and_keeps_the_old_version(cluster: PureCluster) -> None:
    before = {held.id for held in cluster.wanted()}
    cluster.apply(a_desired(web(GREEN)))
    cluster.one_pass()
    break_new_ones(cluster)
    cluster.settle()
    assert [one.status for one in cluster.state.deployments_of_job("web")] == ["failed"]
    assert {held.id for held in cluster.wanted()} == before


def test_a_failed_rollout_goes_back_to_the_last_healthy_version(cluster: PureCluster) -> None:
    """By `update`, without canaries; git and the cluster then differ, and that digest is not tried again."""
    cluster.settle()
    cluster.apply(a_desired(web(GREEN, canary=0, auto_revert=True), revision="r2"))
    cluster.one_pass()
    break_new_ones(cluster)
    cluster.settle()
    assert {held.job_version for held in cluster.wanted()} == {1}
    health = job_health(cluster.state, "web")
    assert health.sync == "OutOfSync"
    assert "reverted" in health.reason
    assert health.health == "Healthy"
    cluster.apply(a_desired(web(GREEN, count=4, canary=0, auto_revert=True), revision="r3"))
    cluster.settle()
    assert {held.job_version for held in cluster.wanted()} == {1}, "the same digest, by another commit"
    cluster.apply(a_desired(web(RED, canary=0, auto_revert=True), revision="r4"))
    cluster.settle()
    assert {held.job_version for held in cluster.wanted()} == {4}
    assert job_health(cluster.state, "web").sync == "Synced"


def test_a_failed_rollout_goes_back_also_by_a_policy_that_is_younger_than_its_failure(
    cluster: PureCluster,
) -> None:
    cluster.settle()
    cluster.apply(a_desired(web(GREEN, canary=0), revision="r2"))
    cluster.one_pass()
    break_new_ones(cluster)
    cluster.settle()
    assert {held.job_version for held in cluster.wanted()} == {1, 2}
    cluster.apply(a_desired(web(GREEN, canary=0, auto_revert=True), revision="r3"))
    cluster.settle()
    assert {held.job_version for held in cluster.wanted()} == {1}


def test_without_an_earlier_healthy_version_nothing_goes_back() -> None:
    cluster = PureCluster(a_state(nodes=(a_node(),)))
    cluster.apply(a_desired(web(GREEN, auto_revert=True)))
    cluster.one_pass()
    break_new_ones(cluster)
    assert cluster.state.jobs["web"].reverted_to is None
