"""The rules of a task group that no schema can say: names and what refers to them, and its policies."""

from datetime import timedelta
from typing import Final

from trueup.models.job import usual_reschedule
from trueup.models.units import Duration, format_duration
from trueup.sources.constraint_checks import check_agreement, check_placement
from trueup.sources.parts import Plain, check_unique, duration, mapping, mappings, names, number, text
from trueup.sources.report import Report
from trueup.sources.task_checks import TaskScope, check_port, check_task
from trueup.sources.tree import Path
from trueup.sources.wording import near

_MOST_ATTEMPTS: Final = 10_000
_NOTHING: Final = Duration()
_SOME_TIME: Final = Duration(seconds=1)


def check_group(report: Report, job: Plain, group: Plain, at: Path) -> None:
    """Adds what breaks a rule of the contract in the group at that path."""
    for key in ("ports", "services", "volumes"):
        check_unique(report, group, key, at)
    ports = names(group, "ports")
    for path, service in mappings(group, "services", at):
        check_port(report, service, path, ports)
    _check_policies(report, text(job, "type", "service"), group, at)
    check_placement(report, group, at)
    tasks = list(mappings(group, "tasks", at))
    owners: list[tuple[Path, Plain]] = [((), job), (at, group), *tasks]
    check_agreement(report, (one for path, owner in owners for one in mappings(owner, "constraints", path)))
    _check_tasks(report, job, group, at)
    _check_publishers(report, group, tasks, at)


def _check_tasks(report: Report, job: Plain, group: Plain, at: Path) -> None:
    tasks = list(mappings(group, "tasks", at))
    default = text(job, "name")
    scope = TaskScope(
        job_type=text(job, "type", "service"),
        ports=names(group, "ports"),
        volumes=names(group, "volumes"),
        tasks={text(task, "name", default): task for _, task in tasks},
    )
    for path, task in tasks:
        if "name" not in task and len(tasks) > 1:
            report.add(path, "name is missing", "only a single task may leave it out")
        check_task(report, task, text(task, "name", default), path, scope)
    check_unique(report, group, "tasks", at)
    if tasks and all(task.get("lifecycle") is not None for _, task in tasks):
        hint = "leave lifecycle out of the task the group is there for"
        report.add((*at, "tasks"), "no task of this group is a main task", hint)


def _check_publishers(report: Report, group: Plain, tasks: list[tuple[Path, Plain]], at: Path) -> None:
    by_name = {text(task, "name"): task for _, task in tasks}
    for path, port in mappings(group, "ports", at):
        name = port.get("task")
        if not isinstance(name, str):
            continue
        if name not in by_name:
            report.add((*path, "task"), f"{name!r} is no task of this group", near(name, list(by_name)))
        elif "image" not in mapping(by_name[name], "config"):
            report.add((*path, "task"), f"task {name!r} is no container", "only containers publish ports")


def _check_policies(report: Report, job_type: str, group: Plain, at: Path) -> None:
    disconnect = mapping(group, "disconnect")
    if "stop_after" in disconnect and duration(disconnect, "lost_after", _NOTHING):
        report.add((*at, "disconnect"), "has both lost_after and stop_after", "keep one of them", key=True)
    reschedule = mapping(group, "reschedule")
    if reschedule and job_type in {"system", "sysbatch"}:
        hint = "it is mended on its node, by restart"
        report.add((*at, "reschedule"), f"a {job_type} job is not rescheduled", hint, key=True)
        return
    if reschedule.get("unlimited") is True and number(reschedule, "attempts"):
        report.add((*at, "reschedule"), "has both unlimited and attempts", "keep one of them", key=True)
    limited = number(reschedule, "attempts") > 0 and reschedule.get("unlimited") is not True
    if not limited:
        return
    if "interval" in reschedule and not duration(reschedule, "interval", _SOME_TIME):
        report.add((*at, "reschedule", "interval"), "is no time at all; attempts are counted in it")
    elif job_type == "service" and "interval" not in reschedule:
        report.add((*at, "reschedule"), "interval is missing", "the time in which attempts are counted")
    else:
        _check_attempts(report, job_type, reschedule, (*at, "reschedule"))


def _check_attempts(report: Report, job_type: str, reschedule: Plain, at: Path) -> None:
    """All attempts have to fit their interval, or the last could never be made. Source: Nomad's validation."""
    usual = usual_reschedule(job_type)
    delay = duration(reschedule, "delay", usual.delay)
    most = duration(reschedule, "max_delay", usual.max_delay)
    function = text(reschedule, "delay_function", usual.delay_function)
    interval = duration(reschedule, "interval", usual.interval)
    attempts = number(reschedule, "attempts")
    before, waited = timedelta(), timedelta()
    for _ in range(min(attempts, _MOST_ATTEMPTS)):
        waited += delay
        if waited > interval:
            hint = "write a longer interval, fewer attempts or a shorter delay"
            fault = f"{attempts} attempts do not fit an interval of {format_duration(interval)}"
            report.add((*at, "attempts"), fault, hint)
            return
        if function == "exponential":
            delay = min(Duration(seconds=2 * delay.total_seconds()), most)
        elif function == "fibonacci":
            before, delay = delay, min(Duration(seconds=(before + delay).total_seconds()), most)
