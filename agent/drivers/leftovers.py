"""Ends what a task left when its shim cannot do it any more: by cgroup, or by the mark in its environment."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.drivers.shim import cgroups
from agent.drivers.task_folder import RunRecord
from trueup.models.ids import AllocationId

_WAIT_SECONDS = 0.5


def in_use(cgroup: str) -> bool:
    """Whether a cgroup holds processes."""
    return bool(cgroup) and bool(cgroups.processes(cgroup))


def kill_cgroup(cgroup: str) -> None:
    """Kills all of a cgroup; where the kernel needs it said again, until none is left or a moment has passed."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while cgroup and cgroups.kill(cgroup) and time.monotonic() < deadline:
        if Path(cgroup, "cgroup.kill").exists():
            return
        time.sleep(0.01)


def remove_cgroups(folders: Iterable[str]) -> None:
    """Removes a task's cgroups; those that are gone are."""
    for folder in folders:
        cgroups.remove(folder)


def end(allocation_id: AllocationId, task: str, run: RunRecord, main: int | None) -> None:
    """Kills what is left of a task whose shim is gone; *main* is a descriptor of its main process, if that lives."""
    if main is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(main, signal.SIGKILL)
    if run.cgroups:
        kill_cgroup(run.cgroups[0])
        deadline = time.monotonic() + _WAIT_SECONDS
        while in_use(run.cgroups[0]) and time.monotonic() < deadline:
            time.sleep(0.01)
        return
    for descriptor in _marked(allocation_id, task):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def survives(process: int) -> bool:
    """Whether a process that was killed is there after a moment: in uninterruptible sleep it stays for longer."""
    poller = select.poll()
    poller.register(process, select.POLLIN)
    return not poller.poll(_WAIT_SECONDS * 1000)


def _marked(allocation_id: AllocationId, task: str) -> Iterator[int]:
    """Descriptors of all processes that were started with this task's identity in their environment.

    The environment of a process is read after its descriptor was opened and belongs to no other one.
    """
    marks = {f"TRUEUP_ALLOC_ID={allocation_id}".encode(), f"TRUEUP_TASK_NAME={task}".encode()}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            descriptor = os.pidfd_open(int(process.name))
        except OSError:
            continue
        try:
            environment = set(process.joinpath("environ").read_bytes().split(b"\0"))
        except OSError:
            environment = set()
        if marks <= environment:
            yield descriptor
        else:
            os.close(descriptor)
