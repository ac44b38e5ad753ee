"""What part each task plays in its group's life. Pure.

prestart tasks first, and those without `sidecar` to their end; then main tasks; poststart tasks once all main ones
run; sidecars as long as main tasks do; poststop tasks once all others have ended. Source: Nomad's `lifecycle` block.
"""

from collections.abc import Mapping
from typing import Literal

from agent.record import TaskRecord
from trueup.models.job import JobType, Task, TaskGroup

Role = Literal["prestart", "main", "poststart", "sidecar", "poststop"]


def role_of(task: Task) -> Role:
    """The part *task* plays; a sidecar is one whatever its hook, save a poststop, which can be none."""
    if task.lifecycle is None:
        return "main"
    if task.lifecycle.sidecar and task.lifecycle.hook != "poststop":
        return "sidecar"
    return task.lifecycle.hook


def runs_once(task: Task, job_type: JobType) -> bool:
    """Whether an end with exit code 0 is what the task is for."""
    role = role_of(task)
    if role == "main":
        return job_type in {"batch", "sysbatch"}
    return role != "sidecar"


def may_start(group: TaskGroup, task: Task, records: Mapping[str, TaskRecord]) -> bool:
    """Whether all that has to come before *task* has come. Poststop tasks are not asked: they come last."""
    hook = None if task.lifecycle is None else task.lifecycle.hook
    if hook == "prestart":
        return True
    if hook is None:
        return all(_prestart_is_done(other, records[other.name]) for other in group.tasks)
    mains = [other for other in group.tasks if role_of(other) == "main"]
    return all(_has_run(records[other.name]) for other in mains)


def others_have_ended(group: TaskGroup, task: Task, records: Mapping[str, TaskRecord]) -> bool:
    """Whether all tasks that end before *task* have: for a sidecar those that are none, for a poststop all."""
    after = {"sidecar": {"sidecar", "poststop"}, "poststop": {"poststop"}}.get(role_of(task))
    if after is None:
        return True
    return all(records[other.name].phase == "dead" for other in group.tasks if role_of(other) not in after)


def mains_are_done(group: TaskGroup, records: Mapping[str, TaskRecord]) -> bool:
    """Whether all main tasks have ended for good."""
    return all(records[task.name].phase == "dead" for task in group.tasks if role_of(task) == "main")


def has_begun(group: TaskGroup, records: Mapping[str, TaskRecord]) -> bool:
    """Whether any task but a poststop was ever started."""
    return any(records[task.name].attempt > 0 for task in group.tasks if role_of(task) != "poststop")


def _prestart_is_done(other: Task, record: TaskRecord) -> bool:
    if other.lifecycle is None or other.lifecycle.hook != "prestart":
        return True
    if other.lifecycle.sidecar:
        return record.phase == "running"
    return record.phase == "dead" and not record.failed


def _has_run(record: TaskRecord) -> bool:
    return record.phase in {"running", "stopping"} or (record.phase == "dead" and not record.failed)
