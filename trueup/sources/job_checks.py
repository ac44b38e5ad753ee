"""The rules of a whole job that no schema can say: names, type, schedule, rollout.

Works on plain data of a rendered job, sound or not, and adds each fault to the report.
"""

from datetime import timedelta
from typing import Final

from trueup.models.job import Update
from trueup.sources.constraint_checks import check_placement
from trueup.sources.group_checks import check_group
from trueup.sources.parts import Plain, check_unique, duration, mapping, mappings, number, text, texts
from trueup.sources.report import Report

BATCH_TYPES: Final = frozenset({"batch", "sysbatch"})
SYSTEM_TYPES: Final = frozenset({"system", "sysbatch"})
_DEFAULTS: Final = Update()


def check_job(report: Report, job: Plain) -> None:
    """Adds what breaks a rule of the contract."""
    job_type = text(job, "type", "service")
    if "schedule" in job and job_type not in BATCH_TYPES:
        report.add(("schedule",), f"a {job_type} job has no schedule", "write type: batch", key=True)
    for index, name in texts(job, "depends_on"):
        if name == job.get("name"):
            report.add(("depends_on", index), "a job cannot depend on itself")
    _check_update(report, mapping(job, "update"))
    check_placement(report, job, ())
    groups = list(mappings(job, "groups", ()))
    for path, group in groups:
        if "name" not in group and len(groups) > 1:
            report.add(path, "name is missing", "only a single group may leave it out")
        if job_type in SYSTEM_TYPES and number(group, "count", 1) > 1:
            hint = "leave count out; constraints choose the nodes"
            report.add((*path, "count"), f"a {job_type} job runs one on each node", hint)
        check_group(report, job, group, path)
    check_unique(report, job, "groups", ())
    _check_fixed_ports(report, job)


def _check_update(report: Report, update: Plain) -> None:
    healthy = duration(update, "healthy_deadline", _DEFAULTS.healthy_deadline)
    least = duration(update, "min_healthy_time", _DEFAULTS.min_healthy_time)
    progress = duration(update, "progress_deadline", _DEFAULTS.progress_deadline)
    if least >= healthy:
        at = "min_healthy_time" if "min_healthy_time" in update else "healthy_deadline"
        report.add(("update", at), f"min_healthy_time {least} is not shorter than healthy_deadline {healthy}")
    if timedelta() < progress < healthy:
        at = "progress_deadline" if "progress_deadline" in update else "healthy_deadline"
        report.add(("update", at), f"progress_deadline {progress} is shorter than healthy_deadline {healthy}")
    if update.get("auto_promote") is True and not number(update, "canary"):
        report.add(("update", "auto_promote"), "there are no canaries to promote", "set canary")


def _check_fixed_ports(report: Report, job: Plain) -> None:
    """A host port can be asked for once in a group; two of one group would never fit on a node."""
    for path, group in mappings(job, "groups", ()):
        seen: dict[tuple[int, str], str] = {}
        for at, port in mappings(group, "ports", path):
            fixed = number(port, "port")
            key = (fixed, text(port, "bind"))
            if fixed and key in seen:
                report.add((*at, "port"), f"{fixed} is asked for by port {seen[key]!r} already")
            seen[key] = text(port, "name")
