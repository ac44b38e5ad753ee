"""The resource limits of process tasks: the same on every node, whatever the agent itself was started with.

The defaults are those that systemd gives a service, so that a program behaves under trueup as it does under its unit:
few descriptors at first, since some programs walk over all they may have, and as many as one asks for itself.
"""

import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from agent.doors import DriverError
from agent.drivers.shim.limits import Limit
from trueup.models.ulimits import UNLIMITED, soft_and_hard

_CAP_SYS_RESOURCE: Final = 24
_MIB: Final = 1024**2
_LOCKS: Final = 10
"""Has no name in Python's library, and the same number on every processor."""
_NUMBERS: Final[Mapping[str, int]] = {
    "as": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "locks": _LOCKS,
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
    "nice": resource.RLIMIT_NICE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "rss": resource.RLIMIT_RSS,
    "rtprio": resource.RLIMIT_RTPRIO,
    "rttime": getattr(resource, "RLIMIT_RTTIME", 15),
    "sigpending": resource.RLIMIT_SIGPENDING,
    "stack": resource.RLIMIT_STACK,
}
_ROWS: Final[Mapping[int, str]] = {
    resource.RLIMIT_AS: "Max address space",
    resource.RLIMIT_CORE: "Max core file size",
    resource.RLIMIT_CPU: "Max cpu time",
    resource.RLIMIT_DATA: "Max data size",
    resource.RLIMIT_FSIZE: "Max file size",
    resource.RLIMIT_MEMLOCK: "Max locked memory",
    resource.RLIMIT_MSGQUEUE: "Max msgqueue size",
    resource.RLIMIT_NICE: "Max nice priority",
    resource.RLIMIT_NOFILE: "Max open files",
    resource.RLIMIT_NPROC: "Max processes",
    resource.RLIMIT_RSS: "Max resident set",
    resource.RLIMIT_RTPRIO: "Max realtime priority",
    resource.RLIMIT_SIGPENDING: "Max pending signals",
    resource.RLIMIT_STACK: "Max stack size",
}
"""How `/proc/PID/limits` names them."""
DEFAULTS: Final[Mapping[str, tuple[int, int]]] = {
    **dict.fromkeys(_NUMBERS, (UNLIMITED, UNLIMITED)),
    "core": (0, UNLIMITED),
    "memlock": (8 * _MIB, 8 * _MIB),
    "msgqueue": (819_200, 819_200),
    "nice": (0, 0),
    "nofile": (1024, 524_288),
    "rtprio": (0, 0),
    "sigpending": (65_536, 65_536),
    "stack": (8 * _MIB, UNLIMITED),
}
"""Soft and hard. `nproc` is none: it counts all processes of a user, whosever they are, and a cgroup bounds a task."""


def limits_of_task(asked: Mapping[str, Any]) -> list[Limit]:
    """All limits of a task whose `config.ulimits` are *asked*. DriverError for one that there is not."""
    return list(_limits(asked))


def limits_of_process(pid: int) -> list[Limit]:
    """Those a process has now. OSError if it is gone.

    From `/proc`, which says it also of another user's process, where `prlimit` wants a capability of its own.
    """
    found = []
    for line in Path(f"/proc/{pid}/limits").read_text("ascii", "replace").splitlines():
        for number, row in _ROWS.items():
            if line.startswith(row):
                soft, hard = (_amount(one) for one in line.removeprefix(row).split()[:2])
                found.append((number, soft, hard, ""))
    return found


def hard_limits() -> dict[str, int] | None:
    """The most that tasks of this agent can be given, where there is less than everything; None: there is not."""
    if _may_raise():
        return None
    found = {name: resource.getrlimit(number)[1] for name, number in _NUMBERS.items()}
    return {name: hard for name, hard in found.items() if hard != UNLIMITED}


def _amount(text: str) -> int:
    return UNLIMITED if text == "unlimited" else int(text)


def _limits(asked: Mapping[str, Any]) -> Iterator[Limit]:
    for name, (soft, hard) in DEFAULTS.items():
        if name not in asked:
            yield _NUMBERS[name], soft, hard, ""
    for name, limit in asked.items():
        if name not in _NUMBERS:
            raise DriverError(f"config.ulimits: {name} is no limit; there are {', '.join(sorted(_NUMBERS))}")
        soft, hard = soft_and_hard(limit)
        yield _NUMBERS[name], soft, hard, name


def _may_raise() -> bool:
    """Whether this process may raise a hard limit: root may, unless a container took the capability from it."""
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False
