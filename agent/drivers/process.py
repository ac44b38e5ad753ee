"""The process driver: tasks that are plain processes of this machine and belong to no daemon.

Each task is started and watched by a shim of its own (`shim/watcher.py`), which outlives this agent; what this
driver knows of a task it reads from the attempt's folder, and it learns of its end by the end of its shim. It is no
sandbox: a task can do what its user can.
"""

import contextlib
import os
import signal as signals
import threading
import time
from collections.abc import Hashable, Sequence
from pathlib import Path

import msgspec

from agent.doors import DriverError, TaskHandle, TaskLaunch, TaskStatus, Wake
from agent.drivers import leftovers
from agent.drivers.accounts import Identity, ProcessPolicy, identity_of, known_as, name_of
from agent.drivers.beside import run_beside
from agent.drivers.cgroup import Cgroups, cgroup_tag, discover
from agent.drivers.execution import run_in_task
from agent.drivers.exit_watch import ExitWatch
from agent.drivers.identity import BootId, open_process, read_boot_id, send_signal
from agent.drivers.linked_volumes import link_volumes
from agent.drivers.lost_records import record_of
from agent.drivers.shim.watcher import KILL_SIGNAL, UNWRITABLE
from agent.drivers.spawner import Spawner
from agent.drivers.start_failure import exit_code, explain, is_temporary
from agent.drivers.task_folder import EndRecord, RunRecord, TaskFolder, all_folders, folder_of, moment
from agent.drivers.ulimits import hard_limits, limits_of_task
from trueup.models.codec import understood
from trueup.models.ids import AllocationId
from trueup.models.node import DriverState
from trueup.models.units import Duration

_OOM_SCORE = 0
_OTHER_SHIM_SECONDS = 10


class ProcessDriver:
    """Runs process tasks whose records are under *data*`/tasks`. Tasks found there are its own, others never."""

    name = "process"

    def __init__(
        self,
        data: Path,
        wake: Wake,
        *,
        policy: ProcessPolicy,
        cgroups: Cgroups | None = None,
        boot_id: BootId = read_boot_id,
    ) -> None:
        self._tasks = data / "tasks"
        self._wake = wake
        self._policy = policy
        self._cgroups = discover(cgroup_tag(data)) if cgroups is None else cgroups
        self._boot_id = boot_id()
        self._spawner = Spawner(data / "spawner", self._cgroups.of_shims())
        self._watch = ExitWatch(self._shim_ended)
        self._taking_over = threading.Lock()
        self._unwritten_ends: dict[TaskFolder, EndRecord] = {}
        self._tasks.mkdir(mode=0o700, parents=True, exist_ok=True)
        if policy.enabled:
            self._spawner.warm_up()

    def fingerprint(self) -> DriverState | None:
        """None unless this node allows the driver; says which cgroups there are and what they limit."""
        if not self._policy.enabled:
            return None
        limits = ",".join(sorted(self._cgroups.limits))
        detail = (
            "" if limits else "no cgroup can be written on this node: cpu and memory of tasks are not limited"
        )
        told = {
            "cgroup": self._cgroups.version,
            "limits": limits or "none",
            "root": str(self._policy.root).lower(),
            "runs_as": name_of(os.geteuid()),
            "runs_as_uid": str(os.geteuid()),
            "users": ",".join(sorted(known_as(self._policy.users))),
        }
        most = hard_limits()
        if most is not None:
            told["ulimits"] = ",".join(f"{name}={hard}" for name, hard in sorted(most.items()))
        return DriverState(detail=detail, attributes=told)

    def start(self, launch: TaskLaunch) -> TaskHandle:
        """Starts a task; a repeat finds it, running or ended. DriverError says what to do."""
        handle = self._handle(launch.allocation_id, launch.task, launch.attempt)
        folder = folder_of(self._tasks, handle)
        run = folder.run()
        if run is None and folder.end() is None:
            run = self._rebuilt(handle, folder) or self._start(launch, folder)
        if not self._observe(folder, run):
            self._wake(folder.allocation_id)  # It has ended already, and no watch will say so.
        return handle

    def status(self, handle: TaskHandle) -> TaskStatus:
        """What became of a task, from its records and the liveness of its shim."""
        folder = folder_of(self._tasks, handle)
        end = self._end_of(folder)
        if end is not None:
            return _exited(end)
        run = folder.run() or self._rebuilt(handle, folder)
        if run is None:
            return self._status_without_record(handle, folder)
        if not self._observe(folder, run):
            end = self._end_of(folder)
            return _exited(end) if end is not None else TaskStatus(state="gone", error=self._why_gone(run))
        return TaskStatus(state="running", pid=run.pid, started_at=moment(run.started_at))

    def signal(self, handle: TaskHandle, signal: str) -> None:
        """Sends a signal to the task's main process, never to another that has its pid now."""
        number = getattr(signals, signal, None)
        if not signal.startswith("SIG") or not isinstance(number, signals.Signals):
            raise DriverError(f'"{signal}" is no signal of this machine; write it like SIGTERM')
        folder = folder_of(self._tasks, handle)
        run = folder.run() or self._rebuilt(handle, folder)
        if run is not None:
            send_signal(run.main, self._boot_id, number)

    def kill(self, handle: TaskHandle) -> None:
        """Ends the task with everything it started: its cgroup at once, and what is left by its shim."""
        folder = folder_of(self._tasks, handle)
        run = folder.run()
        if run is None:
            leftovers.kill_cgroup(self._cgroup_of(handle))
        elif folder.end() is None and run.boot_id == self._boot_id:
            leftovers.kill_cgroup(run.cgroups[0] if run.cgroups else "")
            send_signal(run.main, self._boot_id, signals.SIGKILL)
            send_signal(run.shim, self._boot_id, signals.SIGCONT)
            send_signal(run.shim, self._boot_id, KILL_SIGNAL)

    def remove(self, handle: TaskHandle) -> None:
        """Removes the records of an ended attempt. DriverError while it runs."""
        folder = folder_of(self._tasks, handle)
        if self.status(handle).state == "running":
            raise DriverError(
                f"task {handle.task} still runs; its records are what it is found by", temporary=True
            )
        leftovers.remove_cgroups(self._cgroups.folders_of(_cgroup_name(handle)))
        folder.remove()
        self._unwritten_ends.pop(folder, None)

    def recover(self) -> Sequence[TaskHandle]:
        """Every attempt on record, and every cgroup of ours with processes whose record was lost."""
        handles: dict[TaskHandle, None] = {}
        for folder in all_folders(self._tasks):
            self._observe(folder)
            handles[self._handle(folder.allocation_id, folder.task, folder.attempt)] = None
        for name in self._cgroups.task_names():
            allocation_id, task, attempt = name.rsplit(".", 2)
            if attempt.isdigit():
                handle = self._handle(AllocationId(allocation_id), task, int(attempt))
                folder = folder_of(self._tasks, handle)
                if leftovers.in_use(self._cgroup_of(handle)):
                    self._observe(folder, folder.run() or self._rebuilt(handle, folder))
                    handles[handle] = None
                elif handle not in handles and not folder.path.exists():  # Else its start may be under way.
                    leftovers.remove_cgroups(self._cgroups.folders_of(name))
        return tuple(handles)

    def execute(self, handle: TaskHandle, command: Sequence[str], timeout: Duration) -> tuple[int, str]:
        """Runs a command as the task's user in its cgroup, by its shim; exit code 124 if it takes too long."""
        folder = folder_of(self._tasks, handle)
        run = folder.run() or self._rebuilt(handle, folder)
        if run is not None and run.rebuilt:
            return run_beside(run, self._boot_id, command, timeout)
        return run_in_task(folder, command, timeout)

    def close(self) -> None:
        """Stops watching and ends the spawner. Tasks and their shims run on."""
        self._watch.close()
        self._spawner.close()
        self._cgroups.remove_unused()

    def _start(self, launch: TaskLaunch, folder: TaskFolder) -> RunRecord | None:
        """What runs then; None if another shim started it and it has ended since."""
        if not self._policy.enabled:
            raise DriverError(
                "the process driver is off on this node: start the agent with --enable-process, "
                "or set drivers.process.enabled in its configuration"
            )
        if not launch.config.command:
            raise DriverError(f"task {launch.task} has no config.command to start")
        identity = identity_of(launch.user, self._policy)
        order = self._order(launch, folder, identity)
        _prepare_folders(launch, identity)
        link_volumes(launch, identity)
        folder.make()
        answer = self._spawner.order(order)
        if "started" not in answer:
            folder.remove()  # Nothing runs: what the caller is told now is all there is to know.
            step, errno = str(answer["step"]), int(answer["errno"] or 0)
            why = explain(step, errno, program=launch.config.command[0], path=answer.get("path") or "")
            raise DriverError(why, temporary=is_temporary(errno))
        if answer["started"] is None:
            return _await_other_shim(folder)
        return msgspec.convert(answer["started"], understood(RunRecord))

    def _order(self, launch: TaskLaunch, folder: TaskFolder, identity: Identity) -> dict[str, object]:
        return {
            "folder": str(folder.path),
            "attempt": launch.attempt,
            "boot_id": self._boot_id,
            "command": launch.config.command,
            "environment": dict(launch.environment),
            "cwd": str(launch.task_dir / launch.config.cwd),
            "uid": identity.uid if identity.switch else None,
            "gid": identity.gid if identity.switch else None,
            "groups": identity.groups,
            "oom_score": _OOM_SCORE,
            "limits": limits_of_task(launch.config.ulimits),
            "cgroups": self._cgroups.of_task(
                _cgroup_name(self._handle(launch.allocation_id, launch.task, launch.attempt)),
                launch.resources,
            ),
            "logs": {
                "folder": str(launch.logs_dir),
                "name": launch.task,
                "max_files": launch.logs.max_files,
                "max_bytes": int(launch.logs.max_size),
            },
        }

    def _observe(self, folder: TaskFolder, run: RunRecord | None = None) -> bool:
        """Watches the shim of an attempt that runs; whether there is one to watch."""
        if self._watch.watches(folder):
            return True
        run = run or folder.run()
        if run is None:
            return False
        shim = open_process(run.shim, self._boot_id)
        if shim is None:
            return self._take_over(folder, run)
        self._watch.add(folder, shim)
        return True

    def _shim_ended(self, key: Hashable) -> None:
        """A shim is gone: it has recorded the task's end, or was killed and the task has to follow it."""
        folder = key
        if not isinstance(folder, TaskFolder):
            return
        # What cannot be known now (no descriptor is free, say) is asked again by the agent, until it is.
        with contextlib.suppress(OSError, DriverError):
            run = folder.run() if folder.end() is None else None
            if run is not None and self._take_over(folder, run):
                return
        self._wake(folder.allocation_id)

    def _take_over(self, folder: TaskFolder, run: RunRecord) -> bool:
        """Ends what a killed shim left and records that; whether the task's process still has to be waited for."""
        with self._taking_over:
            if run.boot_id != self._boot_id or self._end_of(folder) is not None:
                return False
            main = open_process(run.main, self._boot_id)
            leftovers.end(folder.allocation_id, folder.task, run, main)
            if main is not None and leftovers.survives(main):
                self._watch.add(folder, main)
                return True
            if main is not None:
                os.close(main)
            unseen = run.rebuilt and main is None
            end = _unseen_end(run) if unseen else _end_without_shim(run, folder.crash())
            try:
                folder.write_end(end)
            except OSError as error:
                if error.errno not in UNWRITABLE:
                    raise
                # Nor could its shim, which has therefore ended: it is known here, for as long as this agent lives.
                self._unwritten_ends[folder] = _unwritten_end(run, error)
            leftovers.remove_cgroups(run.cgroups)
            return False

    def _end_of(self, folder: TaskFolder) -> EndRecord | None:
        return folder.end() or self._unwritten_ends.get(folder)

    def _rebuilt(self, handle: TaskHandle, folder: TaskFolder) -> RunRecord | None:
        """The record of a task that runs although its own was lost, written anew; None if nothing of it runs.

        A task that is just being started has processes before it has a record, and its shim holds its folder.
        """
        if not leftovers.in_use(self._cgroup_of(handle)) or folder.is_being_started():
            return None
        if folder.run() is not None or folder.end() is not None:
            return folder.run()
        run = record_of(self._cgroups.folders_of(_cgroup_name(handle)), self._boot_id)
        if run is not None:
            folder.write_run(run)
        return run

    def _status_without_record(self, handle: TaskHandle, folder: TaskFolder) -> TaskStatus:
        if folder.is_being_started():
            return TaskStatus(state="running", error="an earlier agent's start is under way")
        if leftovers.in_use(self._cgroup_of(handle)):
            return TaskStatus(state="running", error="its records were lost; found by its cgroup")
        return TaskStatus(state="gone")

    def _why_gone(self, run: RunRecord) -> str:
        return "the machine was restarted" if run.boot_id != self._boot_id else "its end was not recorded"

    def _cgroup_of(self, handle: TaskHandle) -> str:
        if self._cgroups.tracking is None:
            return ""
        return str(self._cgroups.tracking / _cgroup_name(handle))

    def _handle(self, allocation_id: AllocationId, task: str, attempt: int) -> TaskHandle:
        return TaskHandle(driver=self.name, allocation_id=allocation_id, task=task, attempt=attempt, data="")


def _cgroup_name(handle: TaskHandle) -> str:
    return f"{handle.allocation_id}.{handle.task}.{handle.attempt}"


def _prepare_folders(launch: TaskLaunch, identity: Identity) -> None:
    """Makes the folders a task is started in, where its allocation has not. The task's user cannot write the logs'."""
    try:
        launch.logs_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not launch.task_dir.exists():
            launch.task_dir.mkdir(mode=0o700, parents=True)
            if identity.switch:
                os.chown(launch.task_dir, identity.uid, identity.gid)
    except OSError as error:
        raise DriverError(
            f"cannot make the folder {error.filename}: {error.strerror}",
            temporary=is_temporary(error.errno or 0),
        ) from None


def _await_other_shim(folder: TaskFolder) -> RunRecord | None:
    """Another shim took this very start up first, for an agent that ended meanwhile: its record is near."""
    deadline = time.monotonic() + _OTHER_SHIM_SECONDS
    while (run := folder.run()) is None and folder.end() is None:
        if time.monotonic() > deadline:
            raise DriverError(
                f"task {folder.task} is being started by an earlier agent's shim", temporary=True
            )
        time.sleep(0.01)
    return run


def _exited(end: EndRecord) -> TaskStatus:
    error, code = end.error, end.exit_code
    if code is None and end.signal is None and not end.step:
        return TaskStatus(state="gone", error=error)
    if end.step:
        error, code = explain(end.step, end.errno), exit_code(end.errno)
    return TaskStatus(
        state="exited",
        pid=end.pid,
        started_at=moment(end.started_at) if end.started_at else None,
        finished_at=moment(end.finished_at) if end.finished_at else None,
        exit_code=code,
        signal=end.signal,
        oom_killed=end.oom_killed,
        error=error,
    )


def _unseen_end(run: RunRecord) -> EndRecord:
    return EndRecord(
        pid=run.pid,
        started_at=run.started_at,
        finished_at=time.time(),
        error="its records were lost while it ran",
    )


def _unwritten_end(run: RunRecord, error: OSError) -> EndRecord:
    return EndRecord(
        pid=run.pid,
        started_at=run.started_at,
        finished_at=time.time(),
        error=f"its end could not be recorded in the agent's data folder: {error.strerror}",
    )


def _end_without_shim(run: RunRecord, crash: str) -> EndRecord:
    return EndRecord(
        signal=signals.SIGKILL,
        pid=run.pid,
        started_at=run.started_at,
        finished_at=time.time(),
        error="the shim that held its output was killed, and the task with it"
        + (f" ({crash})" if crash else ""),
    )
