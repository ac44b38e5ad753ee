"""Both sources are what the reconciler reads from."""

from pathlib import Path

from reconciler.doors import SpecSource
from tests.unit.sources_io.repository import ManualClock, Repo, follow, job_text
from trueup.sources.spec_source import directory_source


def test_both_are_spec_sources(repo: Repo, tmp_path: Path, clock: ManualClock) -> None:
    """The same specs are the same jobs, wherever they come from."""
    repo.commit({"specs/a.yaml": job_text("a")})
    from_folder: SpecSource = directory_source([repo.path / "specs"], clock)
    from_git: SpecSource = follow(repo.path, tmp_path / "data", clock, paths=("specs",))
    one, other = from_folder.read(None), from_git.read(None)
    assert one.jobs["a"].job == other.jobs["a"].job
    assert one.jobs["a"].place == other.jobs["a"].place
    assert (from_folder.status.kind, from_git.status.kind) == ("directory", "git")
    assert from_folder.status.last_success_at == from_git.status.last_success_at == clock.now()
