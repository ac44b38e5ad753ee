"""10,000 documents in a repository, from fetch to plan; and 1,000 jobs in one commit.

CPU of this process and of the git it runs, beside PyYAML's C loader reading the same documents in the same run. That
takes 3.5 s for 10,000 where the limits were set: 12 s cold, 0.3 s with one file changed, 0.2 s with none, 5 s until
1,000 new jobs are registered and planned. So the limits are these as shares of it, on however fast a machine.
"""

import itertools
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from metastore.store import SqlStore
from reconciler.loop import ReconcileLoop
from reconciler.sync import SyncLoop
from tests.bench.clusters import bring_to_rest
from tests.bench.measure import cpu_timed, cpu_timed_with_children, figure, sample, title
from tests.bench.trees import job_text, path_of, write_tree
from tests.builders import CountingIds, a_node
from tests.unit.reconciler_loops.conftest import HandClock
from tests.unit.sources_io.repository import ENVIRONMENT, Repo
from trueup.sources.git import GitSettings
from trueup.sources.spec_source import git_source

DOCUMENTS, TOGETHER, NODES = 10_000, 1_000, 40
ROUNDS = 7
PLAIN_SECONDS = 3.5
"""Of 10,000 documents, where the limits were set."""
COLD, CHANGED, UNCHANGED = 12 / PLAIN_SECONDS, 0.3 / PLAIN_SECONDS, 0.2 / PLAIN_SECONDS
FOLLOWED = 5 / (PLAIN_SECONDS * TOGETHER / DOCUMENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """A control plane without its threads: what follows the repository, and what plans."""

    repo: Repo
    store: SqlStore
    sync: SyncLoop
    loop: ReconcileLoop
    clock: HandClock

    def poll(self) -> None:
        """The poll is due: what is new is fetched, loaded and registered."""
        self.clock.move(seconds=16)
        self.sync.step()

    def follow(self) -> None:
        """From fetch to plan."""
        self.poll()
        self.loop.step()


def test_ten_thousand_documents(tmp_path: Path) -> None:
    title(f"{DOCUMENTS} documents in a repository")
    with _plane(tmp_path) as plane:
        write_tree(plane.repo.path, DOCUMENTS, count=1)
        plane.repo.commit({})
        plain = [_plain_parse(plane.repo.path)]
        cold = cpu_timed_with_children(plane.poll)
        assert len(plane.store.state.jobs) == DOCUMENTS
        planned = cpu_timed(plane.loop.step)
        assert len(plane.store.state.allocations) == DOCUMENTS
        bring_to_rest(plane.store, plane.loop, plane.clock)
        releases = itertools.count(2)

        def changed() -> float:
            release = next(releases)
            path = path_of(plane.repo.path, 500).relative_to(plane.repo.path)
            plane.repo.commit({str(path): job_text(500, count=2, release=release)})
            seconds = cpu_timed_with_children(plane.follow)
            assert plane.store.state.jobs["job-0500"].version == release
            return seconds

        one = [changed() for _ in range(ROUNDS)]
        same = [cpu_timed_with_children(plane.follow) for _ in range(ROUNDS)]
        plain.append(_plain_parse(plane.repo.path))
    reference = statistics.median(plain)
    sample("yaml.CSafeLoader, CPU", plain)
    sample("cold: fetched, loaded, validated, registered, CPU", [cold])
    sample("first plan of all, CPU", [planned])
    sample("one changed, from fetch to plan, CPU", one)
    sample("nothing changed, CPU", same)
    figure("cold, times the plain parse", cold / reference, COLD, "x")
    figure("one changed, times the plain parse", statistics.median(one) / reference, CHANGED, "x")
    figure("nothing changed, times the plain parse", statistics.median(same) / reference, UNCHANGED, "x")


def test_a_thousand_jobs_in_one_commit(tmp_path: Path) -> None:
    title(f"{TOGETHER} jobs in one commit")
    with _plane(tmp_path) as plane:
        plane.repo.commit({"stays.yaml": job_text(9999, count=1)})
        plane.follow()
        write_tree(plane.repo.path, TOGETHER, count=1)
        plane.repo.commit({})
        reference = _plain_parse(plane.repo.path)
        seconds = cpu_timed_with_children(plane.follow)
        assert len(plane.store.state.allocations) == TOGETHER + 1
    sample("yaml.CSafeLoader, CPU", [reference])
    sample("until registered and planned, CPU", [seconds])
    figure("until registered and planned, times the plain parse", seconds / reference, FOLLOWED, "x")


@contextmanager
def _plane(folder: Path) -> Iterator[Plane]:
    clock, repo = HandClock(), Repo(folder / "repo")
    store = SqlStore.open(folder / "data", clock, CountingIds(first=10**9))
    source = git_source(GitSettings(url=repo.path.as_uri()), folder / "data", clock, environment=ENVIRONMENT)
    try:
        with store.transaction() as tx:
            for number in range(NODES):
                tx.put_node(a_node(f"node-{number}", cpu=64, memory="256GiB"))
        yield Plane(
            repo=repo,
            store=store,
            sync=SyncLoop(source, store, clock),
            loop=ReconcileLoop(store, clock, CountingIds()),
            clock=clock,
        )
    finally:
        source.close()
        store.close()


def _plain_parse(folder: Path) -> float:
    return cpu_timed(
        lambda: [yaml.load(path.read_bytes(), yaml.CSafeLoader) for path in folder.rglob("*.yaml")]
    )
