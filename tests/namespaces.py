"""Commands in namespaces of their own: a machine whose pids a test may give out, and which it may restart."""

import subprocess
from pathlib import Path
from typing import Final

NEXT_PID: Final = Path("/proc/sys/kernel/ns_last_pid")
_AS_INIT: Final = '"$@" & wait $!'
"""The shell is the first process of the namespace, and reaps what is left to it."""


def in_own_pids(*command: str) -> list[str]:
    """*command* in a PID namespace with its own `/proc`; all of it ends when the namespace's first process does."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    return [*unshare, "sh", "-c", _AS_INIT, "init", *command]


def a_process_with(pid: int, *command: str) -> subprocess.Popen[bytes]:
    """Starts *command* with exactly that pid, which must be free, in the caller's own PID namespace."""
    for _ in range(1000):
        NEXT_PID.write_text(str(pid - 1))
        process = subprocess.Popen(command)
        if process.pid == pid:
            return process
        process.kill()
        process.wait()
    raise AssertionError(f"pid {pid} was never given out")
