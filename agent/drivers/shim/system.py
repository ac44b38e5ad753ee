"""What the shim asks of Linux that Python's library does not offer."""

import _signal  # type: ignore[import-not-found] # typeshed has the public module alone
import ctypes
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def _set(option: int, value: object) -> None:
    if _prctl(option, value, 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent ends, so that none escapes its reaper."""
    _set(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal_number: int) -> None:
    """Has the kernel send *signal_number* to this process when its parent ends. A change of user undoes it."""
    _set(_PR_SET_PDEATHSIG, signal_number)


IGNORED = _signal.SIG_IGN
DEFAULT = _signal.SIG_DFL


def set_signal(number: int, action: object) -> None:
    """What this process does on a signal: `IGNORED`, `DEFAULT` or a handler.

    As `signal.signal`, without the enums it makes of what was before: they alone cost each shim 60 KiB of its own.
    """
    _signal.signal(number, action)


def name_process(name: str) -> None:
    """Names this process in `ps` and `top`; 15 bytes at most are kept."""
    _set(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the boot id, what tells a pid from its reuse.

    Source: field 22 of `/proc/PID/stat`.
    """
    return int(_stat_after_name(pid)[19])


def _stat_after_name(pid: int) -> list[bytes]:
    """The fields of `/proc/PID/stat` behind the second, the name, which may itself hold spaces and brackets."""
    stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(stat, 4096)
    finally:
        os.close(stat)
    return text[text.rindex(b")") + 2 :].split()


def children(pid: int) -> list[int]:
    """The direct children of a process, its zombies too."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as listing:
            return [int(child) for child in listing.read().split()]
    except OSError:  # A kernel without CONFIG_PROC_CHILDREN.
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and parent(int(name)) == pid]


def parent(pid: int) -> int:
    """The parent of a process; 0 if that process is no more."""
    try:
        return int(_stat_after_name(pid)[1])
    except OSError:
        return 0


def protect_from_oom(score: int) -> None:
    """Sets how soon the kernel picks this process when memory runs out; without the right to, nothing happens."""
    try:
        adjust = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(adjust, str(score).encode())
    except OSError:
        pass
    finally:
        os.close(adjust)
