"""The small warm process that shims are forked from: one an agent, ended with it; the shims stay.

A Python started for each task would take three times the memory and a quarter of the rate, and a fork of the agent
itself would drag its whole heap along (measured in the decision record on shims). So this one imports what a shim
needs, keeps its heap as it is, and forks. It reads no order: that goes from the agent to the shim directly.
"""

import gc
import os
import signal
import socket

from . import cgroups, records, system, watcher
from .rehearsal import rehearse

_OOM_SCORE = -900


def main(asking: int, scratch: str, cgroup_folders: list[str]) -> None:
    """Forks a shim for each descriptor that arrives on the socket *asking*, until the agent closes its end."""
    os.set_inheritable(asking, False)
    rehearse(scratch)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # The kernel reaps shims; nobody waits for them.
    system.name_process("trueup-spawner")
    system.protect_from_oom(_OOM_SCORE)
    for folder in cgroup_folders:
        cgroups.make(folder, {})
        cgroups.join(folder)
    gc.disable()
    gc.freeze()
    _fork_as_asked(socket.socket(fileno=asking))


def _fork_as_asked(asking: socket.socket) -> None:
    while True:
        _, passed, _, _ = socket.recv_fds(asking, 1, 1)
        if not passed:
            return
        for descriptor in passed:
            # Or the task would hold the answer open, and the agent wait for it.
            os.set_inheritable(descriptor, False)
            try:
                shim = os.fork()
            except OSError:  # No room for a process: the agent sees its end closed without an answer.
                shim = -1
            if shim == 0:
                asking.close()
                _be_a_shim(descriptor)
            os.close(descriptor)


def _be_a_shim(descriptor: int) -> None:
    try:
        os.setsid()
        system.set_signal(signal.SIGCHLD, system.DEFAULT)
        system.name_process("trueup-shim")
        system.adopt_orphans()
        watcher.run(socket.socket(fileno=descriptor))
    except BaseException as error:  # noqa: BLE001 - a shim must not go on as a second spawner
        records.note_crash(error)
    finally:
        os._exit(0)
