"""One agent with 500 process tasks: what it takes while nothing happens, how soon a new one has found them, their end.

The agent and its spawner at rest: under 1 % of a core and 150 MiB, beside supervisord with as many. A new agent after
a kill -9: all found, which is to say that it holds a pidfd of each shim, in under 2 s from its start, beside the start
of an agent that has nothing to find. Removal of all, which ignore SIGTERM: gone within `kill_timeout` and 3 s.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from tests.bench.measure import cpu_of, figure, note, sample, title
from tests.bench.peers import Program, Supervisord
from tests.e2e.cluster import eventually
from tests.e2e.plant import Plant

COUNT = 500
SETTLE_SECONDS, IDLE_SECONDS = 5.0, 20.0
RESTARTS = 3
CPU_PERCENT, MEMORY_MIB = 1.0, 150.0
FOUND_SECONDS = 2.0
KILL_TIMEOUT_SECONDS, STOP_SECONDS = 2, 3.0
PATIENCE_SECONDS = 180.0
_JOB = """
kind: Job
name: many
update: {{min_healthy_time: 0s, max_parallel: 0}}
groups:
  - count: {count}
    tasks:
      - config: {{command: [sh, -c, "trap : TERM; while :; do sleep 3600; done"]}}
        resources: {{cpu: 0.001, memory: 1MiB}}
        kill_timeout: {kill_timeout}s
"""
_STAYS = """
kind: Job
name: stays
groups: [{tasks: [{config: {command: [sleep, "3600"]}, resources: {cpu: 0.001, memory: 1MiB}}]}]
"""


def test_five_hundred_tasks(tmp_path: Path) -> None:
    title(f"One agent with {COUNT} process tasks")
    with _plant(tmp_path) as plant:
        plant.specs.write("many.yaml", _JOB.format(count=COUNT, kill_timeout=KILL_TIMEOUT_SECONDS))
        plant.specs.write("stays.yaml", _STAYS)
        plant.start("node-1")
        eventually(lambda: _found(plant) == COUNT + 1, PATIENCE_SECONDS, plant.output)
        plant.api.until(lambda: plant.api.job("many")["health"] == "Healthy", PATIENCE_SECONDS)
        agent = plant.agents["node-1"].pid
        spawner = [one.pid for one in psutil.Process(agent).children()]
        idle = _idle_percent([agent, *spawner])
        reference = _idle_percent_of_supervisord(tmp_path / "supervisord")
        memory = psutil.Process(agent).memory_info().rss / 1024**2
        bare = _start_of_an_empty_agent(plant)
        restarts = [_restarted(plant) for _ in range(RESTARTS)]
        began = time.perf_counter()
        plant.specs.remove("many.yaml")
        eventually(lambda: _found(plant) == 1, PATIENCE_SECONDS, plant.output)
        stopped = time.perf_counter() - began
    note(f"at rest, agent and spawner take {idle:.2f} % of a core, supervisord {reference:.2f} %")
    figure("CPU at rest", idle, CPU_PERCENT, "%")
    figure("memory of the agent", memory, MEMORY_MIB, "MiB")
    sample("start of an agent that has nothing, until it is ready", [bare])
    found = [seconds for seconds, _ in restarts]
    sample("start of a new agent until all are found", found)
    figure("found, from the start of the agent", min(found), FOUND_SECONDS, "s")
    figure("CPU of the agent until then", min(cpu for _, cpu in restarts), FOUND_SECONDS, "s")
    figure("stopped, beyond kill_timeout", stopped - KILL_TIMEOUT_SECONDS, STOP_SECONDS, "s")


@contextlib.contextmanager
def _plant(folder: Path) -> Iterator[Plant]:
    plant = Plant(folder)
    try:
        yield plant
    finally:
        plant.end()


def _start_of_an_empty_agent(plant: Plant) -> float:
    began = time.perf_counter()
    plant.start_agent("node-2")
    return time.perf_counter() - began


def _restarted(plant: Plant) -> tuple[float, float]:
    """Seconds from the start of a new agent, the old one killed, until it has found all; and its CPU until then."""
    plant.agents["node-1"].kill()
    began = time.perf_counter()
    plant.start_agent("node-1")
    eventually(lambda: _found(plant) == COUNT + 1, PATIENCE_SECONDS, plant.output)
    return time.perf_counter() - began, cpu_of([plant.agents["node-1"].pid])


def _idle_percent(pids: Sequence[int]) -> float:
    """Percent of one core that these processes take while nothing happens."""
    time.sleep(SETTLE_SECONDS)
    before, began = cpu_of(pids), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    return 100 * (cpu_of(pids) - before) / (time.perf_counter() - began)


def _idle_percent_of_supervisord(folder: Path) -> float:
    peer = Supervisord(folder)
    peer.write({"many": Program(command=["sleep", "3600"], count=COUNT)})
    with peer.running() as process:
        eventually(lambda: len(psutil.Process(process.pid).children()) == COUNT, PATIENCE_SECONDS)
        return _idle_percent([process.pid])


def _found(plant: Plant) -> int:
    """How many shims the agent holds a descriptor of, by which it hears of their end."""
    return _pidfds(plant.agents["node-1"].pid)


def _pidfds(pid: int) -> int:
    count = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(descriptor.readlink()) == "anon_inode:[pidfd]"
    return count
