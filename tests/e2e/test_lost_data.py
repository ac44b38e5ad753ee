"""An agent's data folder is deleted while its tasks run, or copied: what runs runs on, once, in the charge of one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Up, eventually, is_alive
from tests.e2e.plant import Plant

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cgroups")]

WEB = """
kind: Job
name: web
update: {{min_healthy_time: 100ms, max_parallel: 0}}
groups:
  - count: {count}
    tasks:
      - config:
          command: [/bin/sh, -c, "echo up >> starts; trap 'echo bye >> ends; exit' TERM; while :; do sleep 0.05; done"]
          cwd: {folder}
        checks: [{{type: exec, command: [/bin/sh, -c, 'test "$TRUEUP_TASK_NAME" = web'], interval: 200ms}}]
"""
UNIFIED = (Path("/sys/fs/cgroup/cgroup.procs"), Path("/sys/fs/cgroup/unified/cgroup.procs"))


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    made = Up(tmp_path, "--node-timeout", "1s")
    yield made
    made.end()


def test_tasks_of_a_lost_data_folder_run_on_once_and_are_in_charge_again(up: Up) -> None:
    """Found by their cgroups, and inherited by the new node of that name before anything counts as lost."""
    if not any(root.exists() for root in UNIFIED):
        pytest.skip("without cgroups its folder is all that a process is known by")
    up.specs.write("web.yaml", WEB.format(count=2, folder=up.folder))
    up.start()
    before = {name: pid for name, (pid, _) in up.api.until_running("web", 2).items()}
    ids = {one["id"] for one in up.api.allocations("web")}
    (node,) = up.api.get("/nodes")["items"]

    up.running.kill()
    shutil.rmtree(up.folder / ".trueup" / "agent")
    up.start()
    up.api.until(lambda: node["id"] not in {one["id"] for one in up.api.get("/nodes")["items"]})
    after = up.api.until_running("web", 2)

    assert {name: pid for name, (pid, _) in after.items()} == before
    assert {one["id"] for one in up.api.allocations("web", wanted=False)} == ids
    assert all(map(is_alive, before.values()))
    assert len((up.folder / "starts").read_text().split()) == 2
    kinds = {one["type"] for one in up.api.get("/events", limit="1000")["items"]}
    assert not {"NodeDown", "AllocationLost"} & kinds

    up.specs.write("web.yaml", WEB.format(count=1, folder=up.folder))
    eventually(lambda: not is_alive(before["web.web[1]"]), picture=up.running.output)
    assert (up.folder / "ends").read_text() == "bye\n"
    assert up.api.until_running("web", 1)["web.web[0]"][0] == before["web.web[0]"]


def test_a_copied_data_folder_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    """The first is not locked out, and the second says why it is; it is let in once the first is gone."""
    plant = Plant(tmp_path)
    try:
        plant.start("node-1")
        (node,) = plant.api.get("/nodes")["items"]
        shutil.copytree(
            tmp_path / "node-1", tmp_path / "copy", ignore=shutil.ignore_patterns("spawner", "tasks")
        )
        plant.start_agent("copy", "--name", "node-1")
        copy = plant.agents["copy"]
        eventually(lambda: "is alive with another data folder of this machine" in copy.output())
        shown = plant.api.index()
        assert plant.node("node-1")["status"] == "ready"
        assert "registered" not in copy.output()
        plant.agents["node-1"].kill()
        eventually(lambda: "registered" in copy.output(), picture=copy.output)
        assert (plant.node("node-1")["id"], plant.api.index() > shown) == (node["id"], True)
    finally:
        plant.end()
