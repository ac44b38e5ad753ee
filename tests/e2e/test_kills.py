"""kill -9 of whatever does the work: no task notices, nothing starts twice, and all is taken up again."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.cluster import Json, Up, eventually, is_alive, names, trueup
from tests.e2e.plant import Plant

pytestmark = pytest.mark.e2e

WEB = """
kind: Job
name: web
update: {{min_healthy_time: 100ms, max_parallel: 0}}
groups:
  - count: {count}
    tasks:
      - config: {{command: [/bin/sh, -c, "echo $TRUEUP_ALLOC_NAME >> {starts}; exec sleep 3600"]}}
        kill_timeout: 2s
"""


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.end()


def web(folder: Path, count: int = 2) -> str:
    """Each start of an instance adds a line to a file: what starts twice is seen."""
    return WEB.format(count=count, starts=folder / "starts")


def starts(folder: Path) -> list[str]:
    return sorted((folder / "starts").read_text().split())


KILLS = {
    "agent": (["agent"], ["agent"]),
    "server": (["server"], ["server"]),
    "agent, then server": (["agent", "server"], ["server", "agent"]),
    "server, then agent": (["server", "agent"], ["agent", "server"]),
}


@pytest.mark.parametrize("case", KILLS)
def test_a_kill_touches_no_task_and_an_edit_made_meanwhile_is_applied(plant: Plant, case: str) -> None:
    killed, started = KILLS[case]
    plant.specs.write("web.yaml", web(plant.folder))
    plant.start("node-1")
    before = plant.api.until_running("web", 2)
    ids = {one["id"] for one in plant.api.allocations("web")}
    for process in killed:
        (plant.server if process == "server" else plant.agents["node-1"]).kill()
    plant.specs.write("web.yaml", web(plant.folder, count=3))
    for process in started:
        if process == "server":
            plant.start_server()
        else:
            plant.start_agent("node-1")
    after = plant.api.until_running("web", 3)
    assert {name: after[name] for name in before} == before
    assert all(is_alive(pid) for pid, _ in after.values())
    assert ids < {one["id"] for one in plant.api.allocations("web", wanted=False)}
    assert starts(plant.folder) == ["web.web[0]", "web.web[1]", "web.web[2]"]
    assert all(one["healthy"] for one in plant.api.allocations("web"))
    assert plant.api.job("web")["health"] == "Healthy"


def test_a_killed_up_is_taken_up_by_the_next(up: Up) -> None:
    up.specs.write("web.yaml", web(up.folder))
    up.start()
    before = up.api.until_running("web", 2)
    created = {one["id"]: one["created_at"] for one in up.api.allocations("web")}
    up.running.kill()
    assert all(is_alive(pid) for pid, _ in before.values())
    up.specs.write("web.yaml", web(up.folder, count=3))
    up.start()
    after = up.api.until_running("web", 3)
    assert {name: after[name] for name in before} == before
    held = {one["id"]: one["created_at"] for one in up.api.allocations("web")}
    assert created.items() <= held.items()
    assert len(starts(up.folder)) == 3


def test_a_task_that_ends_while_the_agent_is_dead_is_reported_and_restarted_by_policy(plant: Plant) -> None:
    """The end is taken note of, and made up for only once the control plane was heard."""
    plant.specs.write("web.yaml", web(plant.folder, count=1))
    plant.start("node-1")
    before = plant.api.until_running("web", 1)["web.web[0]"]
    plant.specs.write("web.yaml", web(plant.folder, count=1) + "    restart: {delay: 100ms}\n")
    plant.api.until(lambda: plant.api.job("web")["version"] == 2)
    plant.api.until(lambda: {one["job_version"] for one in plant.api.allocations("web")} == {2})
    plant.agents["node-1"].kill()
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: not is_alive(before[0]))
    plant.start_agent("node-1")
    (after,) = plant.api.until(lambda: replaced(plant, before[0]))
    task = after["tasks"]["web"]
    assert task["restarts"] == 1
    assert any(event["type"] == "Terminated" for event in task["events"])
    assert len(starts(plant.folder)) == 2


def replaced(plant: Plant, pid: int) -> list[Json] | None:
    """The allocation, once its task runs as another process."""
    held = plant.api.allocations("web")
    pids = [one["tasks"]["web"]["pid"] for one in held if one["client_status"] == "running"]
    return held if len(pids) == 1 and pids[0] not in {None, pid} else None


@pytest.mark.parametrize("code", [0, 7])
def test_a_batch_task_that_ends_while_the_agent_is_dead_keeps_its_exit_code(plant: Plant, code: int) -> None:
    gate = plant.folder / "gate"
    plant.specs.write(
        "work.yaml",
        f"""
        kind: Job
        name: work
        type: batch
        groups:
          - restart: {{attempts: 0}}
            reschedule: {{attempts: 0}}
            tasks:
              - config:
                  command: [/bin/sh, -c, "echo begun >> ran; until test -e {gate}; do sleep 0.05; done; exit {code}"]
                  cwd: {plant.folder}
        """,
    )
    plant.start("node-1")
    pid = plant.api.until(lambda: plant.api.running("work") or None)["work.work[0]"][0]
    plant.agents["node-1"].kill()
    gate.touch()
    eventually(lambda: not is_alive(pid))
    plant.start_agent("node-1")
    status = "complete" if code == 0 else "failed"
    plant.api.until(
        lambda: {one["client_status"] for one in plant.api.allocations("work", wanted=False)} == {status}
    )
    (ended,) = plant.api.allocations("work", wanted=False)
    assert ended["tasks"]["work"]["exit_code"] == code
    assert ended["tasks"]["work"]["finished_at"] is not None
    assert plant.api.job("work")["health"] == ("Healthy" if code == 0 else "Degraded")
    assert (plant.folder / "ran").read_text() == "begun\n"


def test_the_work_of_a_killed_agent_is_replaced_and_its_old_copies_are_stopped_on_return(
    plant: Plant,
) -> None:
    plant.specs.write("web.yaml", web(plant.folder) + "constraints: [{operator: distinct_hosts}]\n")
    plant.start("node-1", "node-2")
    before = plant.api.until_running("web", 2)
    (moved,) = [one for one in plant.api.allocations("web") if one["node"] == "node-1"]
    # Without this its replacement would have no node of its own.
    plant.specs.write("web.yaml", web(plant.folder))
    plant.api.until(lambda: plant.api.job("web")["version"] == 2)
    plant.agents["node-1"].kill()
    plant.api.until(lambda: plant.node("node-1")["status"] == "down")
    after = plant.api.until_running("web", 2)
    kept = next(name for name in before if name != moved["name"])
    assert after[kept] == before[kept]
    assert plant.places("web") == dict.fromkeys(before, "node-2")
    lost = plant.api.get(f"/allocations/{moved['id']}")
    assert (lost["desired_status"], lost["reason"], lost["client_status"]) == ("stop", "lost", "lost")
    assert is_alive(before[moved["name"]][0])
    plant.start_agent("node-1")
    eventually(lambda: not is_alive(before[moved["name"]][0]), picture=plant.output)
    plant.until_ready("node-1")
    assert plant.api.get(f"/allocations/{moved['id']}")["reason"] == "lost"
    assert plant.api.until_running("web", 2) == after


def test_sigterm_of_server_and_agent_leaves_tasks_running(plant: Plant) -> None:
    plant.specs.write("web.yaml", web(plant.folder))
    plant.start("node-1")
    before = plant.api.until_running("web", 2)
    assert plant.agents["node-1"].terminate() == 0
    assert plant.server.terminate() == 0
    assert all(is_alive(pid) for pid, _ in before.values())
    plant.start_server()
    plant.start_agent("node-1")
    assert plant.api.until_running("web", 2) == before


DAEMON = """
kind: Job
name: daemon
update: {{min_healthy_time: 100ms}}
groups:
  - tasks:
      - config:
          command: [/bin/sh, -c, "setsid sleep 3600 & echo $! > {pid_file}; exec sleep 3600"]
        kill_timeout: 2s
"""


def daemon(up: Up) -> tuple[int, int]:
    """Starts a task with a child in a session of its own; the pids of both."""
    pid_file = up.folder / "child"
    up.specs.write("daemon.yaml", DAEMON.format(pid_file=pid_file))
    up.start()
    task = up.api.until_running("daemon", 1)["daemon.daemon[0]"][0]
    child = eventually(lambda: int(pid_file.read_text() or 0) if pid_file.exists() else None)
    assert psutil.Process(child).cmdline() == ["sleep", "3600"]
    return task, child


def test_stop_tasks_ends_them_with_up(tmp_path: Path) -> None:
    up = Up(tmp_path, "--stop-tasks")
    try:
        pids = daemon(up)
        assert up.running.terminate() == 0
        assert not any(map(is_alive, pids))
    finally:
        up.end()


def test_down_ends_up_and_all_tasks_and_what_they_left_behind(up: Up) -> None:
    pids = daemon(up)
    assert "ended" in trueup("down", cwd=up.folder).stdout
    assert not any(map(is_alive, pids))
    assert up.running.popen.wait(10) == 0
    assert (up.folder / ".trueup").is_dir()
    assert "nothing ran" in trueup("down", cwd=up.folder).stdout
    # What the specs want starts again with the next.
    up.start()
    assert names(up.api.until_running("daemon", 1)) == ["daemon.daemon[0]"]


def test_down_purge_also_deletes_the_data_folder(up: Up) -> None:
    pids = daemon(up)
    up.running.kill()
    trueup("down", "--purge", cwd=up.folder)
    assert not any(map(is_alive, pids))
    assert not (up.folder / ".trueup").exists()
    assert (up.specs.folder / "daemon.yaml").is_file()
