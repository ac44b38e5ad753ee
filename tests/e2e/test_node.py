"""A node's own state with real agents: what is in use there, what it keeps back, and a disk with too little room."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.cluster import Json, eventually, is_alive, trueup
from tests.e2e.plant import Plant
from tests.small_disks import a_real_disk, a_small_disk, break_disk, fill, free_bytes, frozen

MIB = 1024**2
CLUSTER = "kind: Cluster\nname: cluster\nhold: off\n"


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.end()


SLEEP = "config: {command: [sleep, '600']}"


def a_job(name: str, *, fields: str = "", task: str = SLEEP, count: int = 1) -> str:
    return f"""
kind: Job
name: {name}
{fields}
update: {{min_healthy_time: 100ms}}
groups: [{{name: app, count: {count}, tasks: [{{name: s, resources: {{memory: 16MiB}}, {task}}}]}}]
"""


def unplaced(plant: Plant, job: str) -> dict[str, int]:
    """Why what is missing of a job found no room."""
    held = plant.api.job(job)["unplaced"]
    return {reason: count for one in held for reason, count in one["reasons"].items()}


def test_what_is_in_use_and_what_is_kept_back(plant: Plant) -> None:
    """Everybody sees what is in use, and no beat of it moves the index; nothing is placed on what is kept back."""
    total = psutil.virtual_memory().total
    plant.start_server()
    plant.start_agent("node-1", "--reserve-memory", f"{total - 64 * MIB}B", "--reserve-cpu", "0.5")
    plant.until_ready("node-1")
    node = plant.node("node-1")
    assert node["resources"] == {"cpu": (psutil.cpu_count() or 1) - 0.5, "memory": 64}
    used = plant.api.until(lambda: plant.node("node-1")["used"])
    assert 0 < used["memory"] < total // MIB
    assert 0 < used["disk_free"] < used["disk"]

    def stays() -> bool:
        index, before = plant.api.index(), plant.node("node-1")["used"]
        plant.api.until(lambda: plant.node("node-1")["used"] != before)
        return plant.api.index() == index

    plant.api.until(stays)
    plant.specs.write("web.yaml", a_job("web", count=5))
    plant.api.until(lambda: unplaced(plant, "web") == {"insufficient memory": 1})
    assert "DISK FREE" in plant.command("nodes", "-o", "wide")
    assert json.loads(plant.command("nodes", "-o", "json"))[0]["used"]["disk"] == used["disk"]


def test_a_data_folder_put_back_from_a_backup(plant: Plant) -> None:
    """The node is back after a deadline, and what was started after the backup runs on as the same process."""
    plant.start("node-1")
    plant.specs.write("cluster.yaml", CLUSTER)
    plant.specs.write("old.yaml", a_job("old"))
    plant.api.until_running("old", 1)
    plant.agents["node-1"].kill()
    data, backup = plant.folder / "node-1", plant.folder / "backup"
    backup.mkdir()
    for file in data.glob("agent.*"):
        shutil.copy2(file, backup)
    for _ in range(2):
        plant.start_agent("node-1")
        plant.until_ready("node-1")
        plant.agents["node-1"].kill()
    plant.start_agent("node-1")
    plant.specs.write("new.yaml", a_job("new"))
    before = {job: plant.api.until_running(job, 1) for job in ("old", "new")}

    plant.agents["node-1"].kill()
    for file in data.glob("agent.*"):
        file.unlink()
    for file in backup.iterdir():
        shutil.copy2(file, data)
    plant.start_agent("node-1")
    plant.api.until(lambda: plant.node("node-1")["used"])
    plant.until_ready("node-1")
    assert {job: plant.api.until_running(job, 1) for job in ("old", "new")} == before
    plant.specs.write("late.yaml", a_job("late"))
    plant.api.until_running("late", 1)


def test_a_task_that_no_signal_ends(plant: Plant) -> None:
    """In uninterruptible sleep it is shown as stopping, and its room is given to nobody until it has ended."""
    with a_real_disk(plant.folder / "hanging", "16M") as disk:
        plant.start_server()
        plant.start_agent("node-1", "--memory", "24MiB")
        plant.until_ready("node-1")
        plant.specs.write("cluster.yaml", CLUSTER)
        plant.specs.write("empty.yaml", a_job("empty", count=0))
        write = f"[sh, -c, 'while sleep 0.05; do echo line > {disk}/file; done']"
        plant.specs.write(
            "stuck.yaml", a_job("stuck", task=f"config: {{command: {write}}}, kill_timeout: 1s")
        )
        pid = next(iter(plant.api.until_running("stuck", 1).values()))[0]
        with frozen(disk):
            eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_DISK_SLEEP)
            plant.specs.remove("stuck.yaml")
            plant.specs.write("next.yaml", a_job("next"))
            words = (
                r"stop: job removed; stopping since \d\d:\d\d:\d\d UTC: still running although it was killed"
            )
            plant.api.until(lambda: re.search(words, plant.command("allocs", "--job", "stuck")))
            assert is_alive(pid)
            plant.api.until(lambda: unplaced(plant, "next") == {"insufficient memory": 1})
            assert plant.node("node-1")["status"] == "ready"
        plant.api.until_running("next", 1)
        assert not is_alive(pid)


def test_an_agent_that_may_open_no_more_files(plant: Plant) -> None:
    """It beats on, loses no task, and says what to do; with more of them all is started, each once."""
    plant.start_server()
    plant.start_agent("node-1", "--cpu", "16")
    plant.until_ready("node-1")
    plant.specs.write("cluster.yaml", CLUSTER)
    command = f"[sh, -c, 'echo $TRUEUP_ALLOC_NAME >> {plant.folder}/starts; exec sleep 600']"
    many = f"config: {{command: {command}}}"
    plant.specs.write("web.yaml", a_job("web", task=many, count=3))
    before = plant.api.until_running("web", 3)
    agent = psutil.Process(plant.agents["node-1"].pid)
    soft, hard = agent.rlimit(psutil.RLIMIT_NOFILE)
    assert soft == min(hard, 2**19), "as many as it may, from the start"
    agent.rlimit(psutil.RLIMIT_NOFILE, (agent.num_fds() + 8, hard))
    plant.specs.write("web.yaml", a_job("web", task=many, count=40))
    plant.api.until(lambda: "too many open files: this agent may have" in plant.command("allocs"))
    used = plant.node("node-1")["used"]
    plant.api.until(lambda: plant.node("node-1")["used"] != used)
    assert plant.node("node-1")["status"] == "ready"
    assert before.items() <= plant.api.running("web").items()

    agent.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
    after = plant.api.until_running("web", 40)
    assert before.items() <= after.items()
    assert sorted((plant.folder / "starts").read_text().split()) == sorted(after)
    assert "Traceback" not in plant.agents["node-1"].output()


def test_a_disk_that_breaks(plant: Plant) -> None:
    """What runs goes on, heartbeats too; starts wait and say why; what is to stop is stopped, and is seen to be."""
    with a_real_disk(plant.folder / "node-1", "64M") as disk:
        plant.start("node-1")
        plant.specs.write("cluster.yaml", CLUSTER)
        for job in ("web", "gone"):
            plant.specs.write(f"{job}.yaml", a_job(job))
        pids = {job: next(iter(plant.api.until_running(job, 1).values()))[0] for job in ("web", "gone")}
        break_disk(disk)
        plant.specs.write("late.yaml", a_job("late"))
        assert "data folder cannot be written" in plant.api.until(lambda: unhealthy(plant))
        plant.api.until(lambda: "data folder cannot be written" in plant.command("allocs", "--job", "late"))
        plant.specs.remove("gone.yaml")
        plant.api.until(
            lambda: not [one for one in plant.api.allocations("gone", wanted=False) if is_live(one)]
        )
        assert not is_alive(pids["gone"])
        used = plant.node("node-1")["used"]
        plant.api.until(lambda: plant.node("node-1")["used"] != used)
        assert plant.node("node-1")["status"] == "ready"
        assert is_alive(pids["web"])

        plant.agents["node-1"].kill()
        refused = trueup("agent", "--data", "node-1", "--bind", "127.0.0.1:0", cwd=plant.folder, expect=1)
        assert refused.stderr.count("\n") == 1
        assert "is on a disk that is read-only; see why" in refused.stderr
        assert is_alive(pids["web"])
        psutil.Process(pids["web"]).kill()


def unhealthy(plant: Plant) -> str | None:
    """Why the node's processes do not work; None while they do."""
    state = plant.node("node-1")["drivers"]["process"]
    return None if state["healthy"] else str(state["detail"])


def is_live(allocation: Json) -> bool:
    return allocation["client_status"] not in {"complete", "failed", "lost"}


def test_a_disk_with_too_little_room(plant: Plant) -> None:
    """What runs goes on, nothing new comes, the output of the longest ended goes first; with room, all goes on."""
    with a_small_disk(plant.folder / "node-1", "48m") as disk:
        plant.start_server()
        plant.start_agent("node-1", "--reserve-disk", "16MiB", "--gc-max-size", "40MiB")
        plant.until_ready("node-1")
        plant.specs.write("cluster.yaml", CLUSTER)
        plant.specs.write("web.yaml", a_job("web"))
        write = "config: {command: [sh, -c, 'head -c 6000000 /dev/zero > big; echo done']}"
        for number in (1, 2):
            plant.specs.write(f"b{number}.yaml", a_job(f"b{number}", fields="type: batch", task=write))
            plant.api.until(lambda one=number: plant.api.job(f"b{one}")["health"] == "Healthy")  # type: ignore[misc]
        plant.specs.write("each.yaml", a_job("each", fields="type: system"))
        running = plant.api.until_running("web", 1)
        pids = [next(iter(plant.api.until_running(job, 1).values()))[0] for job in ("web", "each")]
        ended = {one["job"]: one["id"] for one in plant.api.allocations() if one["job"].startswith("b")}
        folders = {job: disk / "allocations" / one for job, one in ended.items()}
        assert all(folder.is_dir() for folder in folders.values())

        # With the first one gone a quarter more than what is kept free is free, and the second may stay.
        filler = fill(disk, leave_bytes=15 * MIB + MIB // 2)
        plant.api.until(lambda: not folders["b1"].exists())
        assert free_bytes(disk) >= 20 * MIB
        plant.api.until(lambda: not unhealthy(plant))
        assert folders["b2"].is_dir()

        filler = fill(disk, leave_bytes=3 * MIB)
        detail = plant.api.until(lambda: unhealthy(plant))
        assert detail.startswith("disk pressure: ")
        assert detail.endswith(" MiB free, 16 MiB is kept free")
        assert "disk pressure" in plant.command("nodes")
        plant.api.until(lambda: not folders["b2"].exists())
        plant.specs.write("late.yaml", a_job("late"))
        (reason,) = plant.api.until(lambda: unplaced(plant, "late") or None)
        assert reason.startswith("driver process is unhealthy: disk pressure: ")
        plant.specs.write("each.yaml", a_job("each", fields="type: system\npriority: 60"))
        plant.api.until(lambda: plant.api.job("each")["version"] == 2)
        assert plant.api.until_running("web", 1) == running
        assert all(is_alive(pid) for pid in pids), "what ran runs on"

        filler.unlink()
        plant.api.until_running("late", 1)
        assert plant.node("node-1")["drivers"]["process"]["detail"] == ""
        plant.end()
