"""A document that vanished stays until it was absent for the settle time."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.sources_io.repository import ManualClock, job_text
from trueup.models.desired import DesiredState
from trueup.models.source_error import SourceUnavailable
from trueup.sources.spec_source import TreeSpecSource, directory_source


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "specs"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.yaml").write_text(job_text(name))
    return folder


@pytest.fixture
def source(root: Path, clock: ManualClock) -> TreeSpecSource:
    return directory_source([root], clock)


@pytest.fixture
def first(source: TreeSpecSource) -> DesiredState:
    return source.read(None)


def wait_seconds(source: TreeSpecSource, clock: ManualClock) -> float:
    assert source.next_look is not None
    return (source.next_look - clock.now()).total_seconds()


def test_removed_file_counts_after_two_seconds(
    root: Path, source: TreeSpecSource, first: DesiredState, clock: ManualClock
) -> None:
    (root / "a.yaml").unlink()
    assert source.read(first.commit.id) is first
    assert wait_seconds(source, clock) <= 2
    clock.seconds += 1.9
    assert source.read(first.commit.id) is first
    clock.seconds += 0.1
    assert sorted(source.read(first.commit.id).jobs) == ["b"]
    assert wait_seconds(source, clock) >= 1


def test_file_that_comes_back_was_never_gone(
    root: Path, source: TreeSpecSource, first: DesiredState, clock: ManualClock
) -> None:
    """Each absence is counted anew."""
    for _ in range(3):
        (root / "a.yaml").unlink()
        assert sorted(source.read(first.commit.id).jobs) == ["a", "b"]
        clock.seconds += 1.5
        assert sorted(source.read(first.commit.id).jobs) == ["a", "b"]
        (root / "a.yaml").write_text(job_text("a"))
        assert source.read(first.commit.id).commit.id == first.commit.id


def test_other_changes_do_not_wait(
    root: Path, source: TreeSpecSource, first: DesiredState, clock: ManualClock
) -> None:
    """The revision in between is neither the one before nor the one after."""
    (root / "a.yaml").unlink()
    (root / "b.yaml").write_text(job_text("b", "2"))
    (root / "c.yaml").write_text(job_text("c"))
    between = source.read(first.commit.id)
    assert sorted(between.jobs) == ["a", "b", "c"]
    assert between.jobs["b"] != first.jobs["b"]
    assert source.read(first.commit.id) == between
    clock.seconds += 2
    after = source.read(between.commit.id)
    assert sorted(after.jobs) == ["b", "c"]
    assert len({first.commit.id, between.commit.id, after.commit.id}) == 3


def test_document_removed_from_a_file_that_stays(
    root: Path, source: TreeSpecSource, first: DesiredState, clock: ManualClock
) -> None:
    (root / "a.yaml").write_text(job_text("a") + "---\n" + job_text("c"))
    second = source.read(first.commit.id)
    assert sorted(second.jobs) == ["a", "b", "c"]
    (root / "a.yaml").write_text(job_text("a"))
    assert source.read(second.commit.id) is second
    clock.seconds += 2
    assert sorted(source.read(second.commit.id).jobs) == ["a", "b"]


def test_document_moved_to_another_file_is_at_once(
    root: Path, source: TreeSpecSource, first: DesiredState, clock: ManualClock
) -> None:
    (root / "a.yaml").rename(root / "moved.yaml")
    moved = source.read(first.commit.id)
    assert moved.errors == ()
    assert moved.jobs["a"].job == first.jobs["a"].job
    assert moved.jobs["a"].place.file == "moved.yaml"
    clock.seconds += 5
    assert source.read(moved.commit.id) == moved


def test_nothing_is_removed_while_a_file_is_written(
    root: Path, source: TreeSpecSource, first: DesiredState, clock: ManualClock
) -> None:
    """It may be where the document is moving to."""
    (root / "a.yaml").unlink()
    with (root / "moved.yaml").open("w") as file:
        file.write("kind: ")
        file.flush()
        for _ in range(4):
            assert source.read(first.commit.id) is first
            clock.seconds += 1
        file.write(job_text("a").removeprefix("kind: "))
    assert source.read(first.commit.id).jobs["a"].place.file == "moved.yaml"


def test_template_gone_for_a_moment(root: Path, source: TreeSpecSource, clock: ManualClock) -> None:
    """What an absence makes invalid for the time being is not shown as such; later it is."""
    (root / "t.yaml").write_text(
        "kind: Template\nname: t\njob: {groups: [{tasks: [{config: {command: [sleep, '1']}}]}]}\n"
    )
    (root / "c.yaml").write_text("kind: Job\nname: c\ntemplate: t\n")
    first = source.read(None)
    assert first.errors == ()
    (root / "t.yaml").unlink()
    assert source.read(first.commit.id) is first
    clock.seconds += 2
    after = source.read(first.commit.id)
    assert "c" not in after.jobs
    assert after.errors


def test_unreadable_file_removes_nothing_and_its_removal_waits(
    root: Path, source: TreeSpecSource, first: DesiredState, clock: ManualClock
) -> None:
    (root / "a.yaml").write_text("kind: [\n")
    broken = source.read(first.commit.id)
    assert broken.unreadable_files == ("a.yaml",)
    clock.seconds += 60
    assert source.read(broken.commit.id) is broken
    (root / "a.yaml").unlink()
    assert source.read(broken.commit.id).unreadable_files == ("a.yaml",)
    clock.seconds += 2
    after = source.read(broken.commit.id)
    assert after.unreadable_files == ()
    assert sorted(after.jobs) == ["b"]


def test_emptied_tree_is_an_empty_tree_after_the_wait(
    root: Path, source: TreeSpecSource, first: DesiredState, clock: ManualClock
) -> None:
    """Whether that is let happen is for whoever registers it."""
    for name in ("a", "b"):
        (root / f"{name}.yaml").unlink()
    assert source.read(first.commit.id) is first
    clock.seconds += 2
    assert source.read(first.commit.id).jobs == {}


def test_a_tree_that_is_emptied_file_by_file_goes_at_once(
    root: Path, source: TreeSpecSource, first: DesiredState, clock: ManualClock
) -> None:
    """The first file's wait is over while the second's is not: both are one loss, to be held as one."""
    (root / "a.yaml").unlink()
    source.read(first.commit.id)
    clock.seconds += 1
    (root / "b.yaml").unlink()
    source.read(first.commit.id)
    clock.seconds += 1.5
    assert sorted(source.read(first.commit.id).jobs) == ["a", "b"]
    clock.seconds += 1
    assert source.read(first.commit.id).jobs == {}


def test_after_a_start_a_changed_tree_is_watched_first(
    root: Path, first: DesiredState, clock: ManualClock
) -> None:
    """A new process cannot know whether the tree is half written."""
    (root / "a.yaml").unlink()
    source = directory_source([root], clock)
    with pytest.raises(SourceUnavailable, match="not as it was last applied"):
        source.read(first.commit.id)
    assert wait_seconds(source, clock) == pytest.approx(1, abs=1)
    clock.seconds += 1
    (root / "a.yaml").write_text(job_text("a", "2"))
    with pytest.raises(SourceUnavailable):
        source.read(first.commit.id)
    clock.seconds += 1
    assert sorted(source.read(first.commit.id).jobs) == ["a", "b"]


def test_after_a_start_an_unchanged_tree_is_taken_at_once(
    root: Path, first: DesiredState, clock: ManualClock
) -> None:
    source = directory_source([root], clock)
    assert source.read(first.commit.id) == first


def test_settle_time_of_zero(root: Path, clock: ManualClock) -> None:
    source = directory_source([root], clock, removal_settle=timedelta(0))
    source.read(None)
    (root / "a.yaml").unlink()
    assert sorted(source.read(None).jobs) == ["b"]
