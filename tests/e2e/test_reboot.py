"""A machine that is switched off and on again: an agent in namespaces of its own, whose boot id and pids begin anew."""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.cluster import TRUEUP, environment, eventually
from tests.e2e.plant import Plant
from tests.namespaces import in_own_pids
from tests.require import require

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cgroups")]

JOBS = """
kind: Job
name: web
update: {{min_healthy_time: 100ms, max_parallel: 0}}
groups:
  - count: 2
    tasks:
      - config: {{command: [/bin/sh, -c, "echo $TRUEUP_ALLOC_NAME >> {folder}/starts; exec sleep 3600"]}}
        kill_timeout: 1s
---
kind: Job
name: once
type: batch
groups:
  - tasks:
      - config: {{command: [/bin/sh, -c, "echo $TRUEUP_ALLOC_NAME >> {folder}/runs"]}}
"""
BOOT = """
mount --bind "$1" /proc/sys/kernel/random/boot_id || exit 1
for pid in $2; do
    while :; do
        echo $((pid - 1)) > /proc/sys/kernel/ns_last_pid
        sleep $STRANGERS_SECONDS &
        [ $! -eq $pid ] && break
        kill $!
    done
done
shift 2
exec "$@"
"""
"""Its pids are given out by what stands in `ns_last_pid`: what other programs have is nobody's task."""
SECONDS = str(100_000 + os.getpid())
"""By which other programs of this run's machine are told from those of another run beside it."""


class Machine:
    """The machine of `node-1`: it is switched on with a boot id, and off as by its power."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.boots = 0
        self.popen: subprocess.Popen[bytes] | None = None
        self.said = plant.folder / "node-1.said"
        self._begin = 0

    def switch_on(self, strangers: tuple[int, ...] = ()) -> None:
        """Starts the agent; *strangers* are pids that other programs of the machine have by then."""
        self.boots += 1
        boot_id = self.plant.folder / f"boot{self.boots}"
        boot_id.write_text(f"00000000-0000-4000-8000-{self.boots:012d}\n")
        policy = self.plant.folder / "policy.yaml"
        policy.write_text("drivers: {process: {users: [root]}}\n")
        agent = [
            *("agent", "--server", self.plant.server.url, "--bind", "127.0.0.1:0", "--enable-process"),
            *("--name", "node-1", "--data", "node-1", "--log-format", "json"),
            *("--token-file", str(self.plant.folder / "server" / "cluster-token"), "--config", str(policy)),
        ]
        with self.said.open("ab") as said:
            self._begin = said.tell()
            self.popen = subprocess.Popen(
                in_own_pids(
                    *("sh", "-c", BOOT, "boot", str(boot_id), " ".join(map(str, strangers))),
                    *(str(TRUEUP), *agent),
                ),
                cwd=self.plant.folder,
                env={**environment(), "STRANGERS_SECONDS": SECONDS},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def switch_off(self) -> None:
        """Everything on it ends at once, and nothing is written down any more."""
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()
            self.popen = None

    def logged(self, event: str) -> bool:
        """Whether the agent has logged that since the machine was switched on last."""
        return event in self.said.read_text()[self._begin :]

    def strangers(self) -> set[int]:
        """The pids that other programs of the machine have on it."""
        found = set()
        for process in psutil.process_iter(["cmdline"]):
            if process.info["cmdline"] == ["sleep", SECONDS]:
                with contextlib.suppress(OSError):
                    (line,) = re.findall(
                        r"^NSpid:.*$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE
                    )
                    found.add(int(line.split()[-1]))
        return found


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.end()


@pytest.fixture
def machine(plant: Plant) -> Iterator[Machine]:
    require("namespaces")
    made = Machine(plant)
    yield made
    made.switch_off()


def lines(path: Path) -> list[str]:
    return sorted(path.read_text().split()) if path.exists() else []


def test_a_machine_that_is_switched_off_and_on(plant: Plant, machine: Machine) -> None:
    """No pid of the boot before is signalled, nothing starts before the control plane was heard, and then each service
    once, without its being a restart; what was finished stays finished.
    """
    plant.specs.write("jobs.yaml", JOBS.format(folder=plant.folder))
    plant.start_server()
    machine.switch_on()
    plant.api.until_running("web", 2)
    plant.api.until(lambda: [one["client_status"] for one in plant.api.allocations("once")] == ["complete"])
    records = [json.loads(path.read_bytes()) for path in plant.folder.glob("node-1/tasks/*/web/1/state.json")]
    pids = {record[name] for record in records for name in ("pid", "shim_pid")}
    assert len(pids) == 4
    before = {one["id"] for one in plant.api.allocations("web")}

    plant.server.kill()
    machine.switch_off()
    machine.switch_on(strangers=tuple(sorted(pids)))
    eventually(lambda: machine.logged("the control plane is not heard"), picture=machine.said.read_text)
    eventually(lambda: machine.logged("is ready at"), picture=machine.said.read_text)
    eventually(
        lambda: not list(plant.folder.glob("node-1/tasks/*/web/1/state.json"))
    )  # It knows that they ended.
    assert machine.strangers() == pids
    assert not list(plant.folder.glob("node-1/tasks/*/web/2"))
    assert lines(plant.folder / "starts") == ["web.web[0]", "web.web[1]"]

    plant.start_server()
    plant.api.until(lambda: len(lines(plant.folder / "starts")) >= 4)
    after = plant.api.until_running("web", 2)
    assert lines(plant.folder / "starts") == ["web.web[0]", "web.web[0]", "web.web[1]", "web.web[1]"]
    assert not {pid for pid, _ in after.values()} & pids
    held = plant.api.allocations("web")
    assert {one["id"] for one in held} == before
    assert [one["tasks"]["web"]["restarts"] for one in held] == [0, 0]
    assert machine.strangers() == pids
    assert lines(plant.folder / "runs") == ["once.once[0]"]
    assert [one["client_status"] for one in plant.api.allocations("once")] == ["complete"]
