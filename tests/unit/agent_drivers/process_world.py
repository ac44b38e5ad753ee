"""One agent's process driver on a data folder of its own, and what tests ask of the processes it started."""

import os
import signal
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.doors import TaskHandle, TaskLaunch, TaskStatus
from agent.drivers.accounts import ProcessPolicy
from agent.drivers.cgroup import Cgroups
from agent.drivers.process import ProcessDriver
from agent.drivers.task_folder import RunRecord, TaskFolder, folder_of
from trueup.models.ids import AllocationId
from trueup.models.job import LogLimits, Resources, TaskConfig
from trueup.models.units import Bytes, Duration

DEADLINE_SECONDS = 20
SECOND = Duration(seconds=1)
PATH = "/usr/local/bin:/usr/bin:/bin"
NO_CGROUPS = Cgroups()


def wait_until(condition: Callable[[], Any], what: str = "the condition") -> None:
    """Returns once *condition* holds; fails after the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true in {DEADLINE_SECONDS} s"
        time.sleep(0.005)


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def descriptors_of(pid: int | str | None) -> int:
    assert pid is not None
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - iterdir adds nothing


class ProcessWorld:
    """A driver over a folder; `again()` is the next agent's, `close()` ends all."""

    def __init__(self, data: Path, *, cgroups: Cgroups | None = None, **options: Any) -> None:
        self.data = data
        # Ids are unique in the world: without cgroups what a task left is found by the id in its environment.
        self._tag = f"{zlib.crc32(os.fsencode(data)):08x}"
        self._cgroups = cgroups
        self._woken: list[AllocationId] = []
        self._changed = threading.Condition()
        self._drivers: list[ProcessDriver] = []
        self.again(**options)

    def again(
        self,
        *,
        policy: ProcessPolicy | None = None,
        boot_id: Callable[[], str] | None = None,
    ) -> None:
        """Another driver on the same folder, as after the agent's own restart."""
        more: dict[str, Any] = {} if boot_id is None else {"boot_id": boot_id}
        self.driver = ProcessDriver(
            self.data / "agent",
            self._wake,
            policy=policy or ProcessPolicy(enabled=True, root=True),
            cgroups=self._cgroups,
            **more,
        )
        self._drivers.append(self.driver)

    def id(self, allocation: str) -> AllocationId:
        """The whole id of an allocation that tests call `a1`."""
        return AllocationId(f"{allocation}-{self._tag}")

    def handle(self, allocation: str = "a1") -> TaskHandle:
        """The handle of the first attempt of an allocation's server."""
        return TaskHandle(
            driver="process", allocation_id=self.id(allocation), task="server", attempt=1, data=""
        )

    def folder(self, handle: TaskHandle) -> TaskFolder:
        """Where a task is on record."""
        return folder_of(self.data / "agent" / "tasks", handle)

    def launch(
        self, *command: str, allocation: str = "a1", task: str = "server", **fields: Any
    ) -> TaskLaunch:
        """What is needed to start *command*."""
        folder = self.data / "allocations" / allocation
        return TaskLaunch(
            allocation_id=self.id(allocation),
            allocation_name="web.app[0]",
            job="web",
            group="app",
            task=task,
            attempt=fields.pop("attempt", 1),
            digest="d1",
            config=TaskConfig(command=command, cwd=fields.pop("cwd", ""), ulimits=fields.pop("ulimits", {})),
            environment={
                "PATH": PATH,
                "TRUEUP_ALLOC_ID": self.id(allocation),
                "TRUEUP_TASK_NAME": task,
                **fields.pop("environment", {}),
            },
            resources=Resources(
                cpu_millicores=fields.pop("cpu_millicores", 100),
                memory_bytes=fields.pop("memory_bytes", 64 * 1024**2),
            ),
            user=fields.pop("user", ""),
            task_dir=folder / task,
            logs_dir=folder / "logs",
            logs=LogLimits(
                max_files=fields.pop("max_files", 10), max_size=Bytes(fields.pop("max_size", 1024**2))
            ),
            **fields,
        )

    def start(self, *command: str, **fields: Any) -> TaskHandle:
        return self.driver.start(self.launch(*command, **fields))

    def shell(self, script: str, **fields: Any) -> TaskHandle:
        """Starts a task that is a shell script."""
        return self.start("sh", "-c", script, **fields)

    def ended(self, handle: TaskHandle) -> TaskStatus:
        """The status of a task once the driver woke the agent because of its end."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        with self._changed:
            while self.driver.status(handle).state == "running":
                left = deadline - time.monotonic()
                assert self._changed.wait(left), "no wake although the task should have ended"
        return self.driver.status(handle)

    def wakes(self, allocation: str) -> int:
        with self._changed:
            return self._woken.count(self.id(allocation))

    def run(self, handle: TaskHandle) -> RunRecord:
        """What is on record of a task that was started."""
        run = self.folder(handle).run()
        assert run is not None
        return run

    def pid(self, handle: TaskHandle) -> int:
        pid = self.driver.status(handle).pid
        assert pid is not None
        return pid

    def log(self, name: str = "server.stdout", allocation: str = "a1") -> str:
        try:
            return (self.data / "allocations" / allocation / "logs" / name).read_text("utf-8")
        except FileNotFoundError:
            return ""

    def lines(self, count: int, name: str = "server.stdout", allocation: str = "a1") -> list[str]:
        """The first lines of a log once there are so many."""
        wait_until(lambda: self.log(name, allocation).count("\n") >= count, f"{count} lines in {name}")
        return self.log(name, allocation).splitlines()

    def limits(self, controller: str) -> bool:
        """Whether this machine lets tasks be limited in that; where it does not, the driver has to have said so.

        No reason to skip a test: there are machines without, and CI may be one.
        """
        state = self.driver.fingerprint()
        assert state is not None
        assert state.attributes["limits"] != "none" or "not limited" in state.detail
        return controller in state.attributes["limits"].split(",")

    def close(self, *, can_write: bool = True) -> None:
        """Ends every task and every driver; what then still ran would be a leak, and what is on record, if it can."""
        handles = self.driver.recover()
        for handle in handles:
            self.driver.kill(handle)
        for handle in handles:
            wait_until(lambda handle=handle: self.driver.status(handle).state != "running", str(handle))  # type: ignore[misc]
            self.driver.remove(handle)
        for driver in self._drivers:
            driver.close()
        assert not (can_write and self.driver.recover())
        wait_until(self._leaves_no_cgroup, "the end of every shim")

    def _leaves_no_cgroup(self) -> bool:
        cgroups = self.driver._cgroups
        cgroups.remove_unused()
        return not any(shims.parent.exists() for shims in cgroups.of_shims())

    def _wake(self, allocation_id: AllocationId) -> None:
        with self._changed:
            self._woken.append(allocation_id)
            self._changed.notify_all()


def kill_hard(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not lives(pid), f"the end of {pid}")
