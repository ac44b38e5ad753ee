"""The list commands: tables for people, plain data for programs."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import yaml
from click.testing import Result

from tests.unit.cli.canned import COMMIT, a_cluster, a_job, a_node, a_revision, a_task, an_allocation
from tests.unit.cli.conftest import FakeControlPlane

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _answers(control_plane: FakeControlPlane) -> None:
    control_plane.answers = a_cluster()


def test_nodes_as_a_table(run: Run, control_plane: FakeControlPlane) -> None:
    """Columns are aligned, policy is told in words, a broken driver is marked."""
    control_plane.answers["/nodes"] = [
        a_node(),
        a_node(
            "node-10",
            status="down",
            eligible=False,
            drain={"deadline": "10m", "started_at": "2026-06-01T12:00:00Z"},
            drivers={"docker": {"healthy": False, "detail": "the engine is away", "attributes": {}}},
        ),
    ]
    lines = run("nodes").stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["NAME", "node-1", "node-10"]
    assert "draining, at most 10m" in lines[2]
    assert "docker (broken)" in lines[2]
    assert lines[2].endswith("the engine is away")
    assert lines[0].index("STATUS") == lines[1].index("ready") == lines[2].index("down")


def test_what_is_in_use_of_nodes(run: Run, control_plane: FakeControlPlane) -> None:
    """In the wide table; a node that does not say, as one of an older release, has none."""
    control_plane.answers["/nodes"] = [
        a_node(used={"cpu": 0.25, "memory": 512, "disk": 4096, "disk_free": 1024}),
        a_node("node-2", used=None),
        a_node("node-3"),
    ]
    title, *lines = run("nodes", "-o", "wide").stdout.splitlines()
    at = [title.index(one) for one in ("CPU USED", "MEMORY USED", "DISK FREE")]
    assert [[line[place:].split()[0] for place in at] for line in lines] == [
        ["0.25", "512MiB", "1GiB"],
        ["-", "-", "-"],
        ["-", "-", "-"],
    ]
    assert "USED" not in run("nodes").stdout


def test_json_is_what_the_control_plane_answered(run: Run) -> None:
    """All fields, also those this release does not know."""
    assert json.loads(run("nodes", "-o", "json").stdout) == [a_node()]
    assert yaml.safe_load(run("allocs", "-o", "yaml").stdout)[0]["name"] == "web.app[0]"


def test_allocations_that_are_history_are_left_out_unless_asked_for(
    run: Run, control_plane: FakeControlPlane
) -> None:
    """What was stopped and has ended clutters; `--all` or a status shows it."""
    old = an_allocation(9, desired_status="stop", client_status="complete", reason="updating")
    control_plane.answers["/allocations"] = [an_allocation(), old]
    assert run("allocs", "-o", "name").stdout.splitlines() == [an_allocation()["id"]]
    assert len(run("allocs", "--all", "-o", "name").stdout.splitlines()) == 2
    assert "stop: updating" in run("allocs", "--all").stdout


def test_an_allocation_that_does_not_end_says_since_when(run: Run, control_plane: FakeControlPlane) -> None:
    """Told to stop by git, or by its agent to start again; nothing more of it once it has ended."""
    events = [
        {"at": "2026-06-01T12:00:00Z", "type": "Started", "message": ""},
        {"at": "2026-06-01T12:00:03Z", "type": "Stopping", "message": "with SIGTERM"},
        {"at": "2026-06-01T12:00:08Z", "type": "Killing", "message": "still running although it was killed"},
    ]
    stopped = {"desired_status": "stop", "reason": "job removed"}
    tasks = {"server": a_task(events=events)}
    control_plane.answers["/allocations"] = [
        an_allocation(1, tasks=tasks, **stopped),
        an_allocation(2, tasks={"server": a_task(events=events[:2])}),
        an_allocation(3, tasks=tasks, client_status="complete", **stopped),
        an_allocation(4, tasks={"server": a_task(events=[*events, events[0]])}),
    ]
    lines = run("allocs", "--all").stdout.splitlines()[1:]
    words = "stopping since 12:00:03 UTC"
    assert lines[0].endswith(f"stop: job removed; {words}: still running although it was killed")
    assert lines[1].endswith(words)
    assert lines[2].endswith("stop: job removed")
    assert "stopping" not in lines[3]


def test_an_allocation_that_does_not_start_says_why(run: Run, control_plane: FakeControlPlane) -> None:
    """The newest cause, and when it is tried again; and nothing of it once all is well."""
    events = [
        {"at": "2026-06-01T12:00:01Z", "type": "Terminated", "message": "exit code 7"},
        {"at": "2026-06-01T12:00:02Z", "type": "Driver failure", "message": "there is no program webd"},
        {"at": "2026-06-01T12:00:03Z", "type": "Restarting", "message": "in 17s (restart 1 of 2 in 30m)"},
    ]
    tasks = {"server": a_task(state="pending", restarts=1, events=events)}
    waiting = an_allocation(client_status="pending", healthy=None, tasks=tasks)
    control_plane.answers["/allocations"] = [waiting]
    assert "Driver failure: there is no program webd" in run("allocs").stdout
    now = datetime.now(UTC)
    events[-1] = {"at": now.isoformat(), "type": "Restarting", "message": "in 1h10m (restart 1 of 2 in 30m)"}
    running = {
        **waiting,
        "client_status": "running",
        "tasks": {"server": a_task(state="pending", events=events)},
    }
    control_plane.answers["/allocations"] = [running]
    assert "there is no program webd; restarting in 69m" in run("allocs").stdout
    events[-1]["message"] = "the machine was restarted"
    control_plane.answers["/allocations"] = [
        {**waiting, "tasks": {"server": a_task(state="pending", events=events)}}
    ]
    assert "webd; restarting: the machine was restarted" in run("allocs").stdout
    control_plane.answers["/allocations"] = [{**waiting, "client_status": "running", "healthy": True}]
    assert "Driver failure" not in run("allocs").stdout


def test_a_check_that_has_not_passed_yet(run: Run, control_plane: FakeControlPlane) -> None:
    """Said as what it is while the task starts up."""
    events = [{"at": "2026-06-01T12:00:01Z", "type": "Check not passed yet", "message": "connection refused"}]
    starting = an_allocation(client_status="running", healthy=None, tasks={"server": a_task(events=events)})
    control_plane.answers["/allocations"] = [starting]
    assert "Check not passed yet: connection refused" in run("allocs").stdout
    events.append({"at": "2026-06-01T12:00:02Z", "type": "Check passed", "message": ""})
    control_plane.answers["/allocations"] = [{**starting, "tasks": {"server": a_task(events=events)}}]
    assert "passed yet" not in run("allocs").stdout


def test_a_schedule_before_its_first_run(run: Run, control_plane: FakeControlPlane) -> None:
    """Nothing is counted of a run that is not there: no 0/0, which looks like a failure."""
    group = {**a_job()["groups"][0], "desired": 0, "placed": 0, "running": 0, "healthy": 0}
    control_plane.answers["/jobs"] = [
        a_job(type="batch", groups=[group], schedule={"last": None, "next": "2026-06-02T03:00:00Z"})
    ]
    row = next(line for line in run("status").stdout.splitlines() if line.startswith("web "))
    assert row.split()[4] == "-"


def test_allocations_of_one_job(run: Run, control_plane: FakeControlPlane) -> None:
    """Asked for by the job's own list, so that a wrong name is an error."""
    assert len(run("allocs", "--job", "web", "-o", "name").stdout.splitlines()) == 3
    assert run("allocs", "--job", "wob").exit_code == 1


def test_revisions_newest_first_with_what_they_touched(run: Run, control_plane: FakeControlPlane) -> None:
    """Marks say what became of each job."""
    control_plane.answers["/revisions"] = [
        a_revision(jobs={"created": ["a"], "updated": ["b"], "removed": ["c"], "invalid": ["d"]})
    ]
    out = run("revisions").stdout
    assert "+a ~b -c !d" in out
    assert COMMIT[:8] in out


def test_services_and_templates(run: Run, control_plane: FakeControlPlane) -> None:
    """A service without a healthy address shows; parameters that must be given are marked."""
    control_plane.answers["/services"] = [
        {"name": "shop", "addresses": [{"address": "10.0.0.1:80", "job": "web"}]},
        {"name": "db", "addresses": []},
    ]
    control_plane.answers["/templates"] = [
        {
            "name": "web",
            "parameters": {"image": {"type": "string"}, "count": {"default": 2}},
            "job": {},
            "jobs": ["a"],
        }
    ]
    assert run("services").stdout.splitlines()[1:] == ["shop  1        10.0.0.1:80", "db    0"]
    assert run("templates").stdout.splitlines()[1] == "web   1     count image*"


def test_an_empty_list_says_what_to_do(run: Run, control_plane: FakeControlPlane) -> None:
    """For people; for programs it is an empty list."""
    control_plane.answers["/nodes"] = []
    assert run("nodes").stdout == "no nodes: start an agent with `trueup agent --server URL`\n"
    assert run("nodes", "-o", "json").stdout == "[]\n"
    assert run("nodes", "-o", "name").stdout == ""


def test_a_hostile_name_shows_as_escapes(run: Run, control_plane: FakeControlPlane) -> None:
    """Labels and names come from others."""
    control_plane.answers["/nodes"] = [a_node("a\x1b[2J\nb")]
    for form in ("table", "wide", "name", "json", "yaml"):
        assert "\x1b" not in run("nodes", "-o", form).stdout
    assert "a\\x1b[2J\\nb" in run("nodes").stdout


def test_colour_only_where_it_is_wanted(run: Run) -> None:
    """Never into a pipe, unless asked for."""
    assert "\x1b" not in run("nodes").stdout
    assert "\x1b[32mready\x1b[0m" in run("nodes", "--color", "always").stdout
    assert "\x1b" not in run("nodes", "--color", "never").stdout
