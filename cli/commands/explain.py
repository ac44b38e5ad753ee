"""`trueup explain`: why something runs where it runs, why not, since when, and who asked for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from cli.standing_words import why_here, why_not_elsewhere
from cli.system import SystemClock
from cli.views import (
    AllocationView,
    DeploymentView,
    EvaluationView,
    EventView,
    JobView,
    NodeView,
    RevisionView,
    StatusView,
    TaskView,
    view,
)
from cli.wording import commit_words, find_revision, held_blocks, revision_label, unplaced_words
from reconciler.standing import Whereabouts
from trueup.models.ids import AllocationId
from trueup.models.reasons import WAITS

_PASSES = 3
_EVENTS = 5
_EVENTS_LOOKED_AT = 100


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
    thought = _thought_of_job(job, now)
    missing = thought.remedies
    happened = _events(client, job.name)
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
            ("Last run", Cell(clock_time(job.schedule.last)) if job.schedule is not None else ""),
            ("Next run", Cell(clock_time(job.schedule.next)) if job.schedule is not None else ""),
            ("Waits for", Cell("; ".join(_waits(job, rollouts[-1] if rollouts else None)))),
            ("Looks again", _in(thought.next_look, now)),
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
        if happened:
            yield from _section("What happened last", [_event_words(one) for one in happened])
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Thought:
    """What a pass over the job would make of it now: what would have to change, and when it looks again."""

    remedies: list[str]
    next_look: datetime | None


def _thought_of_job(job: JobView, now: datetime) -> _Thought:
    """Worked out here from the state as `plan` reads it: the API decides nothing."""
    if job.removed and job.status == "dead":
        return _Thought(remedies=[], next_look=None)
    from cli.plan_inputs import CountedIds, live_input
    from reconciler.evaluate import evaluate
    from reconciler.remedy import remedies

    state = live_input(settings()).state
    next_look = (
        evaluate(job.name, state, now, CountedIds()).changes.next_look if job.name in state.jobs else None
    )
    planned = None if job.schedule is None else job.schedule.next
    return _Thought(
        remedies=remedies(state, job.name) if job.unplaced else [],
        next_look=None if next_look == planned else next_look,
    )


def _waits(job: JobView, rollout: DeploymentView | None) -> list[str]:
    """What has to come from elsewhere before it goes on."""
    found = [
        reason.removeprefix(WAITS)
        for one in job.unplaced
        for reason in one.reasons
        if reason.startswith(WAITS)
    ]
    if rollout is not None and rollout.job_version == job.version and rollout.status in {"running", "paused"}:
        groups = [one for one in rollout.groups.values() if one.desired_canaries and not one.promoted]
        if groups and all(one.healthy >= one.desired_canaries for one in groups):
            found.append(f'its canaries\' promotion: `update: {{promote: "{job.digest}"}}`')
    return list(dict.fromkeys(found))


def _allocation_result(client: Client, held: AllocationView, now: datetime) -> Result:
    job = _job_of(client, held)
    revision = find_revision(client, held.revision)
    node = _node_of(client, held)
    stands, next_look = _judged(held, now)
    job_type = "" if job is None else job.type
    happened = [one for one in _events(client, held.job, _EVENTS_LOOKED_AT) if one.allocation == held.id]

    def blocks(_wide: bool) -> Iterator[Block]:
        yield facts(
            ("Allocation", Cell(f"{held.name}, id {held.id}", "strong")),
            ("Wanted", Cell(_wanted(held))),
            ("State", _state(held)),
            ("Since", _since(held.created_at, now)),
            *(
                _asked_for(job, revision, now, asked_by=held.revision)
                if job is not None
                else ((revision_label(held.revision), Cell(commit_words(held.revision, revision, now))),)
            ),
            ("Version", Cell(_version_words(held, job))),
            ("Node", Cell(_node_words(held, node))),
            ("Placement", Cell("; ".join(_requirements({} if job is None else job.spec, held.group)))),
            ("Run", Cell(clock_time(held.run))),
            ("Next try", _in(next_look, now) if _is_to_be_tried_again(held) else Cell("")),
            ("Ports", Cell(" ".join(f"{name}={port}" for name, port in sorted(held.ports.items())))),
            *_history(client, held),
        )
        for name, task in sorted(held.tasks.items()):
            yield line()
            yield from _task_blocks(name, task)
        if stands is not None and held.desired_status == "run" and not held.has_ended:
            yield from _section("Why here", [why_here(stands, job_type)])
            if job_type not in {"system", "sysbatch"}:
                yield from _section("Why not elsewhere", why_not_elsewhere(stands, held.node))
        if happened:
            yield from _section("What happened last", [_event_words(one) for one in happened[-_EVENTS:]])

    plain = {
        "allocation": client.get(path_of("allocations", held.id)).body,
        "revision": _plain_revision(client, held.revision),
        "place": None if job is None else {"file": job.place.file, "line": job.place.line},
        "evaluations": _plain_passes(client, held.job),
        "whereabouts": None if stands is None else _plain_stands(stands),
    }
    return Result(plain=plain, blocks=blocks)


def _judged(held: AllocationView, now: datetime) -> tuple[Whereabouts | None, datetime | None]:
    """How the nodes stand to it now, as the planner judges; and when its job is looked at again."""
    from cli.plan_inputs import CountedIds, live_input
    from reconciler.evaluate import evaluate
    from reconciler.whereabouts import whereabouts

    state = live_input(settings()).state
    found = state.allocations.get(AllocationId(held.id))
    if found is None or held.job not in state.jobs:
        return None, None
    next_look = evaluate(held.job, state, now, CountedIds()).changes.next_look
    return whereabouts(state, found), next_look


def _is_to_be_tried_again(held: AllocationView) -> bool:
    return held.desired_status == "run" and held.client_status in {"failed", "lost"}


def _plain_stands(found: Whereabouts) -> dict[str, Any]:
    return {
        "score": found.score,
        "parts": found.parts,
        "refused": found.refused,
        **{
            name: [{"node": node, "score": score} for node, score in nodes]
            for name, nodes in (("lower", found.lower), ("equal", found.equal), ("higher", found.higher))
        },
    }


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
        (
            revision_label(asked_by or job.revision),
            Cell(commit_words(asked_by or job.revision, revision, now)),
        ),
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


def _in(moment: datetime | None, now: datetime) -> Cell:
    if moment is None or moment <= now:
        return Cell("")
    return Cell(f"{clock_time(moment)} (in {ago(now, moment)})")


def _events(client: Client, job: str, at_most: int = _EVENTS) -> list[EventView]:
    """The newest of a job, oldest first."""
    found = client.list("/events", at_most=at_most, job=job, reverse=True).body
    return [view(one, EventView) for one in found][::-1]


def _event_words(event: EventView) -> str:
    return f"{clock_time(event.at)}  {event.message or event.type}"


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
