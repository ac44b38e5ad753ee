"""A folder as a source: complete and at rest, or an error."""

import os
import socket
import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.sources_io.repository import ManualClock, job_text
from trueup.models.source_error import SourceUnavailable
from trueup.sources import directory
from trueup.sources.directory import DirectoryTree, Writing, _Root
from trueup.sources.directory_walk import open_file
from trueup.sources.snapshot import MAX_FILE_BYTES, FileKey, Snapshot
from trueup.sources.spec_source import directory_source, read_directory, read_documents


def look(root: Path, clock: ManualClock) -> Snapshot:
    return DirectoryTree([root], clock).snapshot(None)


def paths(snapshot: Snapshot) -> set[str]:
    return {key.path for key in snapshot.files}


def errors(snapshot: Snapshot) -> dict[str, str]:
    return {error.file: error.message for error in snapshot.errors}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "specs"
    folder.mkdir()
    return folder


def test_every_file_but_hidden_ones(root: Path, clock: ManualClock) -> None:
    """Documents in any folder, other files for `source:`, nothing that begins with a dot."""
    for name in (
        "a.yaml",
        "b.yml",
        "deep/er/c.yaml",
        "app.conf",
        ".hidden.yaml",
        ".git/d.yaml",
        "deep/.e/f.yaml",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    found = look(root, clock)
    assert paths(found) == {"a.yaml", "b.yml", "deep/er/c.yaml", "app.conf"}
    assert {key.path for key, file in found.files.items() if file.document} == {
        "a.yaml",
        "b.yml",
        "deep/er/c.yaml",
    }
    assert found.files[FileKey(0, "deep/er/c.yaml")].content() == b"deep/er/c.yaml"
    assert found.errors == ()


def test_ignored_files_are_no_documents_and_ignored_folders_are_out(root: Path, clock: ManualClock) -> None:
    for name in ("a.yaml", "b.yaml", "out/c.yaml", "in/d.yaml", "in/e.yaml"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x: 1")
    (root / ".trueupignore").write_text("b.yaml\nout/\n")
    (root / "in/.trueupignore").write_text("d.yaml\n")
    found = look(root, clock)
    assert {key.path: file.document for key, file in found.files.items()} == {
        "a.yaml": True,
        "b.yaml": False,
        "in/d.yaml": False,
        "in/e.yaml": True,
    }


def test_several_roots_make_one_tree(tmp_path: Path, clock: ManualClock) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(job_text(name))
    state = read_directory([tmp_path / "one", tmp_path / "two"], clock)
    assert sorted(state.jobs) == ["one", "two"]
    assert state.errors == ()


@pytest.mark.parametrize("name", ["missing", "file"])
def test_root_that_is_no_folder(tmp_path: Path, clock: ManualClock, name: str) -> None:
    """Never an empty tree."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceUnavailable, match=name):
        look(tmp_path / name, clock)


def test_root_vanishes_and_comes_back(root: Path, clock: ManualClock) -> None:
    """The status keeps the last success, and the error goes with the next."""
    (root / "a.yaml").write_text(job_text("web"))
    source = directory_source([root], clock)
    first = source.read(None)
    seen_at = clock.now()
    root.rename(root.with_name("away"))
    clock.seconds += 60
    with pytest.raises(SourceUnavailable, match="does not exist"):
        source.read(first.commit.id)
    assert source.status.last_success_at == seen_at
    assert "does not exist" in source.status.error
    root.with_name("away").rename(root)
    assert source.read(first.commit.id) is first
    assert source.status.error == ""
    assert source.status.last_success_at == clock.now()


def test_one_of_two_roots_vanishes(tmp_path: Path, clock: ManualClock) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    tree = DirectoryTree([tmp_path / "one", tmp_path / "two"], clock)
    tree.snapshot(None)
    (tmp_path / "two").rmdir()
    with pytest.raises(SourceUnavailable, match="two"):
        tree.snapshot(None)


def test_faults_of_single_files(root: Path, clock: ManualClock) -> None:
    """Each is an error of that file alone; all others are there."""
    (root / "good.yaml").write_text("x: 1")
    (root / "large.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    (root / "whole.yaml").write_bytes(b"#" * MAX_FILE_BYTES)
    os.mkfifo(root / "pipe.yaml")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket.yaml"))
    (root / "leaving.yaml").symlink_to("../outside.yaml")
    (root / "absolute.yaml").symlink_to(root / "good.yaml")
    (root / "nowhere.yaml").symlink_to("gone.yaml")
    (root / "round.yaml").symlink_to("round.yaml")
    (root / os.fsdecode(b"caf\xe9.yaml")).write_text("x: 1")
    found = look(root, clock)
    assert paths(found) == {"good.yaml", "whole.yaml"}
    assert errors(found) == {
        "large.yaml": "is larger than 1 MiB",
        "pipe.yaml": "is no regular file",
        "socket.yaml": "is no regular file",
        "leaving.yaml": "is a link that leaves the spec tree",
        "absolute.yaml": "is a link that leaves the spec tree",
        "nowhere.yaml": "is a link to nothing",
        "round.yaml": "is a link that leads to itself",
        "caf\\xe9.yaml": "has a name that is no UTF-8",
    }


def test_other_files_are_no_errors_but_unusable(root: Path, clock: ManualClock) -> None:
    (root / "large.bin").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    os.mkfifo(root / "pipe")
    (root / "README").symlink_to("../README")
    found = look(root, clock)
    assert found.errors == ()
    assert {key.path for key in found.unusable} == {"large.bin", "pipe", "README"}


def test_link_to_a_folder_outside_is_an_error(root: Path, clock: ManualClock) -> None:
    """It may hold documents, so that its absence proves nothing."""
    (root.parent / "other").mkdir()
    (root.parent / "other/a.yaml").write_text("x: 1")
    (root / "other").symlink_to("../other")
    found = look(root, clock)
    assert errors(found) == {"other": "is a link that leaves the spec tree"}
    assert found.files == {}


def test_link_that_leaves_on_the_way_and_comes_back(root: Path, clock: ManualClock) -> None:
    (root / "a.yaml").write_text("x: 1")
    (root / "b.yaml").symlink_to("../specs/a.yaml")
    assert errors(look(root, clock)) == {"b.yaml": "is a link that leaves the spec tree"}


def test_layout_of_a_config_map(root: Path, clock: ManualClock) -> None:
    """Links through dot-folders are followed, and the swap of `..data` is one change."""
    for number in ("1", "2"):
        (root / f"..rev{number}").mkdir()
        for name in ("a", "b"):
            (root / f"..rev{number}/{name}.yaml").write_text(job_text(name, number))
    (root / "..data").symlink_to("..rev1")
    for name in ("a", "b"):
        (root / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
    source = directory_source([root], clock)
    first = source.read(None)
    assert sorted(first.jobs) == ["a", "b"]
    (root / "..next").symlink_to("..rev2")
    (root / "..next").rename(root / "..data")
    second = source.read(first.commit.id)
    assert [job.job.groups[0].tasks[0].config.command for job in second.jobs.values()] == [("sleep", "2")] * 2


def test_link_to_a_folder_inside(root: Path, clock: ManualClock) -> None:
    (root / ".rev/jobs/in").mkdir(parents=True)
    (root / ".rev/jobs/in/a.yaml").write_text("x: 1")
    (root / ".rev/b.yaml").write_text("x: 2")
    (root / ".rev/jobs/b.yaml").symlink_to("../b.yaml")
    (root / "jobs").symlink_to(".rev/jobs")
    (root / "loop").symlink_to(".")
    found = look(root, clock)
    assert paths(found) == {"jobs/in/a.yaml", "jobs/b.yaml"}
    assert found.files[FileKey(0, "jobs/b.yaml")].content() == b"x: 2"
    assert errors(found) == {"loop": "is a link to a folder that it lies in"}


def test_root_that_is_a_link(root: Path, clock: ManualClock) -> None:
    """As git-sync publishes: the link is moved, the tree is another one at once."""
    for number in ("1", "2"):
        (root / number).mkdir()
        (root / number / "a.yaml").write_text(job_text("web", number))
    current = root / "current"
    current.symlink_to("1")
    tree = DirectoryTree([current], clock)
    first = tree.snapshot(None)
    (root / "next").symlink_to("2")
    (root / "next").rename(current)
    assert tree.snapshot(None).commit.id != first.commit.id


def test_unreadable_folder_and_file_without_root(
    root: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not bind root, so that the refusal is played; the errors name folder and file."""
    (root / "in").mkdir()
    (root / "in/a.yaml").write_text("x: 1")
    (root / "b.yaml").write_text("x: 1")
    real_open = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path in {"in", "b.yaml"}:
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags, mode, dir_fd=dir_fd)

    tree = DirectoryTree([root], clock)
    monkeypatch.setattr(os, "open", refuse)
    refused = tree.snapshot(None)
    assert errors(refused) == {
        "in": "is a folder that cannot be read: Permission denied",
        "b.yaml": "cannot be read: Permission denied",
    }
    assert tree.snapshot(None) is refused
    monkeypatch.undo()
    assert paths(tree.snapshot(None)) == {"in/a.yaml", "b.yaml"}


def test_file_system_that_is_gone(root: Path, clock: ManualClock) -> None:
    """An unmounted folder looks like an emptied one, and is none. What is mounted anew is looked at as ever."""
    (root / "a.yaml").write_text("x: 1")
    tree = _Root(0, root, clock, timedelta(0))
    tree.look(patient=True)
    walk = tree.walk
    assert walk is not None
    for earlier, message in (
        (replace(walk, root=(walk.root[0] + 1, 1)), None),
        (replace(walk, mounts={"data"}), "data is no longer mounted"),
        (replace(walk, mounts={"data"}, root=(walk.root[0] + 1, 1)), None),
    ):
        tree.walk = earlier
        if message is None:
            tree.look(patient=True)
        else:
            with pytest.raises(SourceUnavailable, match=message):
                tree.look(patient=True)
    tree.walk = replace(walk, root=(walk.root[0] + 1, 1))
    (root / "a.yaml").unlink()
    with pytest.raises(SourceUnavailable, match="another file system"):
        tree.look(patient=True)


def test_too_many_files(root: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limits there is no snapshot at all."""
    monkeypatch.setattr("trueup.sources.directory_walk.MAX_TREE_FILES", 3)
    for number in range(3):
        (root / f"{number}.yaml").write_text("x: 1")
    look(root, clock)
    (root / "more.yaml").write_text("x: 1")
    with pytest.raises(SourceUnavailable, match="holds more than"):
        look(root, clock)


def test_looking_at_an_unchanged_tree_reads_no_file(
    root: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (root / f"{number}.yaml").write_text(job_text(f"job-{number}"))
    source = directory_source([root], clock)
    first = source.read(None)
    monkeypatch.setattr("trueup.sources.directory.open_file", None)
    assert source.read(first.commit.id) is first


def test_only_what_changed_is_read(root: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (root / f"{name}.yaml").write_text(job_text(name))
    tree = DirectoryTree([root], clock)
    tree.snapshot(None)
    opened: list[str] = []

    def noting(root: Path, path: str) -> AbstractContextManager[int]:
        opened.append(path)
        return open_file(root, path)

    monkeypatch.setattr("trueup.sources.directory.open_file", noting)
    (root / "b.yaml").write_text(job_text("b", "2"))
    tree.snapshot(None)
    assert opened == ["b.yaml"]


def test_revision_is_a_digest_of_what_counts(root: Path, clock: ManualClock, tmp_path: Path) -> None:
    """Equal content, equal revision, wherever it lies; logs beside the specs make none."""
    (root / "a.yaml").write_text(job_text("web"))
    source = directory_source([root], clock)
    first = source.read(None)
    assert first.commit.id.startswith("dir-")
    assert first.commit.committed_at == clock.now()
    (root / "app.log").write_text("one line")
    clock.seconds += 1
    assert source.read(first.commit.id) is first
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.yaml").write_text(job_text("web"))
    assert read_directory([other], clock).commit.id == first.commit.id
    (other / "a.yaml").write_text(job_text("web", "2"))
    assert read_directory([other], clock).commit.id != first.commit.id


def test_a_file_a_job_names_makes_a_revision(root: Path, clock: ManualClock) -> None:
    text = (
        "kind: Job\nname: web\ngroups: [{tasks: [{config: {command: [sleep, '1']},"
        " files: [{path: local/app.conf, source: ./app.conf}]}]}]\n"
    )
    (root / "a.yaml").write_text(text)
    (root / "app.conf").write_text("one")
    source = directory_source([root], clock)
    first = source.read(None)
    assert first.errors == ()
    (root / "app.conf").write_text("two")
    second = source.read(first.commit.id)
    assert second.commit.id != first.commit.id
    assert second.jobs["web"] != first.jobs["web"]


def test_file_open_for_writing_is_left_as_it_was(root: Path, clock: ManualClock) -> None:
    """Half a document is never taken, for up to 5 s."""
    (root / "a.yaml").write_text(job_text("web"))
    source = directory_source([root], clock)
    first = source.read(None)
    with (root / "a.yaml").open("w") as file:
        file.write("kind: Job\nname: w")
        file.flush()
        assert source.read(first.commit.id) is first
        look_at = source.next_look
        assert look_at is not None
        assert (look_at - clock.now()).total_seconds() <= 0.1
        file.write("eb\ngroups: [{tasks: [{config: {command: [sleep, '2']}}]}]\n")
    second = source.read(first.commit.id)
    assert second.jobs["web"].job.groups[0].tasks[0].config.command == ("sleep", "2")


def test_file_open_for_longer_is_taken_as_it_is(root: Path, clock: ManualClock) -> None:
    source = directory_source([root], clock)
    first = source.read(None)
    with (root / "a.yaml").open("w") as file:
        file.write(job_text("web"))
        file.flush()
        assert source.read(first.commit.id).jobs == {}
        clock.seconds += 5
        assert sorted(source.read(first.commit.id).jobs) == ["web"]


def test_where_no_lease_tells_a_file_must_be_quiet(
    root: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On network file systems, or with another user's files."""
    monkeypatch.setattr(directory, "writing_state", lambda _: Writing.UNKNOWN)
    (root / "a.yaml").write_text(job_text("web"))
    source = directory_source([root], clock)
    assert source.read(None).jobs == {}
    clock.seconds += 0.15
    (root / "a.yaml").write_text(job_text("web", "22"))
    assert source.read(None).jobs == {}
    clock.seconds += 0.15
    assert source.read(None).jobs == {}
    clock.seconds += 0.05
    assert sorted(source.read(None).jobs) == ["web"]


def test_lease_tells_of_writers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert directory.writing_state(descriptor) is Writing.NO
        with path.open("a"):
            assert directory.writing_state(descriptor) is Writing.YES
        assert directory.writing_state(descriptor) is Writing.NO
    finally:
        os.close(descriptor)


def test_network_file_systems_are_not_asked_for_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some refuse every one, which would make each file one that is being written."""
    monkeypatch.setattr(directory, "is_remote", lambda _: True)
    (tmp_path / "file").write_text("")
    with (tmp_path / "file").open("a") as file:
        assert directory.writing_state(file.fileno()) is Writing.UNKNOWN


def test_one_look_takes_open_files_as_they_are(root: Path, clock: ManualClock) -> None:
    """`validate` must not leave out the very file somebody has open."""
    with (root / "a.yaml").open("w") as file:
        file.write("kind: Job\n")
        file.flush()
        assert read_directory([root], clock).errors


def test_single_documents(clock: ManualClock) -> None:
    """What `validate -` reads."""
    state = read_documents({"-": job_text("web").encode()}, clock)
    assert sorted(state.jobs) == ["web"]
    assert {error.file for error in read_documents({"-": b"kind: Job"}, clock).errors} == {"-"}


def test_writer_while_reading(root: Path, clock: ManualClock) -> None:
    """Whatever a writer does, each file is seen whole, and no job is lost."""
    names = [f"job-{number}" for number in range(10)]
    for name in names:
        (root / f"{name}.yaml").write_text(job_text(name))
    source = directory_source([root], clock)
    applied = source.read(None).commit.id
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            path = root / f"{names[number % 10]}.yaml"
            if number % 3 == 0:
                path.unlink()
            if number % 2:
                path.write_text(job_text(path.stem, str(number)))
            else:
                new = path.with_name(f".{path.name}.new")
                new.write_text(job_text(path.stem, str(number)))
                new.rename(path)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(150):
            clock.seconds += 0.01
            state = source.read(applied)
            assert state.errors == ()
            assert sorted(state.jobs) == names
    finally:
        ended.set()
        writer.join()
    last = source.read(applied)
    assert sorted(last.jobs) == names
    assert last.commit.id != applied
