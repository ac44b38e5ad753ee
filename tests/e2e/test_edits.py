"""Editing a file does what the contract's table says, on real processes: pids and `started_at` are compared."""

import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.cluster import Json, Up, eventually, is_alive, names

pytestmark = pytest.mark.e2e

JOB = """
kind: Job
name: web
update: {{max_parallel: 1, min_healthy_time: 200ms}}
groups:
  - count: {count}
    tasks:
      - config: {{command: [sleep, "3600"]}}
        env: {{COLOUR: {colour}}}
        kill_timeout: 2s
"""
OTHER = """
kind: Job
name: other
update: {min_healthy_time: 200ms}
groups:
  - tasks:
      - config: {command: [sleep, "3600"]}
"""


def job(count: int = 2, colour: str = "blue", more: str = "") -> str:
    return JOB.format(count=count, colour=colour) + more


@pytest.fixture
def web(up: Up) -> Up:
    """Two of `web` and one of `other`, running."""
    up.specs.write("web.yaml", job())
    up.specs.write("other.yaml", OTHER)
    up.start()
    up.api.until_running("web", 2)
    up.api.until_running("other", 1)
    return up


def test_count_up_and_down_touches_no_other_instance(web: Up) -> None:
    before = web.api.running("web")
    web.specs.write("web.yaml", job(count=4))
    more = web.api.until_running("web", 4)
    assert {name: more[name] for name in before} == before
    web.specs.write("web.yaml", job(count=1))
    web.api.until(lambda: names(web.api.running("web")) == ["web.web[0]"])
    assert web.api.running("web") == {"web.web[0]": before["web.web[0]"]}
    gone = {more[name][0] for name in more if name != "web.web[0]"}
    eventually(lambda: not any(map(is_alive, gone)))


def test_a_changed_environment_rolls_by_update(web: Up) -> None:
    before, other = web.api.running("web"), web.api.running("other")
    web.specs.write("web.yaml", job(colour="red"))
    web.api.until(lambda: web.api.job("web")["version"] == 2)
    after = web.api.until_running("web", 2)
    assert names(after) == names(before)
    assert not {pid for pid, _ in after.values()} & {pid for pid, _ in before.values()}
    for pid, _ in after.values():
        assert b"COLOUR=red" in Path(f"/proc/{pid}/environ").read_bytes()
    assert web.api.running("other") == other
    stopped = [one for one in web.api.allocations("web", wanted=False) if one["desired_status"] == "stop"]
    assert {one["reason"] for one in stopped} == {"updating"}


def test_restart_token_rolls(web: Up) -> None:
    before = web.api.running("web")
    web.specs.write("web.yaml", job(more='restart_token: "1"\n'))
    web.api.until(lambda: web.api.job("web")["version"] == 2)
    after = web.api.until_running("web", 2)
    assert not {pid for pid, _ in after.values()} & {pid for pid, _ in before.values()}


def test_a_removed_document_stops_its_job_by_kill_signal_then_kill_timeout(up: Up) -> None:
    """One task ends by the signal it asked for, the other ignores it and is killed after its time."""
    up.specs.write("other.yaml", OTHER)
    up.specs.write(
        "polite.yaml",
        """
        kind: Job
        name: polite
        update: {min_healthy_time: 200ms}
        groups:
          - tasks:
              - config: {command: [/bin/sh, -c, "trap 'echo bye; exit 0' INT; while :; do sleep 0.05; done"]}
                kill_signal: SIGINT
                kill_timeout: 20s
        """,
    )
    up.specs.write(
        "deaf.yaml",
        """
        kind: Job
        name: deaf
        update: {min_healthy_time: 200ms}
        groups:
          - tasks:
              - config: {command: [/bin/sh, -c, "trap '' TERM; while :; do sleep 0.05; done"]}
                kill_timeout: 1s
        """,
    )
    up.start()
    pids = {}
    for name in ("polite", "deaf", "other"):
        pids[name] = up.api.until_running(name, 1)[f"{name}.{name}[0]"][0]
    up.specs.remove("polite.yaml")
    up.specs.remove("deaf.yaml")
    eventually(lambda: not is_alive(pids["polite"]) and not is_alive(pids["deaf"]))
    (polite,) = up.api.until(lambda: ended(up, "polite"))
    (deaf,) = up.api.until(lambda: ended(up, "deaf"))
    assert (polite["reason"], polite["tasks"]["polite"]["exit_code"]) == ("job removed", 0)
    assert deaf["tasks"]["deaf"]["exit_code"] != 0
    # Within a second after kill_timeout, where the machine is not busy with other tests.
    at = {one["type"]: datetime.fromisoformat(one["at"]) for one in deaf["tasks"]["deaf"]["events"]}
    assert timedelta(seconds=1) <= at["Killing"] - at["Stopping"]
    assert at["Terminated"] - at["Stopping"] < timedelta(seconds=1) + timedelta(seconds=10)
    assert is_alive(pids["other"])


def ended(up: Up, name: str) -> list[Json] | None:
    found = up.api.allocations(name, wanted=False)
    return found if found and all(one["client_status"] in {"complete", "failed"} for one in found) else None


@pytest.mark.parametrize("edit", ["reformat", "move", "default", "reorder"])
def test_what_changes_nothing_touches_nothing(web: Up, edit: str) -> None:
    before = web.api.running("web")
    revision = web.api.status()["revision"]
    text = job()
    if edit == "reformat":
        web.specs.write("web.yaml", re.sub(r"\n", "\n\n", text) + "# a comment\n")
    elif edit == "move":
        web.specs.write("folder/elsewhere.yaml", text)
        web.specs.remove("web.yaml")
    elif edit == "default":
        web.specs.write("web.yaml", text + "priority: 50\n")
    else:
        lines = text.replace("kind: Job\nname: web\n", "")
        web.specs.write("web.yaml", f"{lines.strip()}\nname: web\nkind: Job\n")
    web.api.until(lambda: web.api.status()["revision"] != revision and web.api.status()["sync"] == "Synced")
    assert web.api.job("web")["version"] == 1
    assert web.api.running("web") == before
    if edit == "move":
        assert "folder/elsewhere.yaml" in web.command("explain", "web")


def test_an_invalid_document_keeps_its_job_and_all_others_go_ahead(web: Up) -> None:
    before = web.api.running("web")
    web.specs.write("web.yaml", job(count=-1))
    web.specs.write("other.yaml", OTHER.replace("tasks:", "count: 2\n    tasks:"))
    web.api.until_running("other", 2)
    status = web.api.status()
    assert status["sync"] == "Invalid"
    (error,) = status["errors"]
    assert (error["file"], error["path"]) == ("web.yaml", "groups[0].count")
    assert error["line"] > 1
    assert error["column"] > 1
    assert "minimum of 0" in error["message"]
    assert web.api.running("web") == before
    web.specs.write("web.yaml", job())
    web.api.until(lambda: web.api.status()["sync"] == "Synced")
    assert web.api.running("web") == before


def test_an_emptied_tree_is_held_and_says_how_to_confirm(web: Up) -> None:
    before = {**web.api.running("web"), **web.api.running("other")}
    web.specs.remove("web.yaml")
    web.specs.remove("other.yaml")
    held = web.api.until(lambda: web.api.status()["held"])
    assert sorted(held["removes"]) == ["other", "web"]
    assert {**web.api.running("web"), **web.api.running("other")} == before
    shown = web.command("status")
    assert f"confirm: {held['confirm']}" in shown
    assert "kind: Cluster" in shown
    document = f"kind: Cluster\nname: cluster\nconfirm: {held['confirm']}\n"
    web.specs.write("cluster.yaml", document)
    eventually(lambda: not any(is_alive(pid) for pid, _ in before.values()))
    assert web.api.status()["held"] is None


def test_the_next_up_takes_up_what_runs(web: Up) -> None:
    before = web.api.running("web")
    assert web.running.terminate() == 0
    assert all(is_alive(pid) for pid, _ in before.values())
    web.start()
    web.api.until_running("web", 2)
    assert web.api.running("web") == before
