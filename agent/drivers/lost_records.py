"""What runs of a task whose records were lost while it ran: read from its cgroup and from `/proc`.

The record made of it is as good as the shim's own but for the shim's socket, which was lost with the folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from agent.drivers.shim import cgroups, system
from agent.drivers.task_folder import RunRecord

_SHIM: Final = "trueup-shim"


def record_of(folders: Sequence[str], boot_id: str) -> RunRecord | None:
    """The record of the task in these cgroups (the tracking one first); None if nothing of it runs.

    Where its shim is gone as well, its main process takes the shim's place: there is no other end to wait for.
    """
    main = _main_process(folders[0]) if folders else None
    if main is None:
        return None
    try:
        pid, ticks = main, system.start_ticks(main)
        started_at = psutil.Process(pid).create_time()
        shim = system.parent(pid)
        if _name(shim) != _SHIM:
            shim = pid
        shim_ticks = system.start_ticks(shim)
    except (OSError, ValueError, psutil.Error):
        return None
    if pid not in cgroups.processes(folders[0]):
        return None  # It has ended, and what was read may be another's.
    return RunRecord(
        boot_id=boot_id,
        pid=pid,
        start_ticks=ticks,
        shim_pid=shim,
        shim_start_ticks=shim_ticks,
        started_at=started_at,
        cgroups=tuple(folder for folder in folders if Path(folder).is_dir()),
        rebuilt=True,
    )


def _main_process(cgroup: str) -> int | None:
    """The oldest of those whose parent is outside: the others were left to the shim by their own parents later."""
    inside = cgroups.processes(cgroup)
    roots: list[tuple[int, int]] = []
    for pid in inside:
        try:
            if system.parent(pid) not in inside:
                roots.append((system.start_ticks(pid), pid))
        except (OSError, ValueError):
            continue
    return min(roots)[1] if roots else None


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
