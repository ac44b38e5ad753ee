"""Starts of the process driver beside plain `Popen` with directory, logs and environment, and memory for each task.

The main job sets no figure of its own for these; goals 9 and 10 of LIMITS are: at least 0.15 of the rate of `Popen`,
and at most 1.2 MiB for each running task, the agent's share and the shim's, as PSS (PSS of the shim alone would hide
what the agent keeps of it).
"""

import itertools
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import msgspec

from agent.doors import TaskLaunch
from agent.drivers.accounts import ProcessPolicy
from agent.drivers.process import ProcessDriver
from tests.bench.measure import at_least, figure, in_turns, note, plain_process, sample, timed, title
from tests.e2e.cluster import Up
from trueup.models.ids import AllocationId
from trueup.models.job import LogLimits, Resources, TaskConfig
from trueup.models.units import Bytes, Millicores

COUNT = 200
ROUNDS = 5
THREADS = 4
RATE_LIMIT = 0.15
MEMORY_LIMIT_MIB = 1.2
COMMAND = ("sleep", "3600")
_JOB = """
kind: Job
name: many
update: {{min_healthy_time: 0s, max_parallel: 0}}
groups:
  - count: {count}
    tasks:
      - config: {{command: [sleep, "3600"]}}
        resources: {{cpu: 0.001, memory: 1MiB}}
"""


def test_starts_of_the_process_driver(tmp_path: Path) -> None:
    title(f"{COUNT} starts of the process driver beside Popen")
    driver = ProcessDriver(tmp_path / "agent", lambda _: None, policy=ProcessPolicy(enabled=True, root=True))
    driver.start(_launch(tmp_path, 0))
    numbers = itertools.count(1)
    with ThreadPoolExecutor(THREADS) as threads:

        def popen() -> float:
            with ExitStack() as ending:
                return timed(
                    lambda: [
                        ending.enter_context(plain_process(COMMAND, tmp_path / f"popen-{next(numbers)}"))
                        for _ in range(COUNT)
                    ]
                )

        def started() -> float:
            launches = [_launch(tmp_path, next(numbers)) for _ in range(COUNT)]
            seconds = timed(lambda: list(threads.map(driver.start, launches)))
            _end_all(driver)
            return seconds

        reference, ours = in_turns(ROUNDS, popen, started)
    driver.close()
    sample("Popen with directory, logs and environment", reference)
    sample("process driver", ours)
    rates = [COUNT / statistics.median(seconds) for seconds in (reference, ours)]
    note(f"{rates[1]:.0f} starts/s, Popen {rates[0]:.0f}")
    at_least("of the rate of Popen", rates[1] / rates[0], RATE_LIMIT, "x")


def test_memory_of_a_running_task(tmp_path: Path) -> None:
    title(f"Memory that each of {COUNT} running process tasks adds")
    up = Up(tmp_path, "--cpu", "64")
    try:
        up.specs.write("many.yaml", _JOB.format(count=1))
        up.start()
        up.api.until_running("many", 1)
        before = _pss_mib(up.running.pid)
        up.specs.write("many.yaml", _JOB.format(count=COUNT + 1))
        up.api.until_running("many", COUNT + 1, 60)
        grown = (_pss_mib(up.running.pid) - before) / COUNT
        files = (tmp_path / ".trueup").rglob("state.json")
        shims = [msgspec.json.decode(path.read_bytes())["shim_pid"] for path in files]
        each = statistics.mean(map(_pss_mib, shims))
    finally:
        up.end()
    assert len(shims) == COUNT + 1
    note(f"shim {each:.3f} MiB, control plane and agent {grown:.3f} MiB")
    note(f"Popen keeps {_popen_mib(tmp_path):.3f} MiB in its caller for each")
    figure("MiB for each task", each + grown, MEMORY_LIMIT_MIB, "MiB")


def _launch(folder: Path, number: int) -> TaskLaunch:
    place = folder / "allocations" / str(number)
    return TaskLaunch(
        allocation_id=AllocationId(f"a{number}"),
        allocation_name=f"bench.app[{number}]",
        job="bench",
        group="app",
        task="sleep",
        attempt=1,
        digest="",
        config=TaskConfig(command=COMMAND),
        environment={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        resources=Resources(cpu_millicores=Millicores(100), memory_bytes=Bytes(64 * 1024**2)),
        user="",
        task_dir=place / "sleep",
        logs_dir=place / "logs",
        logs=LogLimits(),
    )


def _end_all(driver: ProcessDriver) -> None:
    handles = driver.recover()
    for handle in handles:
        driver.kill(handle)
    for handle in handles:
        while driver.status(handle).state == "running":
            time.sleep(0.01)
        driver.remove(handle)


def _popen_mib(folder: Path) -> float:
    """What the caller of `Popen` grows by for each."""
    before = _pss_mib(os.getpid())
    with ExitStack() as ending:
        for number in range(COUNT):
            ending.enter_context(plain_process(COMMAND, folder / f"popen-{number}"))
        return (_pss_mib(os.getpid()) - before) / COUNT


def _pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
