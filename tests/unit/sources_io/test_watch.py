"""Watching hastens a look; where it cannot, readers look by themselves."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from watchdog.events import (
    DirDeletedEvent,
    DirModifiedEvent,
    FileClosedEvent,
    FileClosedNoWriteEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileOpenedEvent,
    FileSystemEvent,
)
from watchdog.observers.api import BaseObserver

from tests.unit.sources_io.repository import ManualClock, Repo, follow, job_text
from trueup.sources import watch
from trueup.sources.directory import DirectoryTree
from trueup.sources.spec_source import TreeSpecSource, directory_source
from trueup.sources.watch import _Handler

_SECONDS = 10.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "specs"
    (folder / "in").mkdir(parents=True)
    (folder / "in/a.yaml").write_text(job_text("a"))
    return folder


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def source(root: Path, clock: ManualClock, woken: threading.Event) -> Iterator[TreeSpecSource]:
    source = directory_source([root], clock)
    source.start_watching(woken.set)
    source.read(None)
    woken.clear()
    yield source
    source.close()


def write(root: Path) -> None:
    (root / "in/a.yaml").write_text(job_text("a", "2"))


def rename(root: Path) -> None:
    (root / "in/a.yaml").rename(root / "b.yaml")


def remove(root: Path) -> None:
    (root / "in/a.yaml").unlink()


def make_folder(root: Path) -> None:
    (root / "new").mkdir()


def chmod(root: Path) -> None:
    (root / "in/a.yaml").chmod(0o600)


def move_root(root: Path) -> None:
    root.rename(root.with_name("away"))


@pytest.mark.parametrize("change", [write, rename, remove, make_folder, chmod, move_root])
def test_change_wakes(
    change: Callable[[Path], None], root: Path, source: TreeSpecSource, woken: threading.Event
) -> None:
    change(root)
    assert woken.wait(_SECONDS)


@pytest.mark.parametrize(
    ("event", "wakes"),
    [
        (FileOpenedEvent("/specs/a.yaml"), False),
        (FileClosedNoWriteEvent("/specs/a.yaml"), False),
        (DirModifiedEvent("/specs"), False),
        (FileModifiedEvent("/specs/app.log"), False),
        (FileClosedEvent("/specs/app.log"), False),
        (FileModifiedEvent("/specs/a.yaml"), True),
        (FileModifiedEvent("/specs/.trueupignore"), True),
        (FileModifiedEvent("/specs/used.conf"), True),
        (FileMovedEvent("/specs/a.tmp", "/specs/a.yaml"), True),
        (FileMovedEvent("/specs/..data_tmp", "/specs/..data"), True),
        (FileDeletedEvent("/specs/a.yaml"), True),
        (DirDeletedEvent("/specs/in.d"), True),
    ],
)
def test_what_wakes(event: FileSystemEvent, wakes: bool, clock: ManualClock, woken: threading.Event) -> None:
    """Reading must not, else the reader would never rest; nor a log that lies among the specs."""
    tree = DirectoryTree([Path("/specs")], clock)
    tree.loaded(frozenset({"used.conf"}))
    _Handler(woken.set, tree._matters).on_any_event(event)
    assert woken.is_set() == wakes


def test_watched_tree_is_looked_at_rarely(source: TreeSpecSource, clock: ManualClock) -> None:
    """But it is: a lost event is found in the end."""
    assert source.next_look == clock.now() + timedelta(seconds=10)


def test_root_that_is_replaced_is_watched_again(
    root: Path, source: TreeSpecSource, woken: threading.Event
) -> None:
    root.rename(root.with_name("away"))
    (root / "in").mkdir(parents=True)
    assert woken.wait(_SECONDS)
    source.read(None)
    woken.clear()
    (root / "in/b.yaml").write_text(job_text("b"))
    assert woken.wait(_SECONDS)


def test_no_watches_left(
    root: Path, clock: ManualClock, woken: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tree is looked at every second instead."""

    def refuse(_: BaseObserver) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(BaseObserver, "start", refuse)
    source = directory_source([root], clock)
    source.start_watching(woken.set)
    source.read(None)
    assert source.next_look == clock.now() + timedelta(seconds=1)
    source.close()


def test_network_file_system(
    root: Path, clock: ManualClock, woken: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's changes make no events here."""
    monkeypatch.setattr(watch, "is_remote", lambda _: True)
    source = directory_source([root], clock)
    source.start_watching(woken.set)
    source.read(None)
    assert source.next_look == clock.now() + timedelta(seconds=1)
    source.close()


@pytest.mark.parametrize("packed", [False, True])
def test_local_repository_is_watched(
    repo: Repo, tmp_path: Path, clock: ManualClock, woken: threading.Event, packed: bool
) -> None:
    """A commit is found before the next poll, an edit that is not committed is none."""
    repo.commit({"a.yaml": job_text("a")})
    if packed:
        repo.git("pack-refs", "--all")
    source = follow(repo.path, tmp_path / "data", clock)
    source.start_watching(woken.set)
    try:
        first = source.read(None)
        commit = repo.commit({"a.yaml": job_text("a", "2")})
        assert woken.wait(_SECONDS)
        assert source.read(first.commit.id).commit.id == commit
        repo.git("tag", "marker")
        assert woken.wait(_SECONDS)
    finally:
        source.close()
