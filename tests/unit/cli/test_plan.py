"""`trueup plan`: what it shows, how it ends, and that it changes nothing."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result

from cli.plan_lines import plan_lines
from cli.system import RandomIds, SystemClock
from metastore.store import SqlStore
from reconciler.report import FieldChange, JobPlan, PlanReport
from tests.builders import NOON, a_job, a_node, a_record, a_state, a_version, an_allocation
from tests.unit.cli.conftest import FakeControlPlane
from trueup.models.ids import RevisionId
from trueup.models.state import ClusterState
from trueup.models.state_document import state_document

Run = Callable[..., Result]
Golden = Callable[[Path, str], None]
TRUEUP = (sys.executable, "-c", "from cli.main import main; main()")
GOLDEN = Path(__file__).parent / "golden"

WEB = """\
kind: Job
name: web
update: {min_healthy_time: 1s}
groups:
  - name: app
    count: 3
    tasks:
      - name: server
        config: {command: [sleep, "3600"]}
        env: {MODE: prod}
"""
BIG = """\
kind: Job
name: big
groups:
  - name: app
    count: 2
    constraints: [{attribute: node.labels.disk, value: ssd}]
    tasks: [{config: {command: [sleep, "3600"]}, resources: {cpu: 3, memory: 64MiB}}]
"""
REPORT = """\
kind: Job
name: report
type: batch
schedule: {cron: "0 * * * *"}
groups: [{tasks: [{config: {command: [date]}}]}]
"""
STATE = """\
now: 2026-06-01T12:00:00Z
index: 42
revision: r1
nodes:
  - {name: node-1, resources: {cpu: 4, memory: 8192}, labels: {disk: ssd}}
  - {name: node-2, drain: {deadline: 1h, started_at: "2026-06-01T11:59:00Z"}}
  - {name: node-3}
jobs:
  - name: web
    spec:
      update: {min_healthy_time: 1s}
      groups:
        - name: app
          count: 2
          tasks: [{name: server, config: {command: [sleep, "3600"]}, env: {MODE: test}}]
  - {name: old, spec: {groups: [{name: app, tasks: [{config: {command: [date]}}]}]}}
  - {name: calm, spec: {groups: [{name: app, tasks: [{config: {command: [date]}}]}]}}
allocations:
  - {name: "web.app[0]", node: node-1}
  - {name: "web.app[1]", node: node-3}
  - {name: "old.app[0]", node: node-1}
  - {name: "calm.app[0]", node: node-2}
"""
CALM = """\
kind: Job
name: calm
groups: [{name: app, tasks: [{config: {command: [date]}}]}]
"""


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    """A folder with four jobs: one changed, two new, one that stays."""
    folder = tmp_path / "specs"
    folder.mkdir()
    for name, text in (("web", WEB), ("big", BIG), ("report", REPORT), ("calm", CALM)):
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state as a person writes it."""
    file = tmp_path / "state.yaml"
    file.write_text(STATE)
    return file


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    """Two nodes."""
    file = tmp_path / "nodes.yaml"
    file.write_text("- {name: node-1, labels: {disk: ssd}}\n- {name: node-2}\n")
    return file


@pytest.mark.parametrize("output", ["text", "json", "markdown"])
def test_a_plan_on_a_state(run_alone: Run, specs: Path, state: Path, golden: Golden, output: str) -> None:
    """A changed job, new ones, one that goes, a drain, and work that finds no room."""
    result = run_alone("plan", "--offline", "--state", str(state), str(specs), "-o", output)
    assert result.exit_code == 0
    text = result.stdout.replace(str(state), "state.yaml")
    golden(GOLDEN / f"plan_on_a_state.{output}", _without_age(text))


def test_a_plan_on_nodes_alone(run_alone: Run, specs: Path, nodes: Path, golden: Golden) -> None:
    """Everything is new; `--now` sets the clock."""
    result = run_alone(
        "plan", "--offline", "--nodes", str(nodes), "--now", "2026-06-01T12:00:00Z", str(specs)
    )
    assert result.exit_code == 0
    assert result.stderr == ""
    golden(GOLDEN / "plan_on_nodes.text", result.stdout)


def test_the_same_plan_twice_is_the_same_text(specs: Path, state: Path) -> None:
    """Whatever the hash seed: reviews compare plans."""
    texts = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [*TRUEUP, "plan", "--state", str(state), str(specs), "-o", "json"],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        texts.add(done.stdout)
    assert len(texts) == 1


def test_an_emptied_tree_is_held_and_says_how_to_confirm(
    run_alone: Run, tmp_path: Path, state: Path, golden: Golden
) -> None:
    """The reason, what would end, and the document to paste; with `--detailed-exitcode` that is 2."""
    empty = tmp_path / "empty"
    empty.mkdir()
    result = run_alone("plan", "--state", str(state), str(empty), "--detailed-exitcode")
    assert result.exit_code == 2
    golden(GOLDEN / "plan_held.text", result.stdout)
    document = json.loads(run_alone("plan", "--state", str(state), str(empty), "-o", "json").stdout)
    assert document["held"]["removes"] == ["calm", "old", "web"]
    (empty / "cluster.yaml").write_text(
        f"kind: Cluster\nname: cluster\nconfirm: {document['held']['confirm']}\n"
    )
    confirmed = json.loads(run_alone("plan", "--state", str(state), str(empty), "-o", "json").stdout)
    assert confirmed["held"] is None
    assert confirmed["summary"]["jobs"]["delete"] == 3


def test_a_state_without_specs_plans_its_own_jobs(run_alone: Run, state: Path) -> None:
    """`jobs` is both what is wanted and what was applied."""
    document = json.loads(run_alone("plan", "--state", str(state), "-o", "json").stdout)
    assert document["revision"] == document["base_revision"] == "r1"
    assert document["index"] == 42
    assert {job["name"]: job["action"] for job in document["jobs"]} == dict.fromkeys(
        ("calm", "old", "web"), "none"
    )
    assert document["summary"]["allocations"]["migrate"] == 1


def test_exit_codes(run_alone: Run, specs: Path, nodes: Path, tmp_path: Path) -> None:
    """0 without the flag, 2 with changes, 0 without changes; errors win."""
    plan = ("plan", "--nodes", str(nodes), str(specs))
    assert run_alone(*plan).exit_code == 0
    assert run_alone(*plan, "--detailed-exitcode").exit_code == 2
    settled = tmp_path / "settled.json"
    settled.write_text(
        json.dumps(
            {
                "nodes": [{"name": "n"}],
                "jobs": [{"name": "calm", "spec": {"groups": [{"name": "app", "tasks": [_date()]}]}}],
                "allocations": [{"name": "calm.app[0]", "node": "n"}],
            }
        )
    )
    result = run_alone("plan", "--state", str(settled), "--detailed-exitcode")
    assert result.exit_code == 0
    assert result.stdout == (
        "No changes: what runs is what was asked for.\nPlan: 1 job unchanged; no allocation changes.\n"
    )
    (specs / "bad.yaml").write_text("kind: Job\nname: bad\n")
    assert run_alone(*plan, "--detailed-exitcode").exit_code == 1


def test_work_without_room_that_stays_so_is_no_change(run_alone: Run, tmp_path: Path) -> None:
    """Else every plan of a cluster that is full would say 2."""
    full = tmp_path / "full.yaml"
    full.write_text(
        "jobs: [{name: calm, spec: {groups: [{name: app, tasks: [{config: {command: [date]}}]}]}}]\n"
    )
    result = run_alone("plan", "--state", str(full), "--detailed-exitcode")
    assert result.exit_code == 0
    assert "!   1 of app found no room: no node is registered\n" in result.stdout


def test_errors_are_named_and_the_rest_is_planned(run_alone: Run, specs: Path, nodes: Path) -> None:
    """Each error on stderr with its place, exit 1, and the plan of what is valid all the same."""
    (specs / "bad.yaml").write_text(
        "kind: Job\nname: bad\ngroups: [{cout: 1, tasks: [{config: {command: [date]}}]}]\n"
    )
    result = run_alone("plan", "--nodes", str(nodes), str(specs))
    assert result.exit_code == 1
    assert 'bad.yaml:3:11: groups[0].cout: unknown key; did you mean "count"?' in result.stderr
    assert "job web is new" in result.stdout
    json_result = run_alone("plan", "--nodes", str(nodes), str(specs), "-o", "json")
    assert json_result.exit_code == 1
    document = json.loads(json_result.stdout)
    assert document["errors"][0] == {
        "file": "bad.yaml",
        "line": 3,
        "column": 11,
        "path": "groups[0].cout",
        "message": "unknown key",
        "hint": 'did you mean "count"?',
    }
    assert len(document["jobs"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--offline"], "--offline wants --nodes FILE or --state FILE"),
        (["--nodes", "a", "--state", "b"], "exclude each other"),
        (["--now", "2026-06-01T12:00:00Z"], "--now goes with --nodes or --state"),
        (["--nodes", "a", "--now", "noon"], "'noon' is no time; write it like 2026-06-01T12:00:00Z"),
        (["--nodes", "a", "--now", "2026-06-01T12:00:00"], "is no time"),
        (["--nodes", "a", "--data", "d"], "--data goes without --nodes and --state"),
        (["-o", "xml"], "xml"),
    ],
)
def test_options_that_do_not_go_together(run_alone: Run, arguments: list[str], message: str) -> None:
    """64 and a sentence."""
    result = run_alone("plan", *arguments)
    assert result.exit_code == 64
    assert message in result.stderr


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--state", "a: [", ":1:"),
        ("--state", "- a", "write a mapping with nodes, jobs and allocations"),
        ("--state", "jobs: [{spec: {}}]", "name is missing"),
        ("--state", "jobs: [{name: web, spec: {grops: []}}]", "unknown key"),
        ("--state", "now: soon", "now"),
        ("--state", "now: '2026-06-01T12:00:00'", "write a time with its zone"),
        ("--state", "allocations: [{name: web}]", "write job.group[index]"),
        ("--state", "nodes: 7", "nodes: write a list"),
        ("--state", "nodes: [7]", "nodes: entry 1: write a mapping"),
        ("--state", "jobs: {a: b}", "jobs: write a list"),
        ("--nodes", "a: b", "write a list of nodes"),
        ("--nodes", "[{region: eu}]", "entry 1: name is missing"),
        ("--nodes", "[{name: a}, {name: a}]", "two nodes named a"),
        ("--nodes", "[7]", "entry 1"),
        ("--nodes", "[{name: a, resources: {cpu: lots}}]", "entry 1"),
        ("--nodes", "", "write one document"),
    ],
)
def test_a_file_that_cannot_be_used(
    run_alone: Run, tmp_path: Path, option: str, content: str, message: str
) -> None:
    """File and entry in one line, exit 1, never a traceback."""
    file = tmp_path / "input.yaml"
    file.write_text(content)
    (tmp_path / "specs").mkdir()
    result = run_alone("plan", option, str(file), str(tmp_path / "specs"))
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert "unexpected" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_files_and_folders_that_are_not_there(
    run_alone: Run, tmp_path: Path, nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which one, and what to write instead."""
    monkeypatch.chdir(tmp_path)
    assert "cannot be read: No such file" in run_alone("plan", "--state", "none.json").stderr
    assert "does not exist" in run_alone("plan", "--nodes", str(nodes), "nowhere").stderr
    result = run_alone("plan", "--nodes", str(nodes))
    assert result.exit_code == 1
    assert "there is no folder specs here" in result.stderr


def test_an_old_state_is_warned_about(run_alone: Run, state: Path) -> None:
    """In words on stderr, and in the JSON."""
    result = run_alone("plan", "--state", str(state), "-o", "json")
    assert "`trueup export` writes a new one" in json.loads(result.stdout)["warnings"][0]
    assert "Warning: " in run_alone("plan", "--state", str(state)).stderr


def test_the_clock_is_now_then_the_states(run_alone: Run, specs: Path, state: Path) -> None:
    """A schedule's next run tells which clock was read."""

    def begins(*options: str) -> str:
        plan = json.loads(run_alone("plan", "--state", str(state), str(specs), "-o", "json", *options).stdout)
        return next(str(job["next_look"]) for job in plan["jobs"] if job["name"] == "report")

    assert begins().startswith("2026-06-01T13:00:00")
    assert begins("--now", "2026-06-02T15:30:00+02:00").startswith("2026-06-02T14:00:00")


def a_world() -> ClusterState:
    """A job of three on two nodes, one node under a policy."""
    job, node = a_job(count=3, env={"MODE": "test"}), a_node(labels={"disk": "ssd"})
    state = a_state(nodes=(node, a_node("node-2")), jobs=(job,))
    state.revision = RevisionId("r1")
    for index in range(3):
        state.put_allocation(an_allocation(job, node, index=index))
    return state


def test_a_live_plan_reads_state_and_is_the_same_as_one_of_the_export(
    run: Run, run_alone: Run, control_plane: FakeControlPlane, specs: Path, tmp_path: Path
) -> None:
    """Planning is in the client: what `export` wrote gives the same answer offline."""
    control_plane.answers["/state"] = json.loads(msgspec.json.encode(state_document(a_world(), NOON)))
    live = run("plan", str(specs), "-o", "json")
    assert live.exit_code == 0, live.output
    exported = tmp_path / "export.json"
    exported.write_text(run("export").stdout)
    offline = run_alone("plan", "--state", str(exported), str(specs), "-o", "json")
    mine, theirs = json.loads(live.stdout), json.loads(offline.stdout)
    assert mine.pop("warnings") == []
    theirs.pop("warnings")
    assert mine == theirs
    assert mine["summary"]["jobs"] == {"create": 3, "update": 1, "delete": 0, "unchanged": 0}


def test_a_plan_of_a_data_folder_changes_no_byte_of_it(run_alone: Run, specs: Path, tmp_path: Path) -> None:
    """With no server running, and the same answer as the state it holds."""
    state = a_world()
    store = SqlStore.open(tmp_path / "data", SystemClock(), RandomIds())
    with store.transaction() as transaction:
        for node in state.nodes.values():
            transaction.put_node(node)
        job = a_job(count=3, env={"MODE": "test"})
        transaction.put_version(a_version(job))
        transaction.put_job(a_record(job))
        for allocation in state.allocations.values():
            transaction.put_allocation(allocation)
    store.close()
    file = tmp_path / "data" / "trueup.db"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    result = run_alone("plan", "--data", str(tmp_path / "data"), str(specs), "-o", "json")
    assert result.exit_code == 0, result.output
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before
    jobs = {job["name"]: job["action"] for job in json.loads(result.stdout)["jobs"]}
    assert jobs == {"big": "create", "calm": "create", "report": "create", "web": "update"}
    below = run_alone("plan", "--data", str(tmp_path), str(specs))
    assert below.exit_code == 1
    assert "--data names the folder of a control plane" in below.stderr


def test_a_plan_in_a_work_tree_knows_its_commit(run_alone: Run, specs: Path, nodes: Path) -> None:
    """Clean files are the commit's; changed ones are planned as they lie there."""
    commit = _commit(specs)
    plan = ("plan", "--nodes", str(nodes), str(specs), "-o", "json")
    assert json.loads(run_alone(*plan).stdout)["revision"] == commit
    (specs / "more.yaml").write_text(CALM.replace("calm", "more"))
    changed = json.loads(run_alone(*plan).stdout)
    assert changed["revision"].startswith("dir-")
    assert "more" in {job["name"] for job in changed["jobs"]}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (1, 3, "count: 1 -> 3"),
        (None, "x", 'count: (absent) -> "x"'),
        ("a" * 150 + "old", "a" * 150 + "new", f'count: …{"a" * 20}old" -> …{"a" * 20}new"'),
        ("old" + "a" * 150, "new", f'count: "old{"a" * 96}… -> "new"'),
    ],
)
def test_a_change_shows_where_values_differ(before: object, after: object, words: str) -> None:
    """Long values begin where they begin to differ: else both would look the same."""
    job = JobPlan(name="web", action="update", diff=(FieldChange(path="count", before=before, after=after),))
    report = PlanReport(revision="r2", base_revision="r1", index=1, held=None, jobs=(job,))
    assert str(plan_lines(report)[1]).strip() == words


def test_a_plan_on_another_base_warns(run_alone: Run, specs: Path, tmp_path: Path) -> None:
    """What is applied is no ancestor of HEAD, or unknown here: what is removed may be what others added since."""
    commit = _commit(specs)
    state = tmp_path / "state.json"
    plan = ("plan", "--state", str(state), str(specs), "-o", "json")

    def warnings_on(revision: str) -> list[str]:
        theirs = {
            "name": "theirs",
            "spec": {"groups": [{"name": "app", "tasks": [{"name": "t", **_date()}]}]},
        }
        state.write_text(json.dumps({"revision": revision, "nodes": [{"name": "n"}], "jobs": [theirs]}))
        found: list[str] = json.loads(run_alone(*plan).stdout)["warnings"]
        return found

    assert warnings_on(commit) == []
    (unknown,) = warnings_on("a" * 40)
    assert "this clone lacks what is applied, aaaaaaaa" in unknown
    assert "--unshallow" in unknown
    git = ["git", "-C", str(specs), "-c", "user.name=Bob", "-c", "user.email=bob@example.org"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    theirs = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    applied = theirs.stdout.strip()
    subprocess.run([*git, "reset", "-q", "--hard", commit], check=True)
    (warning,) = warnings_on(applied)
    assert f"what is applied, {applied[:8]}, is no ancestor of {commit[:8]}" in warning
    assert "what is removed here (theirs) may be what others added since" in warning


def _date() -> dict[str, Any]:
    return {"config": {"command": ["date"]}}


def _commit(folder: Path) -> str:
    git = ["git", "-C", str(folder), "-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _without_age(text: str) -> str:
    return "\n".join("…" if "old: what runs may have changed" in line else line for line in text.split("\n"))


def test_lose_says_what_the_loss_of_a_node_would_leave_without_room(run: Run, tmp_path: Path) -> None:
    """In every form; a node that is not there is a usage error that names those that are."""
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text(
        "- {name: a, resources: {cpu: 2, memory: 2048}}\n- {name: b, resources: {cpu: 1, memory: 2048}}\n"
    )
    specs = tmp_path / "web.yaml"
    specs.write_text(
        "kind: Job\nname: web\ngroups:\n  - count: 2\n"
        '    tasks: [{config: {command: [sleep, "1"]}, resources: {cpu: 1}}]\n'
    )
    asked = ("plan", "--nodes", str(nodes), str(specs), "--lose")
    text = run(*asked, "each").stdout
    assert "if b is lost: nothing is left without room; 1 allocation would find room elsewhere" in text
    assert "web: 1 of web found no room: insufficient cpu (1 node), node is not ready (1 node)" in text
    document = json.loads(run(*asked, "a", "-o", "json").stdout)
    assert [loss["unplaced"][0]["count"] for loss in document["losses"]] == [1]
    assert "If a node is lost after this:" in run(*asked, "a", "-o", "markdown").stdout
    refused = run(*asked, "c")
    assert refused.exit_code == 64
    assert "there are a, b" in refused.stderr
