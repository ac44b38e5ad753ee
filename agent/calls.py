"""The calls the runner has made of drivers, folders and probes: each turns what happens into a plain answer.

They run on workers and may block. None of them raises: an answer that never came would leave its task waiting for it.
"""

import dataclasses
import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from msgspec.structs import replace

from agent.doors import (
    Accounts,
    ArtifactError,
    Artifacts,
    ArtifactsUnwanted,
    Driver,
    DriverError,
    Fetch,
    FetchFirst,
    FolderError,
    Folders,
    Probe,
    Prober,
    SecretMissing,
    Secrets,
    TaskHandle,
    TaskStatus,
)
from agent.environment import (
    NodeFacts,
    NotStartable,
    build_artifacts,
    build_files,
    build_launch,
    dial_host,
    without_secrets,
)
from agent.instructions import (
    Answer,
    CallFailed,
    Find,
    Instruction,
    Kill,
    NotFound,
    Observed,
    Remove,
    Removed,
    Renew,
    Renewed,
    Signal,
    Start,
    Started,
    StartFailed,
)
from agent.open_files import too_many_files
from agent.record import HandleRecord
from agent.secret_changes import reactions
from agent.secret_policy import SecretPolicy, SecretsOfJob
from agent.service_files import Lists
from agent.value_digests import ReadSecrets, ValueDigests, throwaway_digests
from trueup.models.ids import AllocationId
from trueup.models.job import Check, Port, Task
from trueup.models.wire import Assignment

_log = structlog.stdlib.get_logger("trueup.agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaits:
    """No answer yet: the start has to wait for *fetch*."""

    fetch: Fetch


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """What calls are made through. *node* is what tasks are told of this node."""

    drivers: Mapping[str, Driver]
    secrets: Secrets
    accounts: Accounts
    folders: Folders
    artifacts: Artifacts
    prober: Prober
    node: NodeFacts
    secret_policy: SecretPolicy = field(default_factory=SecretPolicy)
    digests: ValueDigests = field(default_factory=throwaway_digests)

    def carry_out(
        self, assignment: Assignment, attempt: int, instruction: Instruction, services: Lists
    ) -> Answer | Awaits | None:
        """Does what the step of an allocation asked for; None where only a later look can tell what came of it.

        *services* are the addresses files are made of.
        """
        task = assignment.group.task(instruction.task)
        if task is None:
            return CallFailed(message=f"the group has no task {instruction.task}")
        is_start = isinstance(instruction, Start)
        try:
            return self._call(assignment, attempt, instruction, self._driver(task.driver), services)
        except FetchFirst as first:
            return Awaits(fetch=first.fetch)
        except DriverError as error:
            return _failed(str(error), is_start=is_start, temporary=error.temporary)
        except FolderError as error:
            return _failed(str(error), is_start=is_start, temporary=error.temporary)
        except (NotStartable, SecretMissing, LookupError) as error:
            return _failed(str(error), is_start=is_start)
        except Exception as error:  # noqa: BLE001 - a fault of one driver may end no loop
            words = _unexpected("call failed", error, assignment.allocation.id, instruction.task)
            return _failed(words, is_start=is_start, temporary=True)

    def fetch(
        self,
        assignment: Assignment,
        name: str,
        *,
        downloads: Callable[[str], None],
        is_unwanted: Callable[[], bool],
    ) -> StartFailed | None:
        """Puts a task's artifacts into its folder before it starts; None once they are there.

        *downloads* is told what has to be fetched; soon after *is_unwanted* says so this ends without them.
        """
        task = assignment.group.task(name)
        if task is None:
            return StartFailed(message=f"the group has no task {name}")
        try:
            self._provide(assignment, task, downloads, is_unwanted)
        except ArtifactError as error:
            return StartFailed(message=str(error), temporary=error.temporary, event="Artifact failure")
        except ArtifactsUnwanted:
            # Temporary, as nothing is wrong with it: where only this agent's tasks are ended, the next starts it.
            return StartFailed(message="it is not to start any more", temporary=True, event="Not started")
        except (DriverError, FolderError) as error:
            return StartFailed(message=str(error), temporary=error.temporary)
        except (NotStartable, SecretMissing, LookupError) as error:
            return StartFailed(message=str(error))
        except Exception as error:  # noqa: BLE001 - as above
            words = _unexpected("artifacts failed", error, assignment.allocation.id, name)
            return StartFailed(message=words, temporary=True)
        return None

    def look(self, handle: TaskHandle) -> Observed | None:
        """What the driver sees of a task; None where it cannot say now."""
        try:
            status = self._driver(handle.driver).status(handle)
        except DriverError:
            return None
        except Exception as error:  # noqa: BLE001 - as above
            _unexpected("status failed", error, handle.allocation_id, handle.task)
            return None
        return Observed(attempt=handle.attempt, status=status)

    def adopt(self, handle: TaskHandle) -> Started | CallFailed:
        """An answer for a task that a driver found running, or ended."""
        seen = self.look(handle)
        if seen is None:
            return CallFailed(message=f"driver {handle.driver} does not say how the task does")
        return Started(handle=handle, status=seen.status)

    def take_over(self, assignment: Assignment, handle: TaskHandle) -> Started | CallFailed:
        """As `adopt`, of a task whose folders may have been lost: without them, its output would have no place."""
        task = assignment.group.task(handle.task)
        if task is not None:
            try:
                account = self.accounts.account(task.user) if task.driver == "process" else None
                self.folders.prepare(handle.allocation_id, task.name, account, ())
            except (FolderError, LookupError) as error:
                _log.warning(
                    "no folder for a task that runs", allocation=handle.allocation_id, why=str(error)
                )
        return self.adopt(handle)

    def end_leftover(self, handle: TaskHandle, action: str) -> None:
        """Signals, kills or removes what belongs to no allocation of this agent."""
        try:
            driver = self._driver(handle.driver)
            if action == "signal":
                driver.signal(handle, "SIGTERM")
            elif action == "kill":
                driver.kill(handle)
            else:
                driver.remove(handle)
        except DriverError as error:
            _log.info(
                "leftover stays for now", allocation=handle.allocation_id, task=handle.task, why=str(error)
            )
        except Exception as error:  # noqa: BLE001 - as above
            _unexpected("leftover stays for now", error, handle.allocation_id, handle.task)

    def all_folders(self) -> Sequence[AllocationId]:
        """Every allocation that has folders here; none where they cannot be listed now."""
        try:
            return self.folders.all()
        except FolderError as error:
            _log.warning("folders cannot be listed", why=str(error))
            return ()

    def folder_bytes(self, allocation_id: AllocationId) -> int:
        """How much room the folders of an allocation take."""
        return self.folders.size_bytes(allocation_id)

    def remove_folders(self, allocation_id: AllocationId) -> None:
        """Removes an allocation's files and logs, and of the artifacts what nobody has used for long."""
        try:
            self.folders.remove(allocation_id)
        except FolderError as error:
            _log.warning("folders stay", allocation=allocation_id, why=str(error))
        self.artifacts.clean_up()

    def check(self, assignment: Assignment, handle: TaskHandle, check: Check) -> str | None:
        """Makes one check: None if it passed, else why not."""
        try:
            if check.type == "exec":
                return self._check_by_command(assignment, handle, check)
            return self.prober.probe(self._probe(assignment, check))
        except (DriverError, NotStartable) as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - as above
            return _unexpected("check failed unexpectedly", error, handle.allocation_id, handle.task)

    def _call(
        self,
        assignment: Assignment,
        attempt: int,
        instruction: Instruction,
        driver: Driver,
        services: Lists,
    ) -> Answer | None:
        allocation_id = assignment.allocation.id
        match instruction:
            case Start():
                return self._start(assignment, instruction, services)
            case Find(task=task):
                return self._find(driver, allocation_id, task, attempt)
            case Signal(task=task, handle=handle, signal=signal):
                driver.signal(handle_of(allocation_id, task, handle), signal)
            case Kill(task=task, handle=handle):
                driver.kill(handle_of(allocation_id, task, handle))
            case Remove(task=task, handle=handle):
                return self._remove(driver, handle_of(allocation_id, task, handle))
            case Renew():
                return self._renew(assignment, instruction, driver, services)
        return None

    def _provide(
        self,
        assignment: Assignment,
        task: Task,
        downloads: Callable[[str], None],
        is_unwanted: Callable[[], bool],
    ) -> None:
        # Where the driver is not offered, nothing is fetched for it.
        self._driver(task.driver)
        allocation_id = assignment.allocation.id
        account = self.accounts.account(task.user) if task.driver == "process" else None
        folders = self.folders.paths(allocation_id, task.name)
        wanted = build_artifacts(assignment, task, self.node, folders, self._secrets(assignment))
        self.folders.prepare(allocation_id, task.name, account, ())
        self.artifacts.provide(wanted, folders, account, downloads=downloads, is_unwanted=is_unwanted)

    def _start(self, assignment: Assignment, instruction: Start, services: Lists) -> Started:
        allocation_id = assignment.allocation.id
        task = assignment.group.task(instruction.task)
        if task is None:
            raise NotStartable(f"the group has no task {instruction.task}")
        account = self.accounts.account(task.user) if task.driver == "process" else None
        folders = self.folders.paths(allocation_id, task.name)
        secrets = self._secrets(assignment)
        files = build_files(assignment, task, self.node, folders, secrets, services)
        launch = build_launch(assignment, task, instruction.attempt, self.node, folders, account, secrets)
        self.folders.prepare(allocation_id, task.name, account, files)
        launch = dataclasses.replace(launch, fetched=instruction.fetched)
        handle = self._driver(task.driver).start(launch)
        seen = self.look(handle)
        return Started(
            handle=handle,
            status=TaskStatus(state="running") if seen is None else seen.status,
            secrets=secrets.digests(reactions(task)),
        )

    def _renew(self, assignment: Assignment, instruction: Renew, driver: Driver, services: Lists) -> Renewed:
        allocation_id, handle = assignment.allocation.id, instruction.handle
        task = assignment.group.task(instruction.task)
        if task is None:
            raise NotStartable(f"the group has no task {instruction.task}")
        account = self.accounts.account(task.user) if task.driver == "process" else None
        paths = {*instruction.files, *instruction.paths}
        changed = replace(task, files=tuple(file for file in task.files if file.path in paths))
        folders = self.folders.paths(allocation_id, task.name)
        secrets = self._secrets(assignment)
        files = build_files(assignment, changed, self.node, folders, secrets, services)
        self.folders.prepare(allocation_id, task.name, account, files)
        for signal in instruction.signals:
            driver.signal(handle_of(allocation_id, task.name, handle), signal)
        told = secrets.digests(instruction.secrets)
        return Renewed(attempt=handle.attempt, files=instruction.files, secrets=told)

    def _remove(self, driver: Driver, handle: TaskHandle) -> Removed:
        """What was seen to end and runs all the same was started again by another hand: it ends before the next try."""
        try:
            driver.remove(handle)
        except DriverError:
            driver.kill(handle)
            raise
        return Removed(attempt=handle.attempt)

    def _find(self, driver: Driver, allocation_id: AllocationId, task: str, attempt: int) -> Answer:
        for handle in driver.recover():
            if (handle.allocation_id, handle.task, handle.attempt) == (allocation_id, task, attempt):
                return self.adopt(handle)
        return NotFound()

    def _check_by_command(self, assignment: Assignment, handle: TaskHandle, check: Check) -> str | None:
        code, output = self._driver(handle.driver).execute(handle, check.command, check.timeout)
        if code == 0:
            return None
        task = assignment.group.task(handle.task)
        said = "" if task is None else without_secrets(output, task, self.secrets)
        first_line = said.strip().splitlines()[:1]
        return f"{check.command[0]} ended with {code}" + (f": {first_line[0]}" if first_line else "")

    def _probe(self, assignment: Assignment, check: Check) -> Probe:
        port = _port_of(assignment, check)
        number = assignment.allocation.ports.get(port.name)
        if number is None:
            raise NotStartable(f"the allocation has no port {port.name}")
        return Probe(
            type="tcp" if check.type == "tcp" else "http",
            host=dial_host(port, self.node),
            port=number,
            path=check.path,
            timeout_seconds=check.timeout.total_seconds(),
        )

    def _secrets(self, assignment: Assignment) -> ReadSecrets:
        mine = SecretsOfJob(self.secrets, self.secret_policy, assignment.allocation.job)
        return ReadSecrets(mine, self.digests)

    def _driver(self, name: str) -> Driver:
        driver = self.drivers.get(name)
        if driver is None:
            raise DriverError(f"driver {name} is not offered on this node")
        return driver


def _unexpected(what: str, error: Exception, allocation_id: AllocationId, task: str) -> str:
    """What to tell of a failure that nobody foresaw, which goes into the log with where it happened.

    That no descriptor is free is no fault of anything here, and comes in crowds: one line each.
    """
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        words = too_many_files(error.errno)
        _log.error(what, allocation=allocation_id, task=task, why=words)
        return words
    _log.error(what, allocation=allocation_id, task=task, exc_info=error)
    return f"unexpected {type(error).__name__}; the agent's log says more"


def _failed(message: str, *, is_start: bool, temporary: bool = False) -> StartFailed | CallFailed:
    return StartFailed(message=message, temporary=temporary) if is_start else CallFailed(message=message)


def handle_of(allocation_id: AllocationId, task: str, handle: HandleRecord) -> TaskHandle:
    """The driver's form of a handle on record."""
    return TaskHandle(
        driver=handle.driver, allocation_id=allocation_id, task=task, attempt=handle.attempt, data=handle.data
    )


def _port_of(assignment: Assignment, check: Check) -> Port:
    """The port a check names, or the group's only one."""
    ports = assignment.group.ports
    for port in ports:
        if check.port == port.name or (not check.port and len(ports) == 1):
            return port
    raise NotStartable(f"the group has no port {check.port!r}")
