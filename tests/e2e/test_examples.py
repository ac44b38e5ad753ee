"""A newcomer's first five minutes: `trueup init`, `trueup up`, look, edit, remove, confirm, down."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.cluster import Process, Up, is_alive, names, trueup

pytestmark = pytest.mark.e2e

DEADLINE_SECONDS = 60.0
"""On a loaded machine; the promise is 5 s, and the measured time is printed."""
HELLO = ["hello.app[0]", "hello.app[1]", "hello.app[2]"]


@pytest.fixture
def examples(tmp_path: Path) -> Iterator[Up]:
    """The examples in an otherwise empty folder, with all of them Healthy under `trueup up`."""
    up = Up(tmp_path)
    up.specs.folder.rmdir()
    written = trueup("init", cwd=tmp_path)
    assert "trueup up" in written.stderr
    assert "specs/hello.yaml" in written.stdout
    try:
        up.start()
        begin = time.monotonic()
        up.api.until(lambda: all_healthy(up), DEADLINE_SECONDS)
        print(f"ready to all Healthy: {time.monotonic() - begin:.2f} s")  # noqa: T201 - the measurement
        yield up
    finally:
        up.end()


def all_healthy(up: Up) -> bool:
    jobs = {job["name"]: job for job in up.api.get("/jobs")["items"]}
    if sorted(jobs) != ["disk-report", "hello", "load-report"]:
        return False
    healthy = all(job["health"] == "Healthy" and job["sync"] == "Synced" for job in jobs.values())
    return healthy and names(up.api.running("hello")) == HELLO and len(up.api.running("load-report")) == 1


def test_the_examples_run_and_show_themselves(examples: Up) -> None:
    up = examples
    shown = up.command("status")
    for job in ("hello", "load-report", "disk-report"):
        assert job in shown
    assert "Healthy" in shown

    for one in up.api.allocations("hello"):
        answer = requests.get(f"http://127.0.0.1:{one['ports']['http']}/", timeout=10)
        assert answer.status_code == 200
        assert "<h1>Hello</h1>" in answer.text
        assert f"This is {one['name']} on {one['node']}" in answer.text

    page = requests.get(f"{up.running.url}/", headers={"Accept": "text/html"}, timeout=10)
    assert page.headers["Content-Type"].startswith("text/html")
    assert "hello" in page.text
    assert "default-src" in page.headers["Content-Security-Policy"]

    assert "load" in up.command("logs", "load-report")


def test_editing_the_message_rolls_and_the_new_one_is_served(examples: Up) -> None:
    up = examples
    before = up.api.running("hello")
    text = (up.specs.folder / "hello.yaml").read_text()
    up.specs.write("hello.yaml", text.replace("message: Hello\n", "message: Good day\n"))
    up.api.until(lambda: up.api.job("hello")["version"] == 2)
    after = up.api.until_running("hello", 3, DEADLINE_SECONDS)
    assert not {pid for pid, _ in after.values()} & {pid for pid, _ in before.values()}
    for one in up.api.allocations("hello"):
        assert "Good day" in requests.get(f"http://127.0.0.1:{one['ports']['http']}/", timeout=10).text


def test_a_second_up_of_the_same_folder_is_refused_and_disturbs_nothing(examples: Up) -> None:
    before = examples.api.running("hello")
    refused = trueup("up", "--bind", "127.0.0.1:0", cwd=examples.folder, expect=1)
    assert ".trueup" in refused.stderr
    assert (
        f"process {examples.running.pid} is the server of this data folder; stop it first" in refused.stderr
    )
    assert f"`trueup down --data {examples.folder / '.trueup'}` ends it with all its tasks" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert examples.api.running("hello") == before


def test_removing_all_documents_is_held_and_the_printed_document_confirms_it(examples: Up) -> None:
    up = examples
    pids = {pid for job in ("hello", "load-report") for pid, _ in up.api.running(job).values()}
    for name in ("hello.yaml", "disk-report.yaml", "load-report.yaml"):
        up.specs.remove(name)
    held = up.api.until(lambda: up.api.status()["held"])
    assert sorted(held["removes"]) == ["disk-report", "hello", "load-report"]
    assert all(map(is_alive, pids))
    shown = up.command("status")
    # With the spaces before its first line, as somebody copies whole lines.
    begin = shown.rindex("\n", 0, shown.index("kind: Cluster")) + 1
    document = shown[begin:].split("\n\n")[0]
    assert "name: cluster" in document
    assert f"confirm: {held['confirm']}" in document
    up.specs.write("cluster.yaml", document)
    up.api.until(lambda: not any(map(is_alive, pids)))
    up.api.until(lambda: up.api.status()["held"] is None)


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "hello.yaml").write_text("mine\n")
    refused = trueup("init", cwd=tmp_path, expect=1)
    assert "specs/hello.yaml is there already" in refused.stderr
    assert [path.name for path in (tmp_path / "specs").rglob("*")] == ["hello.yaml"]
    assert (tmp_path / "specs" / "hello.yaml").read_text() == "mine\n"


def test_the_examples_are_valid_and_planned_the_same_way(tmp_path: Path) -> None:
    trueup("init", cwd=tmp_path)
    trueup("validate", "specs", cwd=tmp_path)
    (tmp_path / "nodes.yaml").write_text("- {name: node-1, resources: {cpu: 2, memory: 4096}}\n")
    planned = trueup("plan", "specs", "--offline", "--nodes", "nodes.yaml", cwd=tmp_path)
    assert "hello" in planned.stdout


def test_up_without_specs_says_what_is_missing_and_runs_them_once_they_are_there(tmp_path: Path) -> None:
    up = Up(tmp_path)
    up.specs.folder.rmdir()
    try:
        up.start()
        assert isinstance(up.process, Process)
        error = up.api.until(lambda: up.api.status()["source"]["error"] or None)
        assert "specs does not exist" in error
        trueup("init", cwd=tmp_path)
        up.api.until(lambda: all_healthy(up), DEADLINE_SECONDS)
    finally:
        up.end()
