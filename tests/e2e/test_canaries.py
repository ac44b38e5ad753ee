"""Canaries and automatic reverts on real processes."""

import pytest

from tests.e2e.cluster import Up

pytestmark = pytest.mark.e2e

JOB = """
kind: Job
name: web
update: {{min_healthy_time: 200ms, {update}}}
groups:
  - count: 2
    tasks:
      - config: {{command: [/bin/sh, -c, "exec sleep {seconds}"]}}
"""


def pids(up: Up) -> dict[str, list[int]]:
    """The pids of web's running tasks, by name: a canary shares the name of what it may replace."""
    found: dict[str, list[int]] = {}
    for one in up.api.allocations("web"):
        if one["client_status"] == "running":
            found.setdefault(one["name"], []).append(one["tasks"]["web"]["pid"])
    return found


def test_a_canary_runs_beside_what_it_may_replace_until_a_commit_promotes_it(up: Up) -> None:
    up.specs.write("web.yaml", JOB.format(update="canary: 1", seconds=3600))
    up.start()
    before = {pid for pid, _ in up.api.until_running("web", 2).values()}
    up.specs.write("web.yaml", JOB.format(update="canary: 1", seconds=3601))
    beside = up.api.until(lambda: _when(pids(up), counts={"web.web[0]": 2, "web.web[1]": 1}))
    assert before <= {pid for found in beside.values() for pid in found}
    up.command("wait", "web", "--timeout", "60s")
    digest = up.api.job("web")["digest"]
    up.specs.write("web.yaml", JOB.format(update=f'canary: 1, promote: "{digest}"', seconds=3601))
    canary = next(pid for pid in beside["web.web[0]"] if pid not in before)
    after = up.api.until(lambda: _without(pids(up), before))
    assert after["web.web[0]"] == [canary], "the canary itself takes the name over"


def _when(found: dict[str, list[int]], *, counts: dict[str, int]) -> dict[str, list[int]] | None:
    """What was found, if it is so many of each name."""
    return found if {name: len(held) for name, held in found.items()} == counts else None


def _without(found: dict[str, list[int]], before: set[int]) -> dict[str, list[int]] | None:
    """What was found, if both names run and nothing of *before*."""
    one_each = _when(found, counts={"web.web[0]": 1, "web.web[1]": 1})
    return None if before & {pid for held in found.values() for pid in held} else one_each


def test_a_rollout_that_fails_goes_back_by_itself(up: Up) -> None:
    """The new version ends at once; what ran healthily comes back, and git and the cluster differ."""
    update = "auto_revert: true, healthy_deadline: 2s, progress_deadline: 3s"
    up.specs.write("web.yaml", JOB.format(update=update, seconds=3600))
    up.start()
    up.api.until_running("web", 2)
    up.specs.write("web.yaml", JOB.format(update=update, seconds="0; exit 1"))
    up.api.until(lambda: "reverted" in up.api.job("web")["reason"])
    up.api.until(lambda: _when(pids(up), counts={"web.web[0]": 1, "web.web[1]": 1}))
    assert up.api.job("web")["sync"] == "OutOfSync"
    up.specs.write("web.yaml", JOB.format(update=update, seconds=3602))
    up.api.until(lambda: up.api.job("web")["sync"] == "Synced" and up.api.job("web")["health"] == "Healthy")
