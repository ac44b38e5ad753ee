"""Commands against a real store and API: what one side writes, the other reads."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from cli.main import cli
from tests.builders import NOON, a_job, a_node, a_record, a_version
from tests.unit.cli.live import COMMIT, LiveControlPlane, a_revision, now_utc
from trueup.models.allocation import TaskState
from trueup.models.errors import SpecError
from trueup.models.evaluation import Event, UnplacedGroup
from trueup.models.ids import AllocationId, RevisionId
from trueup.models.node import Drain
from trueup.models.revision import Held, Revision
from trueup.models.template import DrainPolicy, NodePolicy

Run = Callable[..., Result]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveControlPlane]:
    """A control plane with one healthy job."""
    made = LiveControlPlane(tmp_path / "data")
    made.fill()
    yield made
    made.close()


@pytest.fixture
def run(live: LiveControlPlane) -> Run:
    """Runs a command against it."""

    def call(*arguments: str, **options: Any) -> Result:
        return CliRunner(env={"TRUEUP_ADDRESS": live.url}).invoke(cli, list(arguments), **options)

    return call


def test_status_of_everything(run: Run) -> None:
    """Sync, health, who made the revision, the source, and every job."""
    out = run("status").stdout
    assert "Sync         Synced\n" in out
    assert "Health       Healthy\n" in out
    assert 'Revision     1a2b3c4d "More web" by Ann <ann@example.org>, ' in out
    assert "Source       git https://git.example.org/ops, last read " in out
    assert "Nodes        1 ready\n" in out
    assert "web  service  Synced  Healthy  3/3    1        1a2b3c4d" in out


def test_status_of_a_job(run: Run) -> None:
    """Its facts, groups and allocations; a name that is none suggests one that is."""
    out = run("status", "web").stdout
    assert "From      web.yaml:1" in out
    assert "app    3        3       3        3        0" in out
    assert out.count("web.app[") == 3
    missing = run("status", "wob")
    assert missing.exit_code == 1
    assert missing.stderr == "Error: there is no job 'wob'; did you mean web?\n"


@pytest.mark.parametrize(
    "command", ["status", "nodes", "allocs", "templates", "revisions", "services", "events"]
)
def test_every_list_in_every_form(run: Run, command: str) -> None:
    """Nothing fails on what the API really answers."""
    for output in ("table", "wide", "yaml", "json"):
        result = run(command, "-o", output)
        assert result.exit_code == 0, result.output
    json.loads(result.stdout)


def test_names_feed_other_commands(run: Run) -> None:
    """`-o name` of one is an argument of another."""
    identifier = run("allocs", "-o", "name").stdout.splitlines()[0]
    assert run("explain", identifier).exit_code == 0
    assert run("status", run("status", "-o", "name").stdout.strip()).exit_code == 0


def test_explain_names_commit_author_file_and_line(run: Run) -> None:
    """Of a job, and of an allocation by its name, its id and the beginning of it."""
    for what in ("web", "web.app[1]", f"00000001{'a' * 24}", "00000001"):
        out = run("explain", what).stdout
        assert "web.yaml:1" in out
        assert '1a2b3c4d "More web" by Ann <ann@example.org>' in out
    assert run("describe", "web").stdout.splitlines()[0] == run("explain", "web").stdout.splitlines()[0]
    ambiguous = run("explain", "0000000")
    assert ambiguous.exit_code == 1
    assert "is the beginning of 3 allocation ids" in ambiguous.stderr


def test_explain_names_the_image_a_container_was_started_from(run: Run, live: LiveControlPlane) -> None:
    """By what its document calls it, and by the id that this was on the node then."""
    with live.store.transaction() as transaction:
        held = transaction.state.allocations[AllocationId(f"{1:08x}{'a' * 24}")]
        task = TaskState(state="running", image="shop:1.2", image_id="sha256:" + "5" * 64)
        transaction.put_allocation(msgspec.structs.replace(held, tasks={"server": task}))
    assert f"shop:1.2, id sha256:{'5' * 64}" in " ".join(run("explain", "web.app[1]").stdout.split())
    listed = json.loads(run("allocs", "-o", "json").stdout)
    assert {one["tasks"]["server"]["image_id"] for one in listed if one["name"] == "web.app[1]"} == {
        "sha256:" + "5" * 64
    }


def test_explain_says_why_here_and_why_not_elsewhere(run: Run, live: LiveControlPlane) -> None:
    """The score with its parts, other nodes counted by what refuses them, what happened last; as data, too."""
    with live.store.transaction() as transaction:
        transaction.put_node(a_node("small", memory="1MiB"))
        transaction.put_node(a_node("tiny", memory="1MiB"))
        transaction.put_node(a_node("twin"))
        held = transaction.state.allocations[AllocationId(f"{1:08x}{'a' * 24}")]
        for message in ("web.app[1] on node-1 runs", "web.app[1] on node-1 is healthy"):
            transaction.put_event(
                Event(at=NOON, type="Any", message=message, job="web", allocation=held.id, node="node-1")
            )
        transaction.put_event(
            Event(at=NOON, type="Any", message="of another", job="web", allocation="f" * 32)
        )
    out = run("explain", "web.app[1]").stdout
    here = out[out.index("Why here:") :]
    assert re.search(r"score \d\.\d\d of 1 as of now: room \d\.\d\d", here)
    assert re.search(r"1 node scores \(twin \d\.\d\d\)", here)
    assert "refused: insufficient memory (2 nodes)" in here
    assert "web.app[1] on node-1 is healthy" in here
    assert "of another" not in out
    assert "of another" in run("explain", "web").stdout
    found = json.loads(run("explain", "web.app[1]", "-o", "json").stdout)["whereabouts"]
    assert found["score"] == pytest.approx(sum(found["parts"].values()))
    assert found["refused"] == {"insufficient memory": 2}


def test_explain_of_a_directorys_content(run: Run, live: LiveControlPlane) -> None:
    """A directory has no commits: what asked for it is the content that was there at a time."""
    content = RevisionId("dir-" + "4" * 40)
    with live.store.transaction() as transaction:
        record = msgspec.structs.replace(transaction.state.jobs["web"], revision=content)
        transaction.put_job(record)
        transaction.put_revision(Revision(id=content, seen_at=NOON, state="applied"))
    out = run("explain", "web").stdout
    assert re.search(r"^Content +dir-44444444, seen \d+d ago$", out, re.MULTILINE)
    assert "Commit" not in out


def test_explain_says_why_not(run: Run, live: LiveControlPlane) -> None:
    """What found no room, with the nodes that gave each reason; errors in its file."""
    with live.store.transaction() as transaction:
        record = transaction.state.jobs["web"]
        unplaced = (
            UnplacedGroup(group="app", count=2, reasons={"insufficient memory": 3, "port 80 is taken": 1}),
        )
        transaction.put_job(msgspec.structs.replace(record, unplaced=unplaced))
        transaction.set_errors(
            (SpecError(file="web.yaml", line=3, column=1, message="is wrong", name="web"),)
        )
    out = run("explain", "web").stdout
    assert "2 of app found no room: insufficient memory (3 nodes), port 80 is taken (1 node)" in out
    assert "web.yaml:3:1: is wrong" in out
    status = run("status")
    assert "web.yaml:3:1: is wrong" in status.stdout


def test_a_held_revision_shows_the_document_that_confirms_it(run: Run, live: LiveControlPlane) -> None:
    """In status, in explain of what would end, and as the reason why wait gives up."""
    held = Held(
        revision=RevisionId("b" * 40), reason="no job would remain", removes=("web",), confirm="c0ffee"
    )
    with live.store.transaction() as transaction:
        transaction.set_held(held)
    for arguments in (("status",), ("explain", "web")):
        assert "    confirm: c0ffee\n" in run(*arguments).stdout
    waited = run("wait", "--revision", "b" * 40)
    assert waited.exit_code == 1
    assert "is held: no job would remain" in waited.stderr
    assert "kind: Cluster" in waited.stderr


def test_wait_until_a_commit_is_applied_and_healthy(run: Run) -> None:
    """0 with a line for what is; 124 for what nobody has seen."""
    assert run("wait", "--revision", COMMIT).stdout == "applied, Synced and Healthy\n"
    assert run("wait", "web").exit_code == 0
    result = run("wait", "--revision", "f" * 40, "--timeout", "50ms")
    assert result.exit_code == 124
    assert result.stderr == "Error: timed out after 50ms: revision ffffffff is not seen yet\n"
    assert run("wait", "nope").exit_code == 1


def test_wait_ends_at_once_on_an_invalid_revision(run: Run, live: LiveControlPlane) -> None:
    """With its errors."""
    bad = RevisionId("d" * 40)
    error = SpecError(file="web.yaml", line=3, column=1, message="is wrong")
    with live.store.transaction() as transaction:
        transaction.put_revision(
            a_revision(now_utc(), id=bad, state="invalid", applied_at=None, errors=(error,))
        )
    result = run("wait", "--revision", bad)
    assert result.exit_code == 1
    assert "revision dddddddd has 1 error:\n  web.yaml:3:1: is wrong" in result.stderr


def test_wait_for_an_empty_node(run: Run, live: LiveControlPlane) -> None:
    """It holds three, then none."""
    result = run("wait", "--drained", "node-1", "--timeout", "50ms")
    assert result.exit_code == 124
    assert "node node-1 holds 3: web.app[0], web.app[1], web.app[2] (no document drains it)" in result.stderr
    with live.store.transaction() as transaction:
        for held in list(transaction.state.allocations.values()):
            transaction.drop_allocation(held.id)
    assert run("wait", "--drained", "node-1").stdout == "node node-1 is empty\n"


def test_logs_of_a_job_are_those_of_its_newest_allocation(run: Run) -> None:
    """Raw into a pipe, and named on stderr; what a node cannot give is one line."""
    result = run("logs", "web")
    assert result.stdout_bytes == b"one\n\x1b[31mtwo\n"
    assert result.stderr.startswith("web has 3 allocations; this is web.app[")
    assert "`trueup allocs --all --job web` lists the others" in result.stderr
    missing = run("logs", "web.app[0]", "--stderr")
    assert missing.exit_code == 1
    assert missing.stderr == "Error: nothing was written to stderr\n"


def test_logs_of_a_job_say_how_many_allocations_have_ended(run: Run, live: LiveControlPlane) -> None:
    """What runs is taken before what has ended, however new that is."""
    with live.store.transaction() as transaction:
        for held in list(transaction.state.allocations.values())[1:]:
            ended = msgspec.structs.replace(held, desired_status="stop", client_status="complete")
            transaction.put_allocation(ended)
    assert run("logs", "web").stderr.startswith(
        "web has 1 allocation and 2 that have ended; this is web.app["
    )


def test_the_export_is_whole_and_has_the_index(run: Run, live: LiveControlPlane) -> None:
    """One JSON document of one index; asking changed nothing."""
    index = live.store.state.index
    document = json.loads(run("export").stdout)
    assert document["index"] == index == live.store.state.index
    assert [held["name"] for held in document["allocations"]] == [f"web.app[{n}]" for n in range(3)]


def test_a_live_plan_changes_nothing(run: Run, live: LiveControlPlane, tmp_path: Path) -> None:
    """The index stays, and what is planned is a change of the job that runs."""
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "web.yaml").write_text(
        "kind: Job\nname: web\nupdate: {min_healthy_time: 1s}\n"
        'groups: [{name: app, count: 1, tasks: [{name: server, config: {command: [sleep, "3600"]}}]}]\n'
    )
    index = live.store.state.index
    document = json.loads(run("plan", str(folder), "-o", "json").stdout)
    assert document["index"] == index == live.store.state.index
    assert document["jobs"][0]["diff"] == [{"path": "groups[app].count", "before": 3, "after": 1}]
    assert [stop["name"] for stop in document["jobs"][0]["stops"]] == ["web.app[1]", "web.app[2]"]


def test_a_plan_sees_policies_that_end(run: Run, live: LiveControlPlane, tmp_path: Path) -> None:
    """A drain whose document is gone from the specs ends with the revision, as it does when that is applied."""
    with live.store.transaction() as transaction:
        now = now_utc()
        node = a_node("node-2", eligible=False, declared=True, drain=Drain(started_at=now, deadline_at=now))
        transaction.put_node(node)
        transaction.put_node_policy(NodePolicy(name="node-2", drain=DrainPolicy()))
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "many.yaml").write_text(
        "kind: Job\nname: web\ngroups: [{name: app, count: 4, constraints: [{operator: distinct_hosts}],"
        ' tasks: [{name: server, config: {command: [sleep, "3600"]}}]}]\n'
    )
    document = json.loads(run("plan", str(tmp_path / "specs"), "-o", "json").stdout)
    assert "node-2" in {placed["node"] for placed in document["jobs"][0]["placements"]}


def test_answers_that_name_the_edit(run: Run) -> None:
    """The file and line of the job's document, and what to write there."""
    for command, words in (
        (("stop", "web"), "Remove the document of job web (web.yaml:1) and commit"),
        (("scale", "web", "5"), "count: 5"),
        (("restart", "web"), "change the token (now '')"),
        (("drain", "node-1"), "kind: Node\n    name: node-1\n    drain: {deadline: 1h}"),
        (("promote", "web"), 'promote: "'),
        (("run", "web.yaml"), "Put web.yaml into the specs and commit it"),
        (("rollback", "web"), "git revert"),
    ):
        result = run(*command)
        assert result.exit_code == 1
        assert words in result.stderr
        assert result.stdout == ""


def test_version_of_both(run: Run, live: LiveControlPlane) -> None:
    """The control plane's is shown where it answers."""
    lines = run("version").stdout.splitlines()
    assert lines[0].startswith("trueup ")
    assert lines[1].endswith(f"at {live.url}")
    assert json.loads(run("version", "-o", "json").stdout)["server"] == lines[0].split()[1]


def test_a_job_without_healthy_allocations_is_waited_for(run: Run, live: LiveControlPlane) -> None:
    """Progressing is no failure: the wait goes on until it times out."""
    job = a_job("slow")
    with live.store.transaction() as transaction:
        transaction.put_version(a_version(job))
        transaction.put_job(a_record(job))
    result = run("wait", "slow", "--timeout", "50ms")
    assert result.exit_code == 124
    assert "slow is Missing" in result.stderr
