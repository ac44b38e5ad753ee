"""How many processors and how much memory tasks of this agent can use at most: the machine's, or less in a container.

In a container the numbers of `/proc` are the host's, but its cgroup holds all that runs there. Which cgroups hold the
tasks is known from where they are made (`agent.drivers.cgroup`): an agent that is root makes them at the top of what it
sees, so that limits of its own unit do not concern them; another makes them beneath its own.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from agent.drivers.cgroup import Hierarchy, read_hierarchies

_SELF: Final = Path("/proc/self")


def memory_bytes(*, proc: Path = _SELF) -> int:
    """Of the machine, or of the tightest cgroup around tasks."""
    total = psutil.virtual_memory().total
    return min([total, *(found for folder in _around_tasks(proc) if (found := _memory_limit(folder)))])


def cpu_millicores(*, proc: Path = _SELF) -> int:
    """Of the processors this process may run on, or of the tightest quota of a cgroup around tasks."""
    cores = min(psutil.cpu_count() or 1, len(os.sched_getaffinity(0)))
    return min([cores * 1000, *(found for folder in _around_tasks(proc) if (found := _cpu_quota(folder)))])


def _around_tasks(proc: Path) -> Iterator[Path]:
    try:
        hierarchies = read_hierarchies(proc)
    except OSError:
        return
    for hierarchy in hierarchies:
        yield from _upwards(hierarchy) if os.geteuid() else (hierarchy.mount,)


def _upwards(hierarchy: Hierarchy) -> Iterator[Path]:
    for folder in (hierarchy.own, *hierarchy.own.parents):
        yield folder
        if folder == hierarchy.mount:
            return


def _memory_limit(folder: Path) -> int | None:
    """In bytes; None where there is none (v1 says that by a number beyond every machine)."""
    return _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")


def _cpu_quota(folder: Path) -> int | None:
    """In millicores; None where there is none."""
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if quota is None:
        words = _text(folder / "cpu.max").split()
        quota, period = (int(words[0]), int(words[1])) if words and words[0].isdigit() else (None, None)
    return max(quota * 1000 // period, 1) if quota and period else None


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except (OSError, ValueError):
        return ""
