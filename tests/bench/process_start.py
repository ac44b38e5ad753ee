"""Starts of the process driver beside plain `Popen` and supervisord, and the memory of a shim.

Run by `python -m tests.bench.process_start [COUNT]`. All three start the same sleeping processes in one run,
each with a folder, two log files and an environment of its own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import msgspec

from agent.doors import TaskLaunch
from agent.drivers.accounts import ProcessPolicy
from agent.drivers.process import ProcessDriver
from trueup.models.ids import AllocationId
from trueup.models.job import LogLimits, Resources, TaskConfig
from trueup.models.units import Bytes, Millicores

_THREADS = 4
_PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def main(count: int) -> None:
    """Prints the figures."""
    folder = Path(tempfile.mkdtemp(prefix="trueup-bench-"))
    try:
        driver = _with_driver(folder, count)
        popen = _with_popen(folder, count)
        supervisord = _with_supervisord(folder, count)
        click.echo(f"driver      {count / driver:6.0f} starts/s")
        click.echo(
            f"Popen       {count / popen:6.0f} starts/s; the driver has {popen / driver:.2f} of its rate"
        )
        click.echo(
            f"supervisord {count / supervisord:6.0f} starts/s; the driver takes {driver / supervisord:.2f} of its time"
        )
    finally:
        shutil.rmtree(folder)


def _with_driver(folder: Path, count: int) -> float:
    driver = ProcessDriver(folder / "agent", lambda _: None, policy=ProcessPolicy(enabled=True, root=True))
    driver.start(_launch(folder, count))
    with ThreadPoolExecutor(_THREADS) as threads:
        seconds = _timed(
            lambda: list(threads.map(lambda number: driver.start(_launch(folder, number)), range(count)))
        )
    shims = list(folder.glob("agent/tasks/*/*/*/state.json"))
    pids = [msgspec.json.decode(path.read_bytes())["shim_pid"] for path in shims]
    click.echo(f"shim        {sum(map(_pss_kib, pids)) / len(pids) / 1024:6.2f} MiB each (PSS)")
    handles = driver.recover()
    for handle in handles:
        driver.kill(handle)
    while any(driver.status(handle).state == "running" for handle in handles):
        time.sleep(0.01)
    driver.close()
    return seconds


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
        config=TaskConfig(command=("sleep", "300")),
        environment=_PATH,
        resources=Resources(cpu_millicores=Millicores(100), memory_bytes=Bytes(64 * 1024**2)),
        user="",
        task_dir=place / "sleep",
        logs_dir=place / "logs",
        logs=LogLimits(),
    )


def _with_popen(folder: Path, count: int) -> float:
    started: list[subprocess.Popen[bytes]] = []

    def start_all() -> None:
        for number in range(count):
            place = folder / "popen" / str(number)
            place.mkdir(parents=True)
            with place.joinpath("out").open("wb") as output, place.joinpath("err").open("wb") as errors:
                started.append(
                    subprocess.Popen(
                        ["sleep", "300"],
                        cwd=place,
                        env=_PATH,
                        stdout=output,
                        stderr=errors,
                        start_new_session=True,
                    )
                )

    seconds = _timed(start_all)
    for process in started:
        process.kill()
    for process in started:
        process.wait()
    return seconds


def _with_supervisord(folder: Path, count: int) -> float:
    place = folder / "supervisord"
    place.mkdir()
    config = place / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={place}/log\npidfile={place}/pid\nchildlogdir={place}\n"
        + ("user=root\n" if os.geteuid() == 0 else "")
        + f"[program:bench]\ncommand=sleep 300\nnumprocs={count}\nprocess_name=%(process_num)d\nstartsecs=0\n"
    )
    program = Path(sys.executable).with_name("supervisord")
    with subprocess.Popen([program, "-c", config], stdout=subprocess.DEVNULL) as supervisord:
        seconds = _timed(lambda: _await_children(supervisord.pid, count))
        supervisord.terminate()
    return seconds


def _await_children(pid: int, count: int) -> None:
    while len(Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()) < count:
        time.sleep(0.005)


def _pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
