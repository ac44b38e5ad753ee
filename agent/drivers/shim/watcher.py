"""The shim of one task: starts it, owns its output, reaps all it leaves behind, and writes down its end.

It lives exactly as long as the task. Nothing that happens to the agent or the spawner reaches it: it has a session
of its own, ignores the signals of a closing terminal, and needs neither of them until its end is on disk. It is the
one parent of everything the task starts (subreaper), so nothing daemonises away from it.
"""

import contextlib
import errno
import json
import os
import select
import signal
import socket
import time

from . import cgroups, records, system
from .entry import Surroundings
from .output_log import OutputLog

KILL_SIGNAL = signal.SIGUSR1
CONTROL = "control"
_READ_BYTES = 65536
_KILL_AGAIN_MS = 20
_KILL_AGAIN_AT_MOST_MS = 1000
_DRAIN_READS = 64
_WRITE_END_ATTEMPTS = 60
UNWRITABLE = (errno.EROFS, errno.EIO)
_UNWRITABLE_ATTEMPTS = 3
_COMMAND_BYTES = 1024 * 1024


class Refused(Exception):
    """The task's program could not be started; *step* and *errno* say where and why."""

    def __init__(self, step: str, errno: int) -> None:
        super().__init__(step, errno)
        self.step = step
        self.errno = errno


class Watcher:
    """One task from claim to end. *order* is what `agent/drivers/process.py` asks for, as plain data."""

    def __init__(self, order: dict) -> None:  # type: ignore[type-arg]
        self._order = order
        self._folder = _open_folder(order["folder"])
        os.fchdir(self._folder)
        self._cgroups = [(place, dict(settings)) for place, settings in order["cgroups"]]
        self._poller = select.poll()
        self._logs: dict[int, OutputLog] = {}
        self._executions: dict[int, socket.socket] = {}
        self._connections: dict[int, socket.socket] = {}
        self._main = 0
        self._status: int | None = None
        self._killing = False
        self._childless = False
        self._started_at = 0.0
        self._surroundings = Surroundings(
            environment=order["environment"],
            cwd=order["cwd"],
            uid=order["uid"],
            gid=order["gid"],
            groups=order["groups"],
            cgroup_folders=[place for place, _ in self._cgroups],
            oom_score=order["oom_score"],
            limits=order["limits"],
        )

    def start(self) -> dict[str, object] | None:
        """Starts the task and returns its record; None if this very start was done before.

        Refused if its program cannot be started, which is then also on record as its end; OSError if something else
        was in the way, after which the same start can be asked for again.
        """
        self._claim = records.claim(self._folder)
        if self._claim is None or records.exists(self._folder, records.STATE):
            return None
        try:
            records.reserve_exit(self._claim)
            for place, settings in self._cgroups:
                cgroups.make(place, settings)
            self._listen()
            self._logs_folder = _open_folder(self._order["logs"]["folder"])
            return self._fork_main([self._open_log(stream) for stream in ("stdout", "stderr")])
        except OSError:
            self._undo()
            raise
        except Refused as refused:
            os.waitpid(self._main, 0)
            self._record_end({"step": refused.step, "errno": refused.errno})
            raise

    def serve(self) -> None:
        """Carries the task's output until it has ended with all it started, and records that."""
        wait_ms = _KILL_AGAIN_MS
        while not self._has_ended():
            for descriptor, _ in self._poller.poll(wait_ms if self._killing else None):
                self._handle(descriptor)
            if self._killing:
                self._kill_all()
                wait_ms = min(2 * wait_ms, _KILL_AGAIN_AT_MOST_MS)
        self._drain()
        self._record_end(self._end_of_main())

    def _open_log(self, stream: str) -> int:
        limits = self._order["logs"]
        log = OutputLog(
            self._logs_folder,
            f"{limits['name']}.{stream}",
            max_files=limits["max_files"],
            max_bytes=limits["max_bytes"],
            attempt=self._order["attempt"],
        )
        with contextlib.suppress(OSError):
            log.begin()  # A full disk costs output, never the task.
        readable, writable = os.pipe()
        os.set_blocking(readable, False)
        self._logs[readable] = log
        self._poller.register(readable, select.POLLIN)
        return writable

    def _listen(self) -> None:
        self._signals, written = os.pipe()
        os.set_blocking(self._signals, False)
        os.set_blocking(written, False)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            system.set_signal(number, system.IGNORED)
        for number in (signal.SIGCHLD, KILL_SIGNAL):
            system.set_signal(number, _noted)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(CONTROL)
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.bind(CONTROL)  # Relative: the name of a socket may have 107 bytes at most.
        self._control.listen(16)
        self._control.setblocking(False)
        self._poller.register(self._signals, select.POLLIN)
        self._poller.register(self._control, select.POLLIN)

    def _fork_main(self, outputs: list[int]) -> dict[str, object]:
        waiting, go = os.pipe()
        reading, report = os.pipe()
        self._main = os.fork()
        if self._main == 0:
            os.close(go)
            self._surroundings.execute(
                self._order["command"], output=outputs[0], errors=outputs[1], go=waiting, report=report
            )
        for descriptor in (waiting, report, *outputs):
            os.close(descriptor)
        try:
            self._started_at = time.time()
            state = self._state()
            records.write_state(self._folder, state)
            with contextlib.suppress(BrokenPipeError):
                os.write(go, b"1")
        finally:
            os.close(go)
        failure = _read_to_end(reading)
        if failure:
            raise Refused(*json.loads(failure))
        return state

    def _state(self) -> dict[str, object]:
        return {
            "boot_id": self._order["boot_id"],
            "pid": self._main,
            "start_ticks": system.start_ticks(self._main),
            "shim_pid": os.getpid(),
            "shim_start_ticks": system.start_ticks(os.getpid()),
            "started_at": self._started_at,
            "cgroups": [place for place, _ in self._cgroups],
        }

    def _undo(self) -> None:
        """Leaves nothing of a start that failed, so that the same start can be asked for again."""
        if self._main:
            with contextlib.suppress(OSError):
                os.kill(self._main, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.waitpid(self._main, 0)
        for place, _ in self._cgroups:
            cgroups.remove(place)
        for name in (records.STATE, records.RESERVED, CONTROL):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._folder)

    def _handle(self, descriptor: int) -> None:
        if descriptor in self._logs:
            self._pump(descriptor)
        elif descriptor == self._signals:
            self._obey_signals()
        elif descriptor == self._control.fileno():
            self._accept()
        else:
            self._hear(descriptor)

    def _pump(self, descriptor: int) -> bool:
        """Moves what one stream has ready into its log; whether there may be more."""
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._logs[descriptor].write(data)
            return True
        self._poller.unregister(descriptor)
        self._logs.pop(descriptor).close()
        os.close(descriptor)
        return False

    def _obey_signals(self) -> None:
        numbers = os.read(self._signals, 512)
        if KILL_SIGNAL in numbers:
            self._killing = True
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if pid == 0:
                return
            if pid == self._main:
                self._status = status
                self._killing = True
            elif pid in self._executions:
                self._answer(self._executions.pop(pid), {"status": status})

    def _kill_all(self) -> None:
        """Kills everything the task started: its cgroup, or else every process whose parent is this one.

        Of those whose parent ends the kernel makes this process the parent, so that repeating it reaches all. A
        child cannot be another process of the same pid: it is this process that would have to reap it first.
        """
        if self._cgroups:
            cgroups.kill(self._cgroups[0][0])
        for child in system.children(os.getpid()) or [self._main] * (self._status is None):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._reap()

    def _has_ended(self) -> bool:
        if self._status is None or not self._childless:
            return False
        return not (self._cgroups and cgroups.kill(self._cgroups[0][0]))

    def _accept(self) -> None:
        try:
            connection, _ = self._control.accept()
        except OSError:
            return
        connection.setblocking(False)
        self._connections[connection.fileno()] = connection
        self._poller.register(connection, select.POLLIN)

    def _hear(self, descriptor: int) -> None:
        """Runs the command that a connection asks for, or ends the one whose connection was closed."""
        connection = self._connections[descriptor]
        try:
            text, passed, _, _ = socket.recv_fds(connection, _COMMAND_BYTES, 1)
        except OSError:
            text, passed = b"", []
        for output in passed:
            os.set_inheritable(output, False)
        try:
            if text and passed and connection not in self._executions.values():
                self._execute(connection, json.loads(text), passed[0])
            else:
                self._cancel(connection)
        except (OSError, ValueError):
            self._forget(connection)
        finally:
            for output in passed:
                os.close(output)

    def _execute(self, connection: socket.socket, command: list[str], output: int) -> None:
        reading, report = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._surroundings.execute(command, output=output, errors=output, go=-1, report=report)
        os.close(report)
        self._childless = False
        self._executions[pid] = connection
        failure = _read_to_end(reading)
        if failure:
            step, errno = json.loads(failure)
            self._answer(connection, {"step": step, "errno": errno})

    def _cancel(self, connection: socket.socket) -> None:
        for pid, asking in self._executions.items():
            if asking is connection:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        self._forget(connection)

    def _answer(self, connection: socket.socket, answer: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            connection.send(json.dumps(answer).encode())
        self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        if self._connections.pop(connection.fileno(), None) is not None:
            self._poller.unregister(connection)
        connection.close()

    def _drain(self) -> None:
        """Takes what the pipes still hold; a stranger that keeps one open does not keep the end from being known."""
        for descriptor in tuple(self._logs):
            for _ in range(_DRAIN_READS):
                if not self._pump(descriptor):
                    break

    def _end_of_main(self) -> dict[str, object]:
        code = os.waitstatus_to_exitcode(self._status or 0)
        kills = sum(cgroups.out_of_memory_kills(place) for place, _ in self._cgroups)
        return {
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "oom_killed": kills > 0 and code != 0,
        }

    def _record_end(self, end: dict[str, object]) -> None:
        end |= {"pid": self._main, "started_at": self._started_at, "finished_at": time.time()}
        for place, _ in self._cgroups:
            cgroups.remove(place)
        with contextlib.suppress(OSError):
            os.unlink(CONTROL, dir_fd=self._folder)
        for attempt in range(_WRITE_END_ATTEMPTS):
            try:
                records.write_exit(self._folder, end)
            except OSError as error:
                # The agent takes the task for running as long as this waits; of a broken disk little is to be hoped.
                if error.errno in UNWRITABLE and attempt >= _UNWRITABLE_ATTEMPTS:
                    return
                if os.fstat(self._folder).st_nlink > 0:
                    time.sleep(1)
                elif not self._takes_new_folder():  # Somebody deleted it: there is no place for an end.
                    return
            else:
                return

    def _takes_new_folder(self) -> bool:
        """Whether there is a folder in the place of the deleted one: an agent made it that has found the task."""
        try:
            self._folder = _open_folder(self._order["folder"])
        except OSError:
            return False
        return True


def _open_folder(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _read_to_end(descriptor: int) -> bytes:
    """All there is to come, after which the descriptor is closed."""
    text = b""
    while part := os.read(descriptor, _READ_BYTES):
        text += part
    os.close(descriptor)
    return text


def run(asked: socket.socket) -> None:
    """Reads one order from *asked*, starts its task, answers, and lives as long as it."""
    text = b""
    while part := asked.recv(_READ_BYTES):
        text += part
    watcher = None
    try:
        watcher = Watcher(json.loads(text))
        answer: dict[str, object] = {"started": watcher.start()}
    except Refused as refused:
        answer = {"step": refused.step, "errno": refused.errno}
    except OSError as error:
        answer = {"step": "prepare", "errno": error.errno, "path": error.filename}
    with contextlib.suppress(OSError):  # The agent may be gone; the task runs all the same.
        asked.sendall(json.dumps(answer).encode())
    asked.close()
    del text
    if watcher is not None and answer.get("started"):
        watcher.serve()


def _noted(number: int, frame: object) -> None:
    """Nothing: that a signal came is read from the wake-up descriptor."""
