"""The cgroups of one task, as its shim uses them: made, joined, emptied, removed.

Which there are and what limits stand in them is decided by the agent (`agent/drivers/cgroup.py`). The first one
tracks the task's processes and is killed as a whole; the others carry limits. There may be none.
"""

import os
import signal


def make(folder: str, settings: dict[str, str]) -> None:
    """Makes a cgroup and writes its limits. A repeat writes them again."""
    try:
        os.mkdir(folder, 0o755)
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(folder, 0o755, exist_ok=True)
    for name, value in settings.items():
        write(f"{folder}/{name}", value)


def join(folder: str) -> None:
    """Moves the calling process into a cgroup."""
    write(f"{folder}/cgroup.procs", "0")


def kill(folder: str) -> bool:
    """Kills every process of a cgroup at once; whether it held any, so that the caller comes back until it does not.

    `cgroup.kill` (Linux 5.14) also ends what is being forked meanwhile. Without it each process listed is killed,
    held by a descriptor and looked up once more, so that a reused pid is never hit.
    """
    found = processes(folder)
    try:
        write(f"{folder}/cgroup.kill", "1")
    except FileNotFoundError:
        _kill_listed(folder, found)
    except OSError:
        return False
    return bool(found)


def processes(folder: str) -> list[int]:
    """Pids in a cgroup; those of another pid namespace (0) are left out."""
    try:
        with open(f"{folder}/cgroup.procs", "rb") as listing:
            return [pid for line in listing if (pid := int(line))]
    except OSError:
        return []


def _kill_listed(folder: str, found: list[int]) -> None:
    held = {}
    for pid in found:
        try:
            held[pid] = os.pidfd_open(pid)
        except OSError:
            continue
    still = set(processes(folder))
    for pid, descriptor in held.items():
        try:
            if pid in still:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)


def out_of_memory_kills(folder: str) -> int:
    """How many processes of a cgroup were killed because its memory ran out (v1 or v2 form)."""
    for name in ("memory.events", "memory.oom_control"):
        try:
            with open(f"{folder}/{name}", "rb") as counters:
                for line in counters:
                    if line.startswith(b"oom_kill "):
                        return int(line.split()[1])
        except OSError:
            continue
    return 0


def remove(folder: str) -> None:
    """Removes a cgroup; one that is gone or still in use is left to the agent."""
    try:
        os.rmdir(folder)
    except OSError:
        return


def write(path: str, value: str) -> None:
    """Writes one value into a file of a cgroup."""
    written = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(written, value.encode())
    finally:
        os.close(written)
