"""Who a process is: boot id, pid and start time, so that a reused pid is never taken for the task.

A pid alone names whatever process has it now. The kernel's descriptor of a process (pidfd) stays with that one, so
it is opened first and compared after: what matches then is the process itself, whatever happens to its pid later.
"""

import contextlib
import hashlib
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

from agent.drivers.shim.system import start_ticks
from trueup.models.codec import Model

BootId = Callable[[], str]


class ProcessIdentity(Model, frozen=True, kw_only=True):
    """A process of this machine, for as long as *boot_id* holds; *start_ticks* is field 22 of `/proc/PID/stat`."""

    boot_id: str
    pid: int
    start_ticks: int


def read_boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def read_machine_id() -> str:
    """The id of this installation, the same after every boot; empty where it has none."""
    try:
        return Path("/etc/machine-id").read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def machine_mark(machine_id: str) -> str:
    """What the control plane is told instead of a machine's id, which is not to leave it; empty for none."""
    return hashlib.sha256(f"trueup {machine_id}".encode()).hexdigest()[:32] if machine_id else ""


def folder_mark(folder: Path) -> str:
    """What tells a folder from its copies for as long as the machine is not restarted."""
    found = folder.stat()
    return f"{found.st_dev}:{found.st_ino}"


def open_process(identity: ProcessIdentity, boot_id: str) -> int | None:
    """A descriptor of exactly that process, to be closed by the caller; None if it is no more.

    A zombie is still opened: it has ended, and `has_ended` says so. OSError where it cannot be known, as without a
    descriptor that is free.
    """
    if identity.boot_id != boot_id:
        return None
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    try:
        same = start_ticks(identity.pid) == identity.start_ticks
    except (FileNotFoundError, ProcessLookupError, ValueError):
        same = False
    except OSError:
        os.close(descriptor)
        raise
    if not same:
        os.close(descriptor)
        return None
    return descriptor


def has_ended(descriptor: int) -> bool:
    """Whether the process of a descriptor has ended, reaped or not."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


def send_signal(identity: ProcessIdentity, boot_id: str, number: int) -> None:
    """Signals exactly that process; nothing happens if it is no more."""
    descriptor = open_process(identity, boot_id)
    if descriptor is None:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)
