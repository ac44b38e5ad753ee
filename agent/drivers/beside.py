"""Runs an exec check beside a task whose shim cannot be asked: its socket was lost with the task's folder.

User, groups, environment, limits and working directory are read from the task's main process, the cgroups from its
record. What a program wrote over its own environment (some do, to set their title) is not known any more.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from agent.doors import DriverError
from agent.drivers.execution import TIMED_OUT, code_of, follow, said_of, text_of
from agent.drivers.identity import open_process
from agent.drivers.task_folder import RunRecord
from agent.drivers.ulimits import limits_of_process
from trueup.models.units import Duration

_BOOT: Final = (
    "import sys; sys.path.append(sys.argv[1]); from shim.beside import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)


def run_beside(run: RunRecord, boot_id: str, command: Sequence[str], timeout: Duration) -> tuple[int, str]:
    """As `execution.run_in_task`. DriverError if the task has ended."""
    deadline = time.monotonic() + timeout.total_seconds()
    with contextlib.ExitStack() as opened:
        task = open_process(run.main, boot_id)
        if task is None:
            raise DriverError("the task has ended; nothing can be run in it")
        opened.callback(os.close, task)
        try:
            folder = os.open(f"/proc/{run.pid}/cwd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, folder)
            order = {**_surroundings(run.pid), "command": list(command), "cgroups": run.cgroups}
        except (OSError, ValueError, KeyError) as error:
            raise DriverError(f"the task's surroundings cannot be read: {error}") from None
        report, reporting = _pipe(opened)
        output, writing = _pipe(opened)
        process = _begin(order, folder, report=reporting, output=writing)
        for descriptor in (reporting, writing):
            os.close(descriptor)
        with process:
            return _result(process, output, report, deadline, command[0])


def _pipe(opened: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose reading end is closed at the end, and the end to write to."""
    readable, writable = os.pipe()
    opened.callback(os.close, readable)
    return readable, writable


def _begin(order: Mapping[str, object], folder: int, *, report: int, output: int) -> subprocess.Popen[bytes]:
    asked = os.memfd_create("order")
    try:
        os.write(asked, json.dumps(order).encode())
        os.lseek(asked, 0, os.SEEK_SET)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOT, str(Path(__file__).parent), str(report), str(folder)],
            stdin=asked,
            stdout=output,
            stderr=output,
            env={},
            pass_fds=[report, folder],
        )
    finally:
        os.close(asked)


def _result(
    process: subprocess.Popen[bytes], output: int, report: int, deadline: float, program: str
) -> tuple[int, str]:
    said = bytearray()
    ended = os.pidfd_open(process.pid)
    try:
        in_time = follow(output, ended, said, deadline)
        if not in_time:
            _kill(process)
    finally:
        os.close(ended)
    code = process.wait()
    failure = os.read(report, 4096) if in_time else b""
    if failure:
        step, errno = json.loads(failure)
        return said_of(step, errno, program)
    return (code_of(code) if in_time else TIMED_OUT), text_of(said)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends it with what it started: it leads a session of its own, unless it has not come that far."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _surroundings(pid: int) -> dict[str, object]:
    """User, environment and limits of a process, the user only where it is another than the agent's."""
    fields: dict[str, list[str]] = {}
    for line in Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines():
        name, _, values = line.partition(":")
        fields[name] = values.split()
    uid, gid = int(fields["Uid"][1]), int(fields["Gid"][1])
    switch = uid != os.geteuid()
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    pairs = [os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry]
    return {
        "environment": {name: value for name, _, value in pairs if name},
        "uid": uid if switch else None,
        "gid": gid if switch else None,
        "groups": [int(group) for group in fields["Groups"]],
        "limits": limits_of_process(pid),
    }
