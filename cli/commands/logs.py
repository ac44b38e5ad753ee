"""`trueup logs`: what a task wrote. Raw into a pipe; made safe for a terminal."""

import codecs
import sys
from collections.abc import Iterable, Iterator, Sequence

import click

from cli.clean import clean_lines
from cli.client import Client, path_of
from cli.failures import Failed, say
from cli.finding import allocations_of, find_job_or_allocation
from cli.options import DURATION, Command
from cli.settings import settings
from cli.views import AllocationView, JobView
from trueup.models.units import Duration, format_duration


@click.command(cls=Command)
@click.argument("what", metavar="ALLOC|JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task ends.")
@click.option("--task", metavar="T", help="Which task; may be left out where there is one.")
@click.option("--stderr", is_flag=True, help="What it wrote to stderr, instead of stdout.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("--since", type=DURATION, metavar="SPAN", help="Only what was written in this time, like 5m.")
@click.option("-t", "--timestamps", is_flag=True, help="Each line with the time it came.")
@click.option("-p", "--previous", is_flag=True, help="Of the attempt before the newest.")
def command(
    what: str,
    follow: bool,
    task: str | None,
    stderr: bool,
    tail: int | None,
    since: Duration | None,
    timestamps: bool,
    previous: bool,
) -> None:
    """Print what a task of an allocation wrote.

    Of a JOB with several allocations, the newest that is wanted is taken and named on stderr, with how many others
    there are; those that have ended are asked for by their id. Into a pipe the output goes as the
    task wrote it; on a terminal, control characters show as escapes.
    """
    if follow and previous:
        raise click.UsageError("--follow and --previous exclude each other: an earlier attempt has ended")
    client = Client(settings())
    held = _choose(client, what)
    with client.stream(
        path_of("allocations", held.id, "logs"),
        read_seconds=None if follow else 30.0,
        task=_choose_task(held, task),
        stream="stderr" if stderr else None,
        follow=follow,
        tail=None if tail is None else str(tail),
        since=None if since is None else format_duration(since),
        timestamps=timestamps,
        previous=previous,
    ) as chunks:
        if sys.stdout.isatty():
            _print_clean(chunks)
        else:
            _print_raw(chunks)


def _choose(client: Client, what: str) -> AllocationView:
    found = find_job_or_allocation(client, what)
    if isinstance(found, AllocationView):
        return found
    return _newest_of(client, found)


def _newest_of(client: Client, job: JobView) -> AllocationView:
    held = allocations_of(client, job.name)
    # One that has not begun has written nothing yet: an older one tells more.
    held.sort(key=lambda one: one.client_status == "pending")
    if not held:
        raise Failed(f"job {job.name} has no allocations{f': {job.reason}' if job.reason else ''}")
    if len(held) > 1:
        say(
            f"{job.name} has {_counted(held)}; this is {held[0].name} ({held[0].id[:8]}) on {held[0].node}; "
            f"`trueup allocs --all --job {job.name}` lists the others"
        )
    return held[0]


def _counted(held: Sequence[AllocationView]) -> str:
    over = sum(one.is_over for one in held)
    now = len(held) - over
    current = f"{now or 'no'} allocation{'' if now == 1 else 's'}"
    return f"{current} and {over} that {'has' if over == 1 else 'have'} ended" if over else current


def _choose_task(held: AllocationView, task: str | None) -> str | None:
    names = sorted(held.tasks)
    if task is None and len(names) > 1:
        raise Failed(f"{held.name} has the tasks {', '.join(names)}; choose one with --task", exit_code=64)
    if task is not None and names and task not in names:
        raise Failed(f"{held.name} has no task {task!r}; it has {', '.join(names)}")
    return task


def _print_raw(chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def _print_clean(chunks: Iterable[bytes]) -> None:
    for text in decoded(chunks):
        sys.stdout.write(clean_lines(text))
        sys.stdout.flush()


def decoded(chunks: Iterable[bytes]) -> Iterator[str]:
    r"""The text of *chunks*, cut neither inside a character nor between `\r` and `\n`; bad bytes as `\xNN`."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="backslashreplace")
    held = ""
    for chunk in chunks:
        text = held + decoder.decode(chunk)
        held = "\r" if text.endswith("\r") else ""
        yield text.removesuffix("\r")
    yield held + decoder.decode(b"", final=True)
