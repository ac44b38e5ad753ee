"""A task that writes as fast as it can, for some seconds, beside one that writes its clock every 50 ms.

Its logs stay within their limit on disk, the agent grows by at most 32 MiB, and the other task's newest line is at most
1 s old when it is asked for over the API. The rate is told beside `cat`, which moves the same bytes through a pipe to
nowhere; the shim need not keep up with it, as a full pipe makes the task wait.
"""

import contextlib
import statistics
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import requests

from tests.bench.measure import figure, note, title
from tests.e2e.cluster import Up

SECONDS = 8.0
LOOK_SECONDS = 0.1
MEMORY_MIB, DELAY_SECONDS = 32.0, 1.0
MAX_FILES, MAX_MIB = 3, 4
_STREAMS = 2
_BLOCK = "x" * 1024
_JOB = """
kind: Job
name: {name}
update: {{min_healthy_time: 0s}}
groups:
  - tasks:
      - config: {{command: [sh, -c, {script}]}}
        resources: {{cpu: 0.01, memory: 16MiB}}
        logs: {{max_files: {max_files}, max_size: {max_mib}MiB}}
        kill_timeout: 1s
"""


def test_a_flood_of_output(tmp_path: Path) -> None:
    title(f"A flood of output for {SECONDS:g} s")
    up = Up(tmp_path)
    try:
        up.specs.write("clock.yaml", _job("clock", "while :; do date +%s.%N; sleep 0.05; done"))
        up.start()
        up.api.until_running("clock", 1)
        server = psutil.Process(up.running.pid)
        quiet = [_age(up) for _ in range(10)]
        before = server.memory_info().rss
        up.specs.write("flood.yaml", _job("flood", f"exec yes {_BLOCK}"))
        flood = psutil.Process(next(iter(up.api.until_running("flood", 1).values()))[0])
        written, began = _written(flood), time.perf_counter()
        ages: list[float] = []
        most_disk = most_memory = 0
        while time.perf_counter() - began < SECONDS:
            ages.append(_age(up))
            most_disk = max(most_disk, _on_disk(tmp_path))
            most_memory = max(most_memory, server.memory_info().rss)
            time.sleep(LOOK_SECONDS)
        rate = (_written(flood) - written) / (time.perf_counter() - began) / 1024**2
    finally:
        up.end()
    note(f"{rate:.0f} MiB/s, through a pipe to `cat` {_through_a_pipe():.0f} MiB/s")
    note(f"the other task's line is {statistics.median(quiet):.3f} s old without a flood")
    limit = MAX_FILES * MAX_MIB * _STREAMS
    figure("on disk", most_disk / 1024**2, limit, "MiB")
    figure("the agent grows by", (most_memory - before) / 1024**2, MEMORY_MIB, "MiB")
    figure("another task's newest line is old, at most", max(ages), DELAY_SECONDS, "s")


def _job(name: str, script: str) -> str:
    return _JOB.format(name=name, script=f'"{script}"', max_files=MAX_FILES, max_mib=MAX_MIB)


def _age(up: Up) -> float:
    """How old the clock's newest line is when its logs have been asked for, the question's time included."""
    allocation = up.api.allocations("clock")[0]["id"]
    answer = requests.get(f"{up.running.url}/allocations/{allocation}/logs", params={"tail": "1"}, timeout=30)
    answer.raise_for_status()
    return datetime.now(UTC).timestamp() - float(answer.text.strip() or 0)


def _written(process: psutil.Process) -> int:
    return int(process.io_counters().write_chars)


def _on_disk(folder: Path) -> int:
    """Bytes of all log files: what the clock writes is next to nothing."""
    total = 0
    for path in folder.rglob("*.std*"):
        with contextlib.suppress(FileNotFoundError):  # It is rotated meanwhile.
            total += path.stat().st_size
    return total


def _through_a_pipe() -> float:
    """MiB/s of the same program into `cat`, for a second."""
    with subprocess.Popen(["yes", _BLOCK], stdout=subprocess.PIPE) as source:
        with subprocess.Popen(["cat"], stdin=source.stdout, stdout=subprocess.DEVNULL) as reader:
            began, process = time.perf_counter(), psutil.Process(source.pid)
            time.sleep(1)
            rate = _written(process) / (time.perf_counter() - began) / 1024**2
            reader.kill()
        source.kill()
    return rate
