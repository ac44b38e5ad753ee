"""`trueup explain`: why something runs where it runs, why not, since when, and who asked for it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from cli.blocks import Block, Cell, Facts, Line, ago, clock_time, facts, line, table, word
from cli.client import Client, NotFound, path_of
from cli.commands.allocs import LISTING as ALLOCATIONS
from cli.finding import allocations_of, find_job_or_allocation
from cli.options import Command, output_option
from cli.output import Result, show
from cli.settings import settings
from cli.system import SystemClock
from cli.views import (
    AllocationView,
    DeploymentView,
    EvaluationView,
    JobView,
    NodeView,
    RevisionView,
    StatusView,
    TaskView,
    view,
)
from cli.wording import commit_words, find_revision, held_blocks, unplaced_words

_PASSES = 5


@click.command(cls=Command)
@click.argument("what", metavar="ALLOC|JOB")
@output_option(("text", "json", "yaml"))
def command(what: str, output: str) -> None:
    """Say why a job or an allocation runs where it runs, or why it does not.

    Names the commit, author, file and line that asked for it. ALLOC is a name (`web.app[0]`), an id or its beginning.
    """
    client, now = Client(settings()), SystemClock().now()
    found = find_job_or_allocation(client, what)
    if isinstance(found, JobView):
        show(_job_result(client, found, now), output)
        return
    show(_allocation_result(client, found, now), output)


def _job_result(client: Client, job: JobView, now: datetime) -> Result:
    revision = find_revision(client, job.revision)
    status = view(client.get("/status").body, StatusView)
    passes = _passes(client, job.name)
    rollouts = [
        view(one, DeploymentView) for one in client.list(path_of("jobs", job.name, "deployments")).body
    ]
    allocations = [held for held in allocations_of(client, job.name) if not held.is_over]
    missing = _remedies(job)
    errors = [one for one in status.errors if one.name == job.name or one.file == job.place.file]

    def blocks(_wide: bool) -> Iterator[Block]:
        yield facts(
            ("Job", Cell(f"{job.name} ({job.type}), version {job.version}", "strong")),
            ("Sync", job.sync),
            ("Health", job.health),
            ("Because", Cell(job.reason)),
            *_asked_for(job, revision, now),
            ("Since", _since(job.modified_at, now)),
            ("Placement", Cell("; ".join(_requirements(job.spec)))),
            ("Next run", Cell(clock_time(job.schedule.next)) if job.schedule is not None else ""),
        )
        if status.held is not None and job.name in status.held.removes:
            yield line()
            yield from held_blocks(status.held)
        if errors:
            yield from _section(
                "Errors in its file (its last good version stays)", [str(one) for one in errors]
            )
        if job.unplaced:
            yield from _section("Why not", unplaced_words(job.unplaced))
        if missing:
            yield from _section("What would have to change", missing)
        if rollouts:
            yield from _section("Rollout", [_rollout_words(rollouts[-1])])
        if passes:
            yield from _section("Newest passes over it", [_pass_words(one, now) for one in passes])
        if allocations:
            yield line()
            yield table(ALLOCATIONS.columns, allocations)

    plain = {
        "job": client.get(path_of("jobs", job.name)).body,
        "revision": _plain_revision(client, job.revision),
        "evaluations": _plain_passes(client, job.name),
        "remedies": missing,
    }
    return Result(plain=plain, blocks=blocks)


def _remedies(job: JobView) -> list[str]:
    """What would have to change, worked out here from the state as `plan` reads it: the API decides nothing."""
    if not job.unplaced:
        return []
    from cli.plan_inputs import live_input
    from reconciler.remedy import remedies

    return remedies(live_input(settings()).state, job.name)


def _allocation_result(client: Client, held: AllocationView, now: datetime) -> Result:
    job = _job_of(client, held)
    revision = find_revision(client, held.revision)
    node = _node_of(client, held)
    passes = [] if job is None else _passes(client, held.job)

    def blocks(_wide: bool) -> Iterator[Block]:
        yield facts(
            ("Allocation", Cell(f"{held.name}, id {held.id}", "strong")),
            ("Wanted", Cell(_wanted(held))),
            ("State", _state(held)),
            ("Since", _since(held.created_at, now)),
            *(
                _asked_for(job, revision, now, asked_by=held.revision)
                if job is not None
                else (("Commit", Cell(commit_words(held.revision, revision, now))),)
            ),
            ("Version", Cell(_version_words(held, job))),
            ("Node", Cell(_node_words(held, node))),
            ("Placement", Cell("; ".join(_requirements({} if job is None else job.spec, held.group)))),
            ("Run", Cell(clock_time(held.run))),
            ("Ports", Cell(" ".join(f"{name}={port}" for name, port in sorted(held.ports.items())))),
            *_history(client, held),
        )
        for name, task in sorted(held.tasks.items()):
            yield line()
            yield from _task_blocks(name, task)
        if passes:
            yield from _section("Newest passes over its job", [_pass_words(one, now) for one in passes])

    plain = {
        "allocation": client.get(path_of("allocations", held.id)).body,
        "revision": _plain_revision(client, held.revision),
        "place": None if job is None else {"file": job.place.file, "line": job.place.line},
        "evaluations": _plain_passes(client, held.job),
    }
    return Result(plain=plain, blocks=blocks)


def _asked_for(
    job: JobView, revision: RevisionView | None, now: datetime, asked_by: str | None = None
) -> tuple[tuple[str, Cell], ...]:
    place = str(job.place)
    if job.removed:
        asked = f"nobody any more: its document ({place}) is gone" if place else "nobody any more"
    else:
        asked = place + (f", from template {job.template}" if job.template else "")
    return (
        ("Asked for by", Cell(asked)),
        ("Commit", Cell(commit_words(asked_by or job.revision, revision, now))),
    )


def _requirements(spec: Mapping[str, Any], group: str | None = None) -> list[str]:
    """What restricts where it may run, as its document says it."""
    groups = [one for one in spec.get("groups", ()) if group is None or one.get("name") == group]
    found = []
    if spec.get("regions"):
        found.append(f"region {' or '.join(map(str, spec['regions']))}")
    holders = [spec, *groups, *(task for one in groups for task in one.get("tasks", ()))]
    for holder in holders:
        for constraint in holder.get("constraints", ()):
            words = (constraint.get("attribute"), constraint.get("operator", "="), constraint.get("value"))
            found.append(" ".join(str(part) for part in words if part))
    drivers = sorted(
        {str(task.get("driver")) for one in groups for task in one.get("tasks", ()) if task.get("driver")}
    )
    if drivers:
        found.append(f"driver {' and '.join(drivers)}")
    found += [f"host volume {one.get('source')}" for held in groups for one in held.get("volumes", ())]
    return list(dict.fromkeys(found))


def _since(moment: datetime | None, now: datetime) -> Cell:
    return Cell("" if moment is None else f"{clock_time(moment)} ({ago(moment, now)} ago)")


def _wanted(held: AllocationView) -> str:
    if held.desired_status == "run":
        return "yes"
    return f"no: {held.reason or held.desired_status}"


def _state(held: AllocationView) -> Cell:
    words = held.client_status
    if held.client_status == "running" and held.healthy is not None:
        words += ", healthy" if held.healthy else ", unhealthy"
    if held.reason and held.desired_status == "run":
        words += f": {held.reason}"
    style = word("failed" if held.healthy is False else held.client_status).style
    return Cell(words, style)


def _version_words(held: AllocationView, job: JobView | None) -> str:
    words = f"{held.job_version} of job {held.job}"
    if job is not None and job.version != held.job_version:
        words += f" (the newest is {job.version})"
    if held.deployment is not None:
        words += f", {'canary ' if held.deployment.canary else ''}in rollout {held.deployment.id[:8]}"
    return words


def _node_words(held: AllocationView, node: NodeView | None) -> str:
    if node is None:
        return f"{held.node}, which is gone"
    labels = " ".join(f"{key}={value}" for key, value in sorted(node.labels.items()))
    return f"{node.name} ({node.status}, region {node.region}{', ' + labels if labels else ''})"


def _history(client: Client, held: AllocationView) -> list[tuple[str, Cell]]:
    found = []
    for label, other in (("Replaces", held.replaces), ("Replaced by", held.replaced_by)):
        if other:
            found.append((label, Cell(_other_words(client, other))))
    if held.reschedule_events:
        count = len(held.reschedule_events)
        found.append(("Rescheduled", Cell(f"{count} {'time' if count == 1 else 'times'}")))
    return found


def _other_words(client: Client, identifier: str) -> str:
    try:
        other = view(client.get(path_of("allocations", identifier)).body, AllocationView)
    except NotFound:
        return f"{identifier[:8]}, no longer known"
    reason = f": {other.reason}" if other.reason else ""
    return f"{identifier[:8]} on {other.node} ({other.client_status}{reason})"


def _task_blocks(name: str, task: TaskView) -> Iterator[Line | Facts]:
    words = f"Task {name}: {task.state}"
    if task.state == "dead":
        words += f", {_exit_words(task)}"
    if task.restarts:
        words += f", restarted {task.restarts} {'time' if task.restarts == 1 else 'times'}"
    style = word("failed" if task.failed else task.state).style
    yield line(words, style)
    rows = [
        (clock_time(event.at), Cell(f"{event.type}: {event.message}".rstrip(": "))) for event in task.events
    ]
    if task.image_id:
        rows.insert(0, ("Image", Cell(f"{task.image}, id {task.image_id}")))
    if rows:
        yield facts(*rows)


def _exit_words(task: TaskView) -> str:
    if task.oom_killed:
        return "killed for using too much memory"
    if task.signal:
        return f"ended by signal {task.signal}"
    return "never started" if task.exit_code is None else f"exit code {task.exit_code}"


def _rollout_words(rollout: DeploymentView) -> str:
    groups = ", ".join(
        f"{name} {group.healthy} of {group.desired_total} healthy"
        + (f", {group.unhealthy} unhealthy" if group.unhealthy else "")
        + (
            f", {group.desired_canaries} canaries not promoted"
            if group.desired_canaries and not group.promoted
            else ""
        )
        for name, group in sorted(rollout.groups.items())
    )
    reason = f" ({rollout.reason})" if rollout.reason else ""
    return f"version {rollout.job_version} {rollout.status}{reason}: {groups}"


def _pass_words(found: EvaluationView, now: datetime) -> str:
    words = f"{ago(found.created_at, now)} ago"
    if found.trigger:
        words += f", {found.trigger}"
    words += f": {found.status}"
    words += f", placed {found.placed}, stopped {found.stopped}"
    if found.error:
        words += f"; {found.error}"
    return "; ".join([words, *unplaced_words(found.unplaced)])


def _section(title: str, lines: Sequence[str]) -> Iterator[Line]:
    yield line()
    yield line(f"{title}:", "strong")
    for one in lines:
        yield line(one, indent=1)


def _passes(client: Client, job: str) -> list[EvaluationView]:
    return [view(one, EvaluationView) for one in _plain_passes(client, job)]


def _plain_passes(client: Client, job: str) -> Sequence[Any]:
    found: Sequence[Any] = client.list("/evaluations", at_most=_PASSES, job=job, reverse=True).body
    return found


def _plain_revision(client: Client, identifier: str) -> Any:  # noqa: ANN401 - as the control plane answers
    found = client.list("/revisions", at_most=1, revision=identifier, reverse=True).body if identifier else []
    return found[0] if found else None


def _job_of(client: Client, held: AllocationView) -> JobView | None:
    try:
        return view(client.get(path_of("jobs", held.job)).body, JobView)
    except NotFound:
        return None


def _node_of(client: Client, held: AllocationView) -> NodeView | None:
    try:
        return view(client.get(path_of("nodes", held.node)).body, NodeView)
    except NotFound:
        return None
