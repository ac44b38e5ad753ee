"""`trueup status`: is what git says what we have planned (sync), and does it work (health)?"""

from collections.abc import Mapping, Sequence

import click

from cli.blocks import Block, Cell, Column, ago, facts, line, table, word
from cli.client import Answer, Client, path_of
from cli.commands.allocs import LISTING as ALLOCATIONS
from cli.finding import find_job
from cli.listing import WAIT_SECONDS
from cli.options import Command, output_option, watch_option
from cli.output import Result, show
from cli.output import watch as show_on_change
from cli.settings import settings
from cli.system import SystemClock
from cli.views import AllocationView, GroupView, JobView, RemoteView, StatusView, short_id, view
from cli.wording import commit_words, find_revision, held_blocks, unplaced_words

_FORMS = ("table", "wide", "json", "yaml", "name")


@click.command(cls=Command)
@click.argument("job", required=False)
@output_option(_FORMS)
@watch_option()
def command(job: str | None, output: str, watch: bool) -> None:
    """Show sync and health of everything, or of one JOB with its allocations.

    `-o json` prints the control plane's own answer: `/status`, or with a JOB `/jobs/JOB`.
    """
    client = Client(settings())

    def read(newer_than: int) -> Result:
        # With an index the server holds the answer back until something changed.
        waiting = {"index": newer_than} if newer_than else {}
        wait_seconds = WAIT_SECONDS if newer_than else 0.0
        if job is None:
            return _cluster(client, client.get("/status", wait_seconds=wait_seconds, **waiting))
        if newer_than:
            return _job(client, client.get(path_of("jobs", job), wait_seconds=wait_seconds, **waiting))
        return _job(client, find_job(client, job))

    if watch:
        show_on_change(read, output)
    else:
        show(read(0), output)


def _cluster(client: Client, answer: Answer) -> Result:
    status = view(answer.body, StatusView)
    jobs = [view(one, JobView) for one in client.list("/jobs").body]
    shown = [one for one in jobs if not one.removed or one.status != "dead"]

    def blocks(wide: bool) -> list[Block]:
        made: list[Block] = [_cluster_facts(client, status)]
        remotes = status.source.remotes
        if wide or _worth_showing(remotes):
            made += [line(), table(_remote_columns(), remotes, wide=wide)]
        if status.held is not None:
            made += [line(), *held_blocks(status.held)]
        if status.errors:
            made += [line(), line("Errors (these documents stay at their last good version):", "bad")]
            made += [line(str(error), indent=1) for error in status.errors]
        made.append(line())
        made.append(table(JOB_COLUMNS, shown, wide=wide) if shown else line(_no_jobs(status)))
        return made

    return Result(plain=answer.body, names=[one.name for one in shown], blocks=blocks, index=answer.index)


def _worth_showing(remotes: Sequence[RemoteView]) -> bool:
    """With one that is read, and a copy of it, there is nothing to tell."""
    hosts = [remote for remote in remotes if not remote.emergency]
    if len(hosts) > 1 or any(remote.error for remote in remotes):
        return bool(remotes)
    return any(remote.emergency and remote.state in {"followed", "diverged"} for remote in remotes)


def _remote_columns() -> tuple[Column[RemoteView], ...]:
    now = SystemClock().now()
    return (
        Column("REMOTE", lambda remote: remote.url),
        Column("STATE", lambda remote: remote.state),
        Column("COMMIT", lambda remote: short_id(remote.commit)),
        Column("LAST READ", lambda remote: ago(remote.last_success_at, now)),
        Column("ERROR", lambda remote: remote.error.removeprefix(f"{remote.url}: ")),
    )


def _no_jobs(status: StatusView) -> str:
    if status.source.url:
        return f"no jobs: add a document of `kind: Job` to a file of {status.source.url}"
    return "no jobs: `trueup init` writes examples"


def _cluster_facts(client: Client, status: StatusView) -> Block:
    now = SystemClock().now()
    source = f"{status.source.kind} {status.source.url}".strip()
    if status.source.last_success_at is not None:
        source += f", last read {ago(status.source.last_success_at, now)} ago"
    reason = "" if status.held is not None and status.reason.startswith("held") else status.reason
    return facts(
        ("Sync", _with_reason(status.sync, reason if status.sync != "Synced" else "")),
        ("Health", _with_reason(status.health, reason if status.sync == "Synced" else "")),
        ("Revision", commit_words(status.revision, find_revision(client, status.revision), now)),
        ("Source", source),
        ("Source error", Cell(status.source.error, "bad")),
        ("Nodes", _counts(status.nodes) or Cell("none: nothing can run", "bad")),
        ("Allocations", _counts(status.allocations)),
    )


def _with_reason(found: str, reason: str) -> Cell:
    return Cell(f"{found} ({reason})" if reason else found, word(found).style)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _count(job: JobView) -> str:
    """Healthy of desired; of a batch job, which ends, placed of desired."""
    if job.schedule is not None and not job.total("desired"):
        return "-"  # no run yet, or none any more
    field = "placed" if job.type in {"batch", "sysbatch"} else "healthy"
    return f"{job.total(field)}/{job.total('desired')}"


JOB_COLUMNS: tuple[Column[JobView], ...] = (
    Column("JOB", lambda job: job.name),
    Column("TYPE", lambda job: job.type),
    Column("SYNC", lambda job: job.sync),
    Column("HEALTH", lambda job: job.health),
    Column("COUNT", _count),
    Column("RUNNING", lambda job: str(job.total("running")), wide=True),
    Column("VERSION", lambda job: str(job.version)),
    Column("REVISION", lambda job: short_id(job.revision)),
    Column("DIGEST", lambda job: job.digest, wide=True),
    Column("PRIORITY", lambda job: str(job.priority), wide=True),
    Column("FROM", lambda job: str(job.place), wide=True),
    Column("REASON", lambda job: job.reason),
)

_GROUP_COLUMNS: tuple[Column[GroupView], ...] = (
    Column("GROUP", lambda group: group.name),
    Column("DESIRED", lambda group: str(group.desired)),
    Column("PLACED", lambda group: str(group.placed)),
    Column("RUNNING", lambda group: str(group.running)),
    Column("HEALTHY", lambda group: str(group.healthy)),
    Column("FAILED", lambda group: str(group.failed)),
)


def _job(client: Client, answer: Answer) -> Result:
    job = view(answer.body, JobView)
    allocations = [
        view(one, AllocationView) for one in client.list(path_of("jobs", job.name, "allocations")).body
    ]
    current = [held for held in allocations if not held.is_over]

    def blocks(wide: bool) -> list[Block]:
        made: list[Block] = [_job_facts(client, job)]
        made += [line(), table(_GROUP_COLUMNS, job.groups, wide=wide)]
        if job.unplaced:
            made += [line(), *(line(words, "bad") for words in unplaced_words(job.unplaced))]
        if current:
            made += [line(), table(ALLOCATIONS.columns, current, wide=wide)]
        return made

    return Result(plain=answer.body, names=[job.name], blocks=blocks, index=answer.index)


def _job_facts(client: Client, job: JobView) -> Block:
    now = SystemClock().now()
    return facts(
        ("Job", Cell(f"{job.name} ({job.type}), version {job.version}", "strong")),
        ("Sync", job.sync),
        ("Health", job.health),
        ("Reason", Cell(job.reason)),
        ("Revision", Cell(commit_words(job.revision, find_revision(client, job.revision), now))),
        ("From", Cell(str(job.place) + (f", template {job.template}" if job.template else ""))),
        ("Digest", Cell(job.digest)),
        ("Last run", _moment(job, "last")),
        ("Next run", _moment(job, "next")),
    )


def _moment(job: JobView, which: str) -> str:
    moment = None if job.schedule is None else getattr(job.schedule, which)
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
