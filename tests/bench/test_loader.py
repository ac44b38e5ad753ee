"""Loading 1,000 jobs cold, unchanged and with one changed, beside PyYAML's C loader reading the same files.

The reference only parses; the loader also takes values as written, knows positions, checks against the schemas and
renders. The main job sets no figure; goal 16 of LIMITS has 12 s cold and 0.3 s with one changed for 10,000 files
that PyYAML parses in 3.5 s, and its ratios are taken here.
"""

import itertools
import statistics
from datetime import timedelta
from pathlib import Path

import yaml

from tests.bench.measure import cpu_timed, figure, in_turns, note, sample, title
from tests.bench.trees import job_text, path_of, write_tree
from tests.unit.sources_io.repository import ManualClock
from trueup.sources.spec_source import TreeSpecSource, directory_source

JOBS = 1_000
ROUNDS = 5
COLD_LIMIT = 12 / 3.5
CHANGED_LIMIT = 0.3 / 3.5


def test_loader(tmp_path: Path) -> None:
    title(f"Loading {JOBS} jobs")
    folder = tmp_path / "specs"
    write_tree(folder, JOBS)
    releases = itertools.count(2)
    warm = _source(folder)
    warm.read(None)

    def plain() -> float:
        return cpu_timed(
            lambda: [yaml.load(path.read_bytes(), yaml.CSafeLoader) for path in folder.rglob("*.yaml")]
        )

    def cold() -> float:
        source = _source(folder)
        seconds = cpu_timed(lambda: source.read(None))
        source.close()
        return seconds

    def unchanged() -> float:
        return cpu_timed(lambda: warm.read(None))

    def one_changed() -> float:
        path_of(folder, 500).write_text(job_text(500, release=next(releases)))
        return cpu_timed(lambda: warm.read(None))

    reference, first, same, changed = in_turns(ROUNDS, plain, cold, unchanged, one_changed)
    state = warm.read(None)
    assert len(state.jobs) == JOBS
    assert not state.errors
    warm.close()
    sample("yaml.CSafeLoader, CPU", reference)
    sample("cold, CPU", first)
    sample("unchanged, CPU", same)
    sample("one changed, CPU", changed)
    parse = statistics.median(reference)
    note(f"unchanged is {statistics.median(same) / parse:.3f} times the plain parse")
    figure("cold, times the plain parse", statistics.median(first) / parse, COLD_LIMIT, "x")
    figure("one changed, times the plain parse", statistics.median(changed) / parse, CHANGED_LIMIT, "x")


def _source(folder: Path) -> TreeSpecSource:
    return directory_source([folder], ManualClock(), removal_settle=timedelta(0))
