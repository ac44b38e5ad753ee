"""Runs an exec check in a task's surroundings, by asking the task's own shim for it.

The shim has the task's environment in memory, where secrets may be, and forks the command just as it forked the
task: same user, working directory and cgroup.
"""

import json
import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Any, Final

from agent.doors import DriverError
from agent.drivers.spawner import connect_to_control
from agent.drivers.start_failure import exit_code, explain
from agent.drivers.task_folder import TaskFolder
from trueup.models.units import Duration

OUTPUT_BYTES: Final = 4096
TIMED_OUT: Final = 124
"""As `timeout(1)` has it."""


def run_in_task(folder: TaskFolder, command: Sequence[str], timeout: Duration) -> tuple[int, str]:
    """Exit code and output (stdout and stderr as one, its first 4 KiB); 128 + n for death by signal n.

    DriverError if the task has ended.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    try:
        connection = connect_to_control(folder.path, folder.control)
    except OSError:
        raise DriverError(f"task {folder.task} has ended; nothing can be run in it") from None
    readable, writable = os.pipe()
    with connection:
        try:
            connection.settimeout(timeout.total_seconds())
            try:
                socket.send_fds(connection, [json.dumps(list(command)).encode()], [writable])
            finally:
                os.close(writable)
            output = bytearray()
            if not follow(readable, connection.fileno(), output, deadline):
                return TIMED_OUT, text_of(output)
            return _result(connection.recv(65536), output, command[0])
        except OSError:
            raise DriverError(f"task {folder.task} has ended; nothing can be run in it") from None
        finally:
            os.close(readable)


def follow(readable: int, ended: int, output: bytearray, deadline: float) -> bool:
    """Reads what a command writes until the descriptor *ended* says something; whether that came in time."""
    os.set_blocking(readable, False)
    poller = select.poll()
    poller.register(readable, select.POLLIN)
    poller.register(ended, select.POLLIN)
    while True:
        left_ms = max(0.0, deadline - time.monotonic()) * 1000
        ready = [descriptor for descriptor, _ in poller.poll(left_ms)]
        if readable in ready and not _take(readable, output):
            poller.unregister(readable)
        if ended in ready:
            while _take(readable, output):
                pass
            return True
        if not ready:
            return False


def said_of(step: str, errno: int, program: str) -> tuple[int, str]:
    """The result of a command that was never started."""
    return exit_code(errno), explain(step, errno, program=program)


def code_of(code: int) -> int:
    """An exit code as shells say it: 128 + n for death by signal n."""
    return code if code >= 0 else 128 - code


def text_of(output: bytearray) -> str:
    """What a command wrote, as text."""
    return output.decode("utf-8", "replace")


def _take(readable: int, output: bytearray) -> bool:
    """Reads on, so that the command never waits for us; keeps the first 4 KiB. False: no more for now."""
    try:
        data = os.read(readable, 65536)
    except BlockingIOError:
        return False
    output += data[: OUTPUT_BYTES - len(output)]
    return bool(data)


def _result(answer: bytes, output: bytearray, program: str) -> tuple[int, str]:
    if not answer:
        raise ConnectionResetError
    said: dict[str, Any] = json.loads(answer)
    if "step" in said:
        return said_of(said["step"], said["errno"], program)
    return code_of(os.waitstatus_to_exitcode(said["status"])), text_of(output)
