"""`trueup plan` shows what applying would do, in every form and from every state, and writes nothing anywhere."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.cluster import Json, Specs, Up, eventually, is_alive, trueup
from tests.e2e.git_cluster import GitCluster, Pushed
from tests.require import require

pytestmark = pytest.mark.e2e

JOB = """
kind: Job
name: {name}
update: {{max_parallel: 1, min_healthy_time: 200ms}}
groups:
  - count: {count}
    tasks:
      - config: {{command: [sleep, "3600"]}}
        env: {{COLOUR: {colour}}}
        resources: {{cpu: 0.05, memory: 16MiB}}
"""
CHANGES = 2
USAGE = 64


def job(name: str, *, count: int = 1, colour: str = "blue") -> str:
    return JOB.format(name=name, count=count, colour=colour).lstrip()


def planned(folder: Path, *arguments: str | Path, expect: int = 0) -> Json:
    """What `trueup plan -o json` prints."""
    done = trueup("plan", *arguments, "-o", "json", cwd=folder, expect=expect)
    found: Json = json.loads(done.stdout)
    return found


def effect(plan: Json) -> dict[str, Any]:
    """What a plan says will happen, without the moments and ids that are its own."""
    jobs = [
        {
            "name": one["name"],
            "action": one["action"],
            "groups": one["groups"],
            "diff": one["diff"],
            "placements": one["placements"],
            "stops": one["stops"],
            "unplaced": one["unplaced"],
        }
        for one in plan["jobs"]
    ]
    return {
        "jobs": jobs,
        **{key: plan[key] for key in ("revision", "base_revision", "summary", "held", "errors")},
    }


def digests(folder: Path) -> dict[str, str]:
    """Of each file in a control plane's folder; but for what SQLite itself may put beside its file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[GitCluster]:
    made = GitCluster(tmp_path)
    yield made
    made.end()


def test_what_was_planned_is_what_a_merge_does(cluster: GitCluster, tmp_path: Path) -> None:
    """On two nodes: the same names on the same nodes, whichever state was planned on; nothing written by it."""
    require("git")
    (tmp_path / "host").mkdir()
    pushed = Pushed(tmp_path / "host")
    work = pushed.work.path
    base = pushed.commit_and_push(
        {"cluster.yaml": "kind: Cluster\nname: cluster\nplacement: spread\n", "web.yaml": job("web", count=3)}
    )
    cluster.start(pushed.bare, "--poll", "1h")
    cluster.until_applied(base)
    cluster.api.until_running("web", 3)
    pushed.commit_and_push({"old.yaml": job("old", count=2)})
    cluster.api.until_running("old", 2)

    changes: dict[str, str | None] = {
        "web.yaml": job("web", count=5),
        "new.yaml": job("new", count=3),
        "old.yaml": job("old", count=2, colour="red"),
    }
    commit = pushed.commit(changes, author="Bob")
    server = tmp_path / "server"
    address = ("--address", cluster.server.url)

    def plan_at_rest() -> Json | None:
        """The plan, once nothing else wrote meanwhile."""
        index, before = cluster.api.index(), digests(server)
        found = planned(tmp_path, work, *address)
        for form in ("text", "markdown"):
            trueup("plan", work, "-o", form, *address, cwd=tmp_path)
        trueup("plan", work, "--data", server, cwd=tmp_path)
        return found if (cluster.api.index(), digests(server)) == (index, before) else None

    live = cluster.api.until(plan_at_rest)
    assert live["index"] == cluster.api.index()
    assert (live["revision"], live["base_revision"]) == (commit, cluster.api.status()["revision"])
    assert live["summary"]["jobs"] == {"create": 1, "update": 2, "delete": 0, "unchanged": 0}
    assert live["summary"]["allocations"]["destructive"] == 1
    assert effect(planned(tmp_path, work, "--data", server)) == effect(live)
    exported = tmp_path / "state.json"
    exported.write_text(cluster.command("export"))
    assert effect(planned(tmp_path, work, "--offline", "--state", exported)) == effect(live)

    pushed.push()
    cluster.until_applied(commit)
    expected = {one["name"]: one["node"] for each in live["jobs"] for one in each["placements"]}
    assert {name.partition(".")[0] for name in expected} == {"new", "old", "web"}
    assert set(expected.values()) == {"node-1", "node-2"}
    for name, count in (("new", 3), ("web", 5), ("old", 2)):
        cluster.api.until_running(name, count)
    cluster.api.until(lambda: {one["job_version"] for one in cluster.api.allocations("old")} == {2})
    now = {one["name"]: one["node"] for one in cluster.api.allocations()}
    assert {name: now[name] for name in expected} == expected

    assert planned(tmp_path, work, *address, "--detailed-exitcode")["summary"]["jobs"]["unchanged"] == 3
    pushed.work.git("checkout", "--quiet", "-b", "behind", base)
    (warning,) = planned(tmp_path, work, *address)["warnings"]
    assert f"{commit[:8]}, is no ancestor of {base[:8]}" in warning


def test_a_stopped_control_plane_is_planned_on_from_its_folder_and_nothing_there_changes(up: Up) -> None:
    up.specs.write("web.yaml", job("web", count=2))
    up.start()
    before = up.api.until_running("web", 2)
    assert up.running.terminate() == 0
    specs = Specs(up.folder / "next")
    specs.write("web.yaml", job("web", count=1))
    specs.write("new.yaml", job("new"))
    data = up.folder / ".trueup"
    files = digests(data / "server")
    found = planned(up.folder, "next", "--data", data, "--detailed-exitcode", expect=CHANGES)
    actions = {one["name"]: one["action"] for one in found["jobs"]}
    assert actions == {"new": "create", "web": "update"}
    (stop,) = next(one["stops"] for one in found["jobs"] if one["name"] == "web")
    assert (stop["name"], stop["reason"]) == ("web.web[1]", "not needed")
    assert digests(data / "server") == files
    up.start()
    up.api.until_running("web", 2)
    assert up.api.running("web") == before


def test_exit_codes_and_forms(up: Up) -> None:
    up.specs.write("web.yaml", job("web", count=2))
    up.start()
    up.api.until_running("web", 2)
    address = ("--address", up.running.url)

    def plan(*arguments: str, expect: int) -> tuple[str, str]:
        done = trueup("plan", *arguments, *address, cwd=up.folder, expect=expect)
        return done.stdout, done.stderr

    same, _ = plan("--detailed-exitcode", expect=0)
    assert same.splitlines()[-1] == "Plan: 1 job unchanged; no allocation changes."

    changed = Specs(up.folder / "changed")
    changed.write("web.yaml", job("web", count=2, colour="red"))
    changed.write("new.yaml", job("new"))
    text, _ = plan("changed", expect=0)
    assert plan("changed", "--detailed-exitcode", expect=CHANGES)[0] == text
    marks = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert {"+", "~", "-/+"} <= marks
    assert text.splitlines()[-1].startswith("Plan: 1 job to create, 1 to update;")
    markdown, _ = plan("changed", "-o", "markdown", expect=0)
    assert "<details><summary><code>web</code> changes: " in markdown

    changed.write("bad.yaml", job("bad", count=-1))
    for form in ("text", "json", "markdown"):
        out, messages = plan("changed", "-o", form, "--detailed-exitcode", expect=1)
        assert "minimum of 0" in (messages if form == "text" else out)
        assert "new" in out
        if form == "json":
            (error,) = json.loads(out)["errors"]
            assert (error["file"], error["line"], error["path"]) == ("bad.yaml", 5, "groups[0].count")

    _, messages = plan("nowhere", expect=1)
    assert "nowhere" in messages
    plan("changed", "--now", "2026-06-01T12:00:00Z", expect=USAGE)
    plan("changed", "--offline", expect=USAGE)
    away = trueup("plan", "changed", "--address", "http://127.0.0.1:1", cwd=up.folder, expect=1)
    assert "cannot reach the control plane" in away.stderr
    assert away.stdout == ""


def test_removing_the_only_job_is_shown_as_held_with_the_document_that_confirms(up: Up) -> None:
    """What the plan prints beforehand is what the control plane accepts afterwards."""
    up.specs.write("web.yaml", job("web", count=2))
    up.start()
    before = up.api.until_running("web", 2)
    (up.folder / "empty").mkdir()
    address = ("--address", up.running.url)
    plan = planned(up.folder, "empty", *address, "--detailed-exitcode", expect=CHANGES)
    confirm = plan["held"]["confirm"]
    assert plan["held"]["removes"] == ["web"]
    assert plan["summary"]["allocations"]["stop"] == 0
    for form in ("text", "markdown"):
        shown = trueup("plan", "empty", "-o", form, *address, cwd=up.folder).stdout
        assert "no job of the last applied revision would remain" in shown
        assert "kind: Cluster" in shown
        assert f"confirm: {confirm}" in shown

    document = f"kind: Cluster\nname: cluster\nconfirm: {confirm}\n"
    Specs(up.folder / "empty").write("cluster.yaml", document)
    confirmed = planned(up.folder, "empty", *address, "--detailed-exitcode", expect=CHANGES)
    assert confirmed["held"] is None
    assert confirmed["summary"]["allocations"]["stop"] == 2
    assert all(is_alive(pid) for pid, _ in before.values())
    up.specs.write("cluster.yaml", document)
    up.specs.remove("web.yaml")
    eventually(lambda: not any(is_alive(pid) for pid, _ in before.values()))


def test_nodes_written_by_hand_need_no_control_plane(tmp_path: Path) -> None:
    """What found no room says why; what a person leaves out has natural defaults."""
    specs = Specs(tmp_path / "specs")
    specs.write("web.yaml", job("web", count=4).replace("16MiB", "400MiB"))
    specs.write("everywhere.yaml", job("everywhere").replace("kind: Job", "kind: Job\ntype: system"))
    (tmp_path / "nodes.yaml").write_text(
        "- {name: small, resources: {cpu: 1, memory: 512}}\n- {name: big, resources: {cpu: 2, memory: 1024}}\n"
    )
    found = planned(
        tmp_path, "specs", "--offline", "--nodes", "nodes.yaml", "--detailed-exitcode", expect=CHANGES
    )
    jobs = {one["name"]: one for one in found["jobs"]}
    assert sorted(one["node"] for one in jobs["web"]["placements"]) == ["big", "big", "small"]
    assert sorted(one["node"] for one in jobs["everywhere"]["placements"]) == ["big", "small"]
    (unplaced,) = jobs["web"]["unplaced"]
    assert (unplaced["group"], unplaced["count"]) == ("web", 1)
    assert any("memory" in reason for reason in unplaced["reasons"])
    text = trueup("plan", "--offline", "--nodes", "nodes.yaml", cwd=tmp_path).stdout
    assert any(line.strip().startswith("!") and "memory" in line for line in text.splitlines())
    assert found["base_revision"] is None


def test_a_state_written_by_hand_is_planned_at_its_own_clock(tmp_path: Path) -> None:
    """Again and again the same; a state that is old is warned about."""
    specs = Specs(tmp_path / "specs")
    specs.write("web.yaml", job("web", count=1))
    spec = yaml.safe_load(job("web", count=2))
    state = {
        "now": "2026-06-01T12:00:00Z",
        "nodes": [{"name": "a", "resources": {"cpu": 2, "memory": 2048}}, {"name": "b", "status": "down"}],
        "jobs": [{"name": "web", "spec": spec}],
        "allocations": [
            {"name": "web.web[0]", "node": "a"},
            {"name": "web.web[1]", "node": "b", "client_status": "lost"},
        ],
    }
    (tmp_path / "state.json").write_text(json.dumps(state))
    arguments = ("--offline", "--state", "state.json")
    own = planned(tmp_path, *arguments)
    assert [each["node"] for one in own["jobs"] for each in one["placements"]] == ["a"]
    assert planned(tmp_path, *arguments) == own
    (warning,) = own["warnings"]
    assert "`trueup export` writes a new one" in warning
    wanted = planned(tmp_path, "specs", *arguments)
    (web,) = wanted["jobs"]
    assert web["action"] == "update"
    assert [one["name"] for one in web["stops"]] == ["web.web[1]"]
