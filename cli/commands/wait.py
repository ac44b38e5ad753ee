"""`trueup wait`: until a revision is applied and its jobs work, or until it is clear that they will not."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from cli.clean import clean_lines
from cli.client import Client, Gone, NotFound, Unreachable, path_of
from cli.failures import Failed, TimedOut, say
from cli.finding import allocations_of
from cli.options import DURATION, Command
from cli.settings import settings
from cli.verdicts import (
    Verdict,
    all_of,
    done,
    failed,
    judge_drained,
    judge_errors,
    judge_job,
    judge_revision,
)
from cli.views import AllocationView, DeploymentView, JobView, NodeView, RevisionView, StatusView, view
from cli.wording import find_revision
from cli.work_tree import commit_named, is_ancestor
from trueup.models.units import Duration, format_duration

_BLOCK_SECONDS = 15.0
_RETRY_SECONDS = 1.0


@click.command(cls=Command)
@click.argument("jobs", nargs=-1, metavar="[JOB…]")
@click.option(
    "--revision", metavar="R|HEAD", help="The commit to wait for, or HEAD of the repository you are in."
)
@click.option("--drained", metavar="NODE", help="Wait until nothing runs on this node.")
@click.option(
    "--specs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="With a directory as source: the folder whose content HEAD means.  [default: specs]",
)
@click.option("--timeout", type=DURATION, default="5m", show_default=True, help="How long to wait at most.")
def command(
    jobs: tuple[str, ...],
    revision: str | None,
    drained: str | None,
    specs: tuple[Path, ...],
    timeout: Duration,
) -> None:
    """Wait until a revision is applied, Synced and Healthy.

    Ends with 0 then; with 1 as soon as it is held, Invalid, or its version failed, and says why; with 124 when it
    took too long. Without a JOB it waits for the jobs the revision changed, without a revision for all jobs.
    Canaries that wait for promotion end it with 0 and a line that says so.
    """
    client = Client(settings())
    status = view(client.get("/status").body, StatusView)
    wanted = None if revision is None else _resolve(revision, status, specs)
    watch = _Watch(client, wanted, jobs, drained)
    _wait(client, watch.look, timeout)


class _Watch:
    """One look at what is waited for, as often as it is asked."""

    def __init__(self, client: Client, wanted: str | None, jobs: Sequence[str], drained: str | None) -> None:
        self._client = client
        self._wanted = wanted
        self._jobs = jobs
        self._drained = drained

    def look(self) -> tuple[Verdict, int]:
        """The verdict now, and the index it is of."""
        answer = self._client.get("/status")
        verdicts = []
        if self._drained is not None:
            verdicts.append(self._look_at_node(self._drained))
        if self._wanted is not None or self._jobs or self._drained is None:
            verdicts.append(self._look_at_jobs(view(answer.body, StatusView)))
        return all_of(verdicts), answer.index

    def _look_at_jobs(self, status: StatusView) -> Verdict:
        known = find_revision(self._client, self._wanted)
        if self._wanted is not None:
            verdict = judge_revision(self._wanted, status, known, _is_ancestor_here)
            if verdict.kind != "done":
                return verdict
        verdicts = [self._look_at_job(name, status) for name in self._names(known, status)]
        if known is not None and not self._jobs:
            verdicts.append(judge_errors(known, status))
        return all_of(verdicts)

    def _names(self, known: RevisionView | None, status: StatusView) -> list[str]:
        """The jobs that were named; else those the revision changed; else all.

        What a commit changed that was never applied itself, since a later one came with it, is among what that changed.
        """
        if self._jobs:
            return list(dict.fromkeys(self._jobs))
        if self._wanted is None:
            jobs = [view(one, JobView) for one in self._client.list("/jobs").body]
            return [job.name for job in jobs if not job.removed]
        names = [view(one, JobView).name for one in self._client.list("/jobs", revision=self._wanted).body]
        if known is None or known.applied_at is None:
            known = find_revision(self._client, status.revision)
        if known is not None:
            names += [*known.jobs.created, *known.jobs.updated, *known.jobs.removed]
        return sorted(set(names))

    def _look_at_job(self, name: str, status: StatusView) -> Verdict:
        try:
            job = view(self._client.get(path_of("jobs", name)).body, JobView)
        except NotFound:
            return failed(f"there is no job {name!r}") if name in self._jobs else done()
        rollouts = [
            view(one, DeploymentView) for one in self._client.list(path_of("jobs", name, "deployments")).body
        ]
        needed = job.health == "Degraded"
        allocations = allocations_of(self._client, name) if needed else []
        held = None if self._wanted is None else status.held
        return judge_job(
            job,
            rollouts[-1] if rollouts else None,
            allocations,
            later_is_held=held is not None and name in held.removes,
        )

    def _look_at_node(self, name: str) -> Verdict:
        node = view(self._client.get(path_of("nodes", name)).body, NodeView)
        items = self._client.list("/allocations", node=name).body
        return judge_drained(node, [view(one, AllocationView) for one in items])


def _wait(client: Client, look: Callable[[], tuple[Verdict, int]], timeout: Duration) -> None:
    deadline = time.monotonic() + timeout.total_seconds()
    verdict, index = look()
    shown = ""
    while verdict.kind == "waiting":
        if verdict.words != shown and sys.stderr.isatty():
            say(f"waiting: {verdict.words}")
        shown = verdict.words
        left_seconds = deadline - time.monotonic()
        if left_seconds <= 0:
            raise TimedOut(f"timed out after {format_duration(timeout)}: {verdict.words}")
        try:
            client.get("/status", index=index, wait_seconds=min(_BLOCK_SECONDS, left_seconds))
            verdict, index = look()
        except Gone:
            # Another store: its indexes begin anew.
            verdict, index = look()
        except Unreachable as error:
            verdict = Verdict(kind="waiting", words=error.message)
            time.sleep(min(_RETRY_SECONDS, left_seconds))
    if verdict.kind == "failed":
        raise Failed(verdict.words)
    click.echo(clean_lines(verdict.words or "applied, Synced and Healthy"))


def _is_ancestor_here(older: str, newer: str) -> bool | None:
    return is_ancestor(older, newer, Path())


def _resolve(revision: str, status: StatusView, specs: Sequence[Path]) -> str:
    """The full id of the revision meant. Failed if HEAD means nothing here."""
    if status.source.kind == "directory":
        if revision != "HEAD":
            return revision
        from cli.spec_trees import directory_revision

        return directory_revision(specs or [Path("specs")])
    found = commit_named(revision, Path())
    if found is None and revision == "HEAD":
        raise Failed("HEAD means nothing here: run this inside the git repository of the specs")
    return found or revision
