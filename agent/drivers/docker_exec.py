"""Runs a command inside a container, within a time: what exec checks are made of."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from agent.doors import DriverError
from agent.drivers.docker_engine import Engine
from agent.drivers.docker_errors import EngineRefused, NotThere
from agent.drivers.docker_stream import Stream
from agent.drivers.execution import OUTPUT_BYTES, TIMED_OUT
from trueup.models.units import Duration

_SETTLE_SECONDS: Final = 2.0


def run_in_container(
    engine: Engine, container: str, task: str, command: Sequence[str], timeout: Duration
) -> tuple[int, str]:
    """Exit code and output (stdout and stderr as one, its first 4 KiB); 124 if it takes longer, and it is ended.

    126 or 127 where the image has no such program. DriverError if the task has ended or the engine is away.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    try:
        exec_id = engine.create_exec(container, list(command))
        output = _output(engine, exec_id, deadline)
        if output is None:
            _end(engine, exec_id, container)
            return TIMED_OUT, ""
        text, in_time = output
        if not in_time:
            _end(engine, exec_id, container)
            return TIMED_OUT, text
        return _exit_code(engine, exec_id), text
    except NotThere:
        raise DriverError(f"task {task} has ended; nothing can be run in it") from None
    except EngineRefused as refused:
        if refused.status == 409:
            raise DriverError(f"task {task} does not run; nothing can be run in it") from None
        raise


def _output(engine: Engine, exec_id: str, deadline: float) -> tuple[str, bool] | None:
    """The command's output until its end or the deadline, and whether it ended in time; None if there was no time."""
    left_seconds = deadline - time.monotonic()
    if left_seconds <= 0:
        return None
    kept = bytearray()
    path = f"/exec/{quote(exec_id, safe='')}/start"
    body = {"Detach": False, "Tty": False}
    with engine.stream(
        "POST", path, silence_seconds=None, head_seconds=left_seconds + _SETTLE_SECONDS, body=body
    ) as stream:
        alarm = threading.Timer(left_seconds, Stream.interrupt, [stream])
        alarm.daemon = True
        alarm.start()
        try:
            for _, data in stream.frames():
                kept += data[: OUTPUT_BYTES - len(kept)]
        finally:
            alarm.cancel()
    return kept.decode("utf-8", "replace"), time.monotonic() < deadline


def _exit_code(engine: Engine, exec_id: str) -> int:
    """The engine knows the code a moment after the output's end."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        running, code, _ = engine.inspect_exec(exec_id)
        if not running and code is not None:
            return code
        if time.monotonic() > deadline:
            raise DriverError("the engine does not say how the command ended", temporary=True)
        time.sleep(0.01)


def _end(engine: Engine, exec_id: str, container: str) -> None:
    """Ends a command that takes too long, so that a check that hangs does not fill its container.

    The engine has no call for it. Its pid is one of this machine only if the process is in the container's cgroup;
    the descriptor is opened first, so that it is that very process which is looked at and killed.
    """
    with contextlib.suppress(DriverError, OSError):
        running, _, pid = engine.inspect_exec(exec_id)
        if not running or pid <= 0:
            return
        process = os.pidfd_open(pid)
        try:
            if container in Path(f"/proc/{pid}/cgroup").read_text():
                signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)
