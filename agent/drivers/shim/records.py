"""The files in which a shim says what it did: `state.json` once its task's process exists, `exit.json` at its end.

`exit.reserved` is locked by the one shim that may start the task, for as long as that shim lives, and becomes
`exit.json`. Who holds the lock and finds no `state.json` knows that the task never ran: the record is written before
the task's program is let go.
"""

import contextlib
import fcntl
import json
import os

STATE = "state.json"
EXIT = "exit.json"
RESERVED = "exit.reserved"
CRASH = "shim.crash"
_RESERVED_BYTES = 2048


def claim(folder: int) -> int | None:
    """Takes the one right to start this task: the descriptor that holds it, or None if another has it."""
    held = os.open(RESERVED, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    return held


def exists(folder: int, name: str) -> bool:
    """Whether *folder* has an entry of that name."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def write_state(folder: int, state: dict[str, object]) -> None:
    """Writes `state.json` whole or not at all. Not synced: it matters within this boot alone."""
    temporary = STATE + ".new"
    written = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        _write_all(written, json.dumps(state).encode())
    finally:
        os.close(written)
    os.rename(temporary, STATE, src_dir_fd=folder, dst_dir_fd=folder)


def reserve_exit(claimed: int) -> None:
    """Takes the room that `exit.json` will need, so that a disk which is full by then cannot lose the end."""
    os.ftruncate(claimed, 0)
    _write_all(claimed, b" " * _RESERVED_BYTES)


def write_exit(folder: int, end: dict[str, object]) -> None:
    """Writes `exit.json` so that it survives a loss of power: write, sync, rename, sync of the folder."""
    text = json.dumps(end).encode().ljust(_RESERVED_BYTES)
    reserved = os.open(RESERVED, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        _write_all(reserved, text)
        os.fsync(reserved)
    finally:
        os.close(reserved)
    os.rename(RESERVED, EXIT, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def note_crash(error: BaseException) -> None:
    """Leaves what ended a shim before its task in the folder it was in, for the agent to show."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    line = place.tb_lineno if place is not None else 0
    with contextlib.suppress(OSError), open(CRASH, "w", encoding="utf-8") as note:
        note.write(f"{error!r} at line {line}")


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
