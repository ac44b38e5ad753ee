"""`trueup revisions`: states of the spec source, and what became of each."""

import dataclasses

import click

from cli.blocks import Column, ago
from cli.listing import Listing, run
from cli.options import Command, output_option, watch_option
from cli.system import SystemClock
from cli.views import RevisionView, short_id


def changes(revision: RevisionView) -> str:
    """The jobs it touched, as `+new ~changed -removed !invalid`."""
    jobs = revision.jobs
    marked = (("+", jobs.created), ("~", jobs.updated), ("-", jobs.removed), ("!", jobs.invalid))
    return " ".join(f"{mark}{name}" for mark, names in marked for name in names)


LISTING = Listing(
    path="/revisions",
    kind=RevisionView,
    columns=(
        Column("REVISION", lambda revision: short_id(revision.id)),
        Column("STATE", lambda revision: revision.state),
        Column("SEEN", lambda revision: ago(revision.seen_at, SystemClock().now())),
        Column("APPLIED", lambda revision: ago(revision.applied_at, SystemClock().now()), wide=True),
        Column("AUTHOR", lambda revision: revision.author or "-"),
        Column("JOBS", changes),
        Column("ERRORS", lambda revision: str(len(revision.errors) or "")),
        Column("SUBJECT", lambda revision: revision.subject),
        Column("ID", lambda revision: revision.id, wide=True),
    ),
    name=lambda revision: revision.id,
    empty="no revision was seen yet",
)


@click.command(cls=Command)
@click.option("--status", help="Only in this state: pending, applied, held, superseded, invalid.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@output_option()
@watch_option()
def command(status: str | None, limit: int, output: str, watch: bool) -> None:
    """List revisions of the specs, newest first: who, what, and which jobs they touched.

    Jobs: `+` created, `~` updated, `-` removed, `!` left at their last good version.
    """
    listing = dataclasses.replace(LISTING, at_most=limit)
    run(listing, output=output, stay=watch, status=status, reverse=True)
