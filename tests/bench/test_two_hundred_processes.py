"""200 processes from one commit, beside supervisord starting the same 200 (`startsecs=0`): at most 2.5 times its time.

The CPU of both is told too: on a machine that others use, many processes get a greater share of it than one.
Both are counted from the act of the user, a commit or the start of supervisord, to the moment when the last of the
200 runs.
"""

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.bench.measure import Announcements, cpu_of_family, figure, in_turns, note, sample, title
from tests.e2e.cluster import Up
from tests.unit.sources_io.repository import Repo

COUNT = 200
ROUNDS = 5
LIMIT = 2.5
_JOB = """\
kind: Job
name: {name}
update: {{min_healthy_time: 0s, max_parallel: 0}}
groups:
  - count: {count}
    tasks:
      - config: {{command: {command}}}
        resources: {{cpu: 0.001, memory: 1MiB}}
"""


def test_two_hundred_processes(tmp_path: Path) -> None:
    title(f"{COUNT} processes from one commit, beside supervisord")
    spent: dict[str, list[float]] = {"supervisord": [], "trueup": []}
    with Announcements(tmp_path) as announcements, ExitStack() as ending:
        repo = Repo(tmp_path / "repo")
        up = Up(tmp_path, "--git", str(repo.path), "--cpu", "64")
        ending.callback(up.end)
        numbers = itertools.count()
        repo.commit({"base.yaml": _job("base", 1, announcements)})
        up.start()
        announcements.wait()
        up.api.until_running("base", 1)

        def committed() -> float:
            name = f"many-{next(numbers)}"
            text = _job(name, COUNT, announcements)
            before = cpu_of_family(up.running.pid)
            began = time.perf_counter()
            repo.commit({f"{name}.yaml": text})
            announcements.wait(COUNT)
            seconds = time.perf_counter() - began
            spent["trueup"].append(cpu_of_family(up.running.pid) - before)
            up.api.until(lambda: up.api.job(name)["groups"][0]["running"] == COUNT, 60)
            repo.commit({f"{name}.yaml": None})
            up.api.until(lambda: not _live(up, name), 60)
            return seconds

        reference, ours = in_turns(
            ROUNDS, _supervisord(tmp_path / "supervisord", announcements, spent["supervisord"]), committed
        )
    sample("supervisord, from its start", reference)
    sample("trueup, from the commit", ours)
    theirs, cpu = (statistics.median(spent[name]) for name in ("supervisord", "trueup"))
    note(
        f"CPU with all that was started: {cpu:.2f} s, supervisord {theirs:.2f} s; that is {cpu / theirs:.2f} times"
    )
    figure("times supervisord", statistics.median(ours) / statistics.median(reference), LIMIT, "x")


def _job(name: str, count: int, announcements: Announcements) -> str:
    return _JOB.format(name=name, count=count, command=json.dumps(announcements.command))


def _live(up: Up, job: str) -> int:
    return sum(
        one["client_status"] in {"pending", "running"} for one in up.api.allocations(job, wanted=False)
    )


def _supervisord(folder: Path, announcements: Announcements, spent: list[float]) -> Callable[[], float]:
    def work() -> float:
        folder.mkdir()
        config = folder / "supervisord.conf"
        shell, option, script = announcements.command
        config.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\nchildlogdir={folder}\n"
            + ("user=root\n" if os.geteuid() == 0 else "")
            + f"[program:many]\ncommand={shell} {option} '{script}'\nnumprocs={COUNT}\n"
            + "process_name=%(process_num)d\nstartsecs=0\n"
        )
        program = Path(sys.executable).with_name("supervisord")
        began = time.perf_counter()
        with subprocess.Popen([program, "-c", config], stdout=subprocess.DEVNULL) as supervisord:
            announcements.wait(COUNT)
            seconds = time.perf_counter() - began
            spent.append(cpu_of_family(supervisord.pid))
            supervisord.terminate()
        shutil.rmtree(folder)
        return seconds

    return work
