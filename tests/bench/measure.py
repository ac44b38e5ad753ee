"""How a benchmark measures and says what it found: both sides in one run, in turns, by their medians.

Machines are noisy and differ, so no time stands alone: each figure is told beside a reference measured in the same
minutes, and its limit is a ratio, a difference or CPU time. A figure that misses its limit is printed as missed and
fails nothing: that is for a person to judge, who also sees the load of the machine.
"""

import contextlib
import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import click
import psutil

Work = Callable[[], float]
"""Does a thing once and returns its seconds."""


def in_turns(rounds: int, *works: Work) -> list[list[float]]:
    """The seconds of each work in each round; the works take turns, every round begins with another of them."""
    taken: list[list[float]] = [[] for _ in works]
    for number in range(rounds):
        for position in range(len(works)):
            which = (number + position) % len(works)
            taken[which].append(works[which]())
    return taken


def timed(work: Callable[[], object]) -> float:
    """Seconds by the wall clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cpu_timed(work: Callable[[], object]) -> float:
    """Seconds of CPU this process used, all its threads together."""
    began = time.process_time()
    work()
    return time.process_time() - began


def cpu_timed_with_children(work: Callable[[], object]) -> float:
    """Seconds of CPU this process used, and the processes that it ran to their end."""
    began = os.times()
    work()
    ended = os.times()
    return sum(ended[:4]) - sum(began[:4])


def cpu_of_family(pid: int) -> float:
    """Seconds of CPU that a process and all it started, as far as they still run, have used so far."""
    return cpu_of([pid, *(one.pid for one in psutil.Process(pid).children(recursive=True))])


def cpu_of(pids: Iterable[int]) -> float:
    """Seconds of CPU that processes which run have used so far."""
    spent = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            # In nanoseconds, where `stat` has hundredths of a second: a small process takes less than one.
            for thread in Path(f"/proc/{pid}/task").iterdir():
                spent += int(thread.joinpath("schedstat").read_text().split()[0]) / 1e9
    return spent


def percentile_95(seconds: Sequence[float]) -> float:
    """What 95 of 100 are within; of fewer than 20, the most."""
    ordered = sorted(seconds)
    return ordered[math.ceil(0.95 * len(ordered)) - 1]


def title(text: str) -> None:
    """The heading of a figure, with the load it was measured under."""
    load = os.getloadavg()[0]
    click.echo(f"\n{text}  [{os.cpu_count()} CPUs, load {load:.1f}]")


def sample(name: str, seconds: Sequence[float]) -> None:
    """Median, least and most of one side."""
    middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
    click.echo(f"  {name:<58} {_ms(middle)}  ({_ms(least)} .. {_ms(most)}, n={len(seconds)})")


def figure(name: str, value: float, limit: float, unit: str) -> None:
    """One figure and whether it is within its limit (at most *limit*)."""
    verdict = "ok" if value <= limit else "MISSED"
    click.echo(f"  {name:<58} {value:9.3f} {unit}, at most {limit:.3g}: {verdict}")


def at_least(name: str, value: float, limit: float, unit: str) -> None:
    """One figure and whether it reaches its limit."""
    verdict = "ok" if value >= limit else "MISSED"
    click.echo(f"  {name:<58} {value:9.3f} {unit}, at least {limit:.3g}: {verdict}")


def note(text: str) -> None:
    """A line that has no limit."""
    click.echo(f"  {text}")


class Announcements:
    """Hears processes say that they run: each writes one line into a named pipe as the first thing it does.

    So the wait ends when the process runs, not at the next look, and looking costs nothing meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "announcements"
        os.mkfifo(self.path)
        # Open for both: writers never wait for a reader, and there is no end of file between two of them.
        self._descriptor = os.open(self.path, os.O_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    @property
    def command(self) -> list[str]:
        """What announces itself and then sleeps."""
        return ["/bin/sh", "-c", f"echo > {self.path}; exec sleep 3600"]

    def wait(self, count: int = 1) -> None:
        """Returns when *count* more processes run."""
        while count > 0:
            count -= len(os.read(self._descriptor, count))


@contextmanager
def plain_process(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process as `Popen` starts it, with a folder, two log files, an environment; killed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with folder.joinpath("out").open("wb") as output, folder.joinpath("err").open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"]},
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:8.1f} ms"
