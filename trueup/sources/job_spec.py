"""Valid plain data to a Job: names, drivers and policies filled in, and one form for what means the same.

A default written out, a list of named things in another order, a name left out: all give an equal Job.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from trueup.models.codec import from_plain
from trueup.models.job import (
    Job,
    JobType,
    Reschedule,
    Restart,
    TaskGroup,
    reschedule_policy,
    restart_policy,
)
from trueup.sources.inline import sources_of
from trueup.sources.job_checks import check_job
from trueup.sources.overlay import without_nulls
from trueup.sources.parts import Plain, mapping
from trueup.sources.report import Report
from trueup.sources.schemas import schema, validator
from trueup.sources.shape import Shape
from trueup.sources.snapshot import FileKey
from trueup.sources.tree import PlacedMapping, Spot, Tree
from trueup.sources.wording import add_faults

_NOT_OF_A_JOB: Final = frozenset({"kind", "template", "parameters"})
_NAMED_LISTS: Final = ("ports", "services", "volumes")
JOB_SHAPE: Final = Shape(schema("Job"))
_NOWHERE: Final = Spot(FileKey(0, ""), 0, 0)
_MAX_SHOWN: Final = 3


def check_spec(tree: Tree, report: Report) -> Plain:
    """The plain data of a job, texts as written, with every fault of it in *report*."""
    plain, clean = JOB_SHAPE.read(tree.value)
    if not clean:
        add_faults(report, validator("Job").iter_errors(plain))
    if isinstance(plain, dict):
        check_job(report, plain)
        return plain
    return {}


def build_job(plain: Plain) -> Job:
    """The Job that valid data describes."""
    fields = {key: held for key, held in plain.items() if key not in _NOT_OF_A_JOB}
    job_type: JobType = fields.get("type", "service")
    groups = [_complete_group(group, fields["name"], job_type) for group in fields["groups"]]
    fields["groups"] = sorted(groups, key=lambda group: str(group["name"]))
    for key in ("regions", "depends_on"):
        if key in fields:
            fields[key] = sorted(fields[key])
    return from_plain(fields, Job)


def job_from_spec(spec: Mapping[str, Any]) -> Job:
    """Builds a job from its spec form as a person may write it: names and drivers may be missing.

    ValueError with what is wrong; the same rules as for documents, but templates and `source` files are put in already.
    """
    tree = Tree(value=_with_kind(spec), root=_NOWHERE)
    report = Report(tree)
    for key in ("template", "parameters"):
        if key in spec:
            report.add((key,), "a job of a state is rendered already", "leave it out")
    plain = check_spec(tree, report)
    for source in sources_of(plain, tree):
        report.add((*source.path, "source"), "a job of a state holds its files already", "write content")
    if report.errors:
        shown = [f"{error.path}: {error.message}" if error.path else error.message for error in report.errors]
        more = f" (and {len(shown) - _MAX_SHOWN} more)" if len(shown) > _MAX_SHOWN else ""
        raise ValueError("; ".join(shown[:_MAX_SHOWN]) + more)
    return build_job(plain)


def _with_kind(spec: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a tree, or plain data
    made = without_nulls(spec if isinstance(spec, dict) else dict(spec))
    if isinstance(made, PlacedMapping):
        made.put("kind", "Job", (_NOWHERE.file, 0, 0, 0, 0))
    else:
        made["kind"] = "Job"
    return made


def _complete_group(group: Plain, job: str, job_type: JobType) -> Plain:
    made = {"name": job, **group}
    made["tasks"] = [_complete_task(task, job) for task in group["tasks"]]
    for key in _NAMED_LISTS:
        if key in made:
            made[key] = sorted(made[key], key=lambda held: str(held["name"]))
    nothing = TaskGroup(name="", tasks=())
    restart = _filled_restart(mapping(group, "restart"), restart_policy(job_type, nothing))
    reschedule = _filled_reschedule(mapping(group, "reschedule"), reschedule_policy(job_type, nothing))
    for key, policy in (("restart", restart), ("reschedule", reschedule)):
        made.pop(key, None)
        if policy is not None:
            made[key] = policy
    return made


def _complete_task(task: Plain, job: str) -> Plain:
    driver = "docker" if "image" in task["config"] else "process"
    made = {"name": job, **task, "driver": driver}
    if "files" in made:
        made["files"] = sorted(made["files"], key=lambda held: str(held["path"]))
    return made


def _filled_restart(written: Plain, default: Restart) -> Restart | None:
    """A policy whose missing fields are its job type's, or None if that is all it is."""
    read = from_plain(written, Restart)
    whole = msgspec.structs.replace(default, **{key: getattr(read, key) for key in written})
    return None if whole == default else whole


def _filled_reschedule(written: Plain, default: Reschedule) -> Reschedule | None:
    base = default
    if "attempts" in written or written.get("unlimited") is False:
        base = msgspec.structs.replace(base, unlimited=False)
    elif written.get("unlimited"):
        base = msgspec.structs.replace(base, attempts=0, interval=Reschedule().interval)
    read = from_plain(written, Reschedule)
    whole = msgspec.structs.replace(base, **{key: getattr(read, key) for key in written})
    return None if whole == default else whole
