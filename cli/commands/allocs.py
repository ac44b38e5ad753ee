"""`trueup allocs`: what runs where."""

import dataclasses
import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from cli.blocks import Cell, Column, ago, clock_time, span, word
from cli.client import path_of
from cli.listing import Listing, run
from cli.options import Command, output_option, watch_option
from cli.system import SystemClock
from cli.views import AllocationView, TaskEventView, short_id
from trueup.models.stopping import stopping_words
from trueup.models.units import parse_duration

_TROUBLES: Final = frozenset({"Driver failure", "Artifact failure", "Terminated", "Check failed", "Waiting"})
_NOT_YET: Final = "Check not passed yet"
_RESTARTING: Final = "Restarting"
_PAUSE: Final = re.compile(r"in (\S+) \(")
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


def health(held: AllocationView) -> Cell:
    """Whether it works, as far as is known."""
    if held.client_status != "running" or held.healthy is None:
        return Cell("-" if held.has_ended else "not yet", "faint")
    return Cell("yes", "good") if held.healthy else Cell("no", "bad")


def restarts(held: AllocationView) -> str:
    """How often its tasks were restarted in place."""
    return str(sum(task.restarts for task in held.tasks.values()))


def ports(held: AllocationView) -> str:
    """Its ports by name."""
    return " ".join(f"{name}={port}" for name, port in sorted(held.ports.items()))


def reason(held: AllocationView) -> Cell:
    """Why it is stopped and how far that got, or what is the matter with it."""
    stopping = "" if held.has_ended else stopping_words(held.tasks.values())
    if held.desired_status == "run":
        return Cell(held.reason or stopping or _trouble(held, SystemClock().now()))
    why = f"{held.desired_status}: {held.reason}".removesuffix(": ")
    return Cell(f"{why}; {stopping}".removesuffix("; "), "busy")


def _trouble(held: AllocationView, now: datetime) -> str:
    """What last went wrong with what should run and does not, and when it is tried again; nothing while all is well."""
    events = [event for task in held.tasks.values() for event in task.events]
    last = [task.events[-1] for task in held.tasks.values() if task.events]
    restarting = next((event for event in last if event.type == _RESTARTING), None)
    if held.has_ended or held.healthy is True:
        restarting = None
    if restarting is None and held.client_status == "running" and held.healthy is None:
        waits = next((event for event in last if event.type == _NOT_YET), None)
        return "" if waits is None else _words(waits)
    if restarting is None and held.client_status not in {"pending", "failed"} and held.healthy is not False:
        return ""
    newest = max(
        (event for event in events if event.type in _TROUBLES),
        key=lambda event: event.at or _LONG_AGO,
        default=None,
    )
    found = [] if newest is None else [_words(newest)]
    if restarting is not None:
        found.append(_restarting(restarting, now))
    return "; ".join(found)


def _words(event: TaskEventView) -> str:
    return f"{event.type}: {event.message}".rstrip(": ")


def _restarting(event: TaskEventView, now: datetime) -> str:
    """`restarting in 16s`, counted down; where the agent names no pause, what it says."""
    pause = _PAUSE.match(event.message)
    if pause is None or event.at is None:
        return f"restarting: {event.message}".rstrip(": ")
    try:
        left = event.at + parse_duration(pause[1]) - now
    except ValueError:
        return f"restarting {event.message}"
    return f"restarting in {span(left)}" if left > timedelta() else "restarting"


LISTING = Listing(
    path="/allocations",
    kind=AllocationView,
    columns=(
        Column("ID", lambda held: held.id[:8]),
        Column("NAME", lambda held: held.name),
        Column("NODE", lambda held: held.node),
        Column("STATUS", lambda held: word(held.client_status)),
        Column("HEALTHY", health),
        Column("VERSION", lambda held: str(held.job_version)),
        Column("RESTARTS", restarts),
        Column("AGE", lambda held: ago(held.created_at, SystemClock().now())),
        Column("PORTS", ports, wide=True),
        Column("RUN", lambda held: clock_time(held.run), wide=True),
        Column("REVISION", lambda held: short_id(held.revision), wide=True),
        Column("REASON", reason),
    ),
    name=lambda held: held.id,
    empty="no allocations",
    is_shown=lambda held: not held.is_over,
)


@click.command(cls=Command)
@click.option("--job", help="Only of this job.")
@click.option("--node", help="Only on this node.")
@click.option("--status", help="Only with this status: pending, running, complete, failed, lost, unknown.")
@click.option("-a", "--all", is_flag=True, help="Also those that were stopped and have ended.")
@output_option()
@watch_option()
def command(
    job: str | None,
    node: str | None,
    status: str | None,
    all: bool,  # noqa: A002 - the option's name
    output: str,
    watch: bool,
) -> None:
    """List allocations: which instance of which group is on which node, and how it does.

    `-o name` prints their ids, which is what other commands take.
    """
    path = "/allocations" if job is None else path_of("jobs", job, "allocations")
    listing = dataclasses.replace(
        LISTING, path=path, is_shown=(lambda _: True) if all or status is not None else LISTING.is_shown
    )
    run(listing, output=output, stay=watch, node=node, status=status)
