"""200 processes from one commit, beside supervisord starting the same 200 (`startsecs=0`): at most 1.5 times its time.
And a change of 10 of the 200 beside its `update`: at most 0.2 of its time.

The CPU of both is told too: on a machine that others use, many processes get a greater share of it than one.
Both are counted from the act of the user, a commit or the start of supervisord, to the moment when the last of the
200 runs.
"""

import itertools
import json
import shutil
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench.measure import (
    Announcements,
    Work,
    cpu_of_family,
    figure,
    in_turns,
    note,
    sample,
    title,
)
from tests.bench.peers import Program, Supervisord
from tests.e2e.cluster import Up
from tests.unit.sources_io.repository import Repo

COUNT = 200
ROUNDS = 5
LIMIT = 1.5
CHANGED, CHANGED_LIMIT = 10, 0.2
_JOB = """\
kind: Job
name: {name}
update: {{min_healthy_time: 0s, max_parallel: 0}}
groups:
  - count: {count}
    tasks:
      - config: {{command: {command}}}
        env: {{RELEASE: "{release}"}}
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


def test_ten_of_two_hundred_changed(tmp_path: Path) -> None:
    title(f"{CHANGED} of {COUNT} processes changed, all at once allowed, beside supervisord")
    with Announcements(tmp_path) as announcements, ExitStack() as ending:
        repo = Repo(tmp_path / "repo")
        up = Up(tmp_path, "--git", str(repo.path), "--cpu", "64")
        ending.callback(up.end)
        names = [f"one-{number}" for number in range(COUNT)]
        repo.commit({f"{name}.yaml": _job(name, 1, announcements) for name in names})
        up.start()
        announcements.wait(COUNT)
        up.api.until_running(names[0], 1)
        peer = Supervisord(tmp_path / "supervisord")
        command = announcements.command
        programs = {name: Program(command=command, count=1) for name in names}
        peer.write(programs)
        ending.enter_context(peer.running())
        announcements.wait(COUNT)
        releases = itertools.count(1)

        def updated() -> float:
            changed = Program(command=[*command, str(next(releases))], count=1)
            peer.write({**programs, **dict.fromkeys(names[:CHANGED], changed)})
            began = time.perf_counter()
            peer.update()
            announcements.wait(CHANGED)
            return time.perf_counter() - began

        def committed() -> float:
            release = next(releases)
            changed: dict[str, str | None] = {
                f"{name}.yaml": _job(name, 1, announcements, release=release) for name in names[:CHANGED]
            }
            began = time.perf_counter()
            repo.commit(changed)
            announcements.wait(CHANGED)
            seconds = time.perf_counter() - began
            up.api.until_running(names[0], 1)
            return seconds

        reference, ours = in_turns(ROUNDS, updated, committed)
    sample("supervisorctl update", reference)
    sample("trueup, from the commit", ours)
    ratio = statistics.median(ours) / statistics.median(reference)
    figure("times supervisord's update", ratio, CHANGED_LIMIT, "x")


def _job(name: str, count: int, announcements: Announcements, *, release: int = 0) -> str:
    command = json.dumps(announcements.command)
    return _JOB.format(name=name, count=count, command=command, release=release)


def _live(up: Up, job: str) -> int:
    return sum(
        one["client_status"] in {"pending", "running"} for one in up.api.allocations(job, wanted=False)
    )


def _supervisord(folder: Path, announcements: Announcements, spent: list[float]) -> Work:
    def work() -> float:
        peer = Supervisord(folder)
        peer.write({"many": Program(command=announcements.command, count=COUNT)})
        began = time.perf_counter()
        with peer.running() as process:
            announcements.wait(COUNT)
            seconds = time.perf_counter() - began
            spent.append(cpu_of_family(process.pid))
        shutil.rmtree(folder)
        return seconds

    return work
