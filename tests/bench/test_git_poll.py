"""A poll of a repository with nothing new: one query of the ref, nothing written to the store, nothing parsed.

Counted, not timed: the git that is run writes down with what words, and SQLite says how often it was written to. Its
CPU is told beside that of one `git ls-remote`, which is the least that a poll can cost.
"""

import itertools
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from metastore.store import SqlStore
from reconciler.sync import SyncLoop
from tests.bench.measure import cpu_timed_with_children, figure, in_turns, note, sample, title
from tests.bench.trees import write_tree
from tests.builders import CountingIds
from tests.unit.sources_io.repository import ENVIRONMENT, ManualClock, Repo
from trueup.sources import parse
from trueup.sources.git import GitSettings
from trueup.sources.spec_source import git_source

JOBS = 1_000
ROUNDS = 9
_ASKING = frozenset({"fetch", "ls-remote"})
_WRAPPED = """\
#!/bin/sh
for word do printf '%s ' "$word"; done >> {log}
echo >> {log}
exec {git} "$@"
"""


def test_a_poll_with_nothing_new(tmp_path: Path) -> None:
    title(f"A poll with nothing new, {JOBS} jobs")
    repo, clock = Repo(tmp_path / "repo"), ManualClock()
    write_tree(repo.path, JOBS)
    repo.commit({})
    log = tmp_path / "git.log"
    store = SqlStore.open(tmp_path / "data", clock, CountingIds())
    source = git_source(
        GitSettings(url=repo.path.as_uri()),
        tmp_path / "data",
        clock,
        environment=ENVIRONMENT | {"PATH": f"{_wrapped_git(tmp_path / 'bin', log)}:{ENVIRONMENT['PATH']}"},
    )
    sync = SyncLoop(source, store, clock)
    try:
        sync.step()
        assert len(store.state.jobs) == JOBS

        def poll() -> None:
            clock.seconds += 60
            sync.step()

        poll()
        log.write_text("")
        index, written = store.state.index, _written(tmp_path / "data")
        parsed = _calls_into(parse.__file__, poll)
        commands = log.read_text().splitlines()
        writes = store.state.index - index + (_written(tmp_path / "data") != written)

        def ls_remote() -> None:
            subprocess.run(
                ["git", "ls-remote", "--quiet", repo.path.as_uri(), "refs/heads/main"],
                check=True,
                capture_output=True,
                env=ENVIRONMENT,
            )

        reference, ours = in_turns(
            ROUNDS, lambda: cpu_timed_with_children(ls_remote), lambda: cpu_timed_with_children(poll)
        )
    finally:
        source.close()
        store.close()
    queries = [line for line in commands if _ASKING & set(line.split())]
    for line in commands:
        note(
            f"git {' '.join(itertools.islice((w for w in line.split() if not w.startswith('-c')), 12))[:90]}"
        )
    figure("queries of the ref", len(queries), 1, "  ")
    figure("git processes in all", len(commands), 2, "  ")
    figure("writes to the store", writes, 0, "  ")
    figure("calls into the parser", parsed, 0, "  ")
    sample("git ls-remote, CPU", reference)
    sample("poll, CPU with git's", ours)
    note(f"that is {statistics.median(ours) / statistics.median(reference):.1f} times the one query")


def _wrapped_git(folder: Path, log: Path) -> Path:
    """A folder with a `git` that writes down each command before it is the real one."""
    folder.mkdir()
    git = folder / "git"
    git.write_text(_WRAPPED.format(log=log, git=shutil.which("git")))
    git.chmod(0o755)
    return folder


def _written(data: Path) -> list[tuple[str, int, int]]:
    """Size and time of the store's file and of its log."""
    found = sorted(path for path in data.glob("trueup.db*") if "shm" not in path.name)
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in found]


def _calls_into(file: str, work: Callable[[], None]) -> int:
    """How many functions of a module *work* calls."""
    count = 0

    def seen(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename == file

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count
