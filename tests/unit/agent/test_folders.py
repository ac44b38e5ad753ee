"""Folders and files of tasks, also where the task has planted links between two of its starts."""

import os
import stat
from pathlib import Path

import pytest

from agent.doors import Account, FileContent, FolderError
from agent.folders import DiskFolders
from trueup.models.ids import AllocationId

A1 = AllocationId("a1")


def mine() -> Account:
    return Account(name="me", home="/", uid=os.geteuid(), gid=os.getegid())


def a_file(path: str = "local/app.conf", content: str = "x = 1\n", mode: int = 0o644) -> FileContent:
    return FileContent(path=path, content=content, mode=mode)


@pytest.fixture
def folders(tmp_path: Path) -> DiskFolders:
    return DiskFolders(tmp_path / "data" / "allocations")


def test_how_much_room_an_allocation_takes(folders: DiskFolders, tmp_path: Path) -> None:
    """Of the disk, whatever its files say their size is; nothing of what a link leads to."""
    folders.prepare(A1, "server", mine(), [])
    assert folders.size_bytes(A1) == 0
    task = folders.paths(A1, "server").task
    (task / "big").write_bytes(b"x" * 10**6)
    with (task / "sparse").open("wb") as sparse:
        sparse.truncate(10**9)
    (tmp_path / "elsewhere").write_bytes(b"x" * 10**6)
    (task / "link").symlink_to(tmp_path / "elsewhere")
    (task / "folder").symlink_to(tmp_path)
    assert 10**6 <= folders.size_bytes(A1) < 11 * 10**5
    assert folders.size_bytes(AllocationId("gone")) == 0


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_folders_are_closed_and_files_have_their_modes(folders: DiskFolders) -> None:
    folders.prepare(A1, "server", mine(), [a_file(), a_file("secrets/key", "k", 0o600)])
    paths = folders.paths(A1, "server")

    assert (paths.task / "local/app.conf").read_text() == "x = 1\n"
    assert mode_of(paths.task / "local/app.conf") == 0o644
    assert mode_of(paths.task / "secrets/key") == 0o600
    assert [mode_of(path) for path in (paths.task, paths.logs, paths.shared)] == [0o700] * 3


def test_a_repeat_writes_files_anew_and_leaves_what_the_task_wrote(folders: DiskFolders) -> None:
    folders.prepare(A1, "server", mine(), [a_file()])
    task = folders.paths(A1, "server").task
    (task / "state.db").write_text("kept")
    folders.prepare(A1, "server", mine(), [a_file(content="x = 2\n")])

    assert (task / "local/app.conf").read_text() == "x = 2\n"
    assert (task / "state.db").read_text() == "kept"
    assert sorted(path.name for path in (task / "local").iterdir()) == ["app.conf"]


def test_where_the_user_is_known_only_in_an_image_the_task_folder_is_open_beneath_a_closed_one(
    folders: DiskFolders,
) -> None:
    folders.prepare(A1, "server", None, [a_file("local/key", "k", 0o600)])
    paths = folders.paths(A1, "server")
    assert mode_of(paths.task) == 0o777
    assert mode_of(paths.task.parent.parent) == 0o700
    assert mode_of(paths.task / "local/key") == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_users_task_owns_its_folder_and_can_reach_it(folders: DiskFolders) -> None:
    nobody = Account(name="nobody", home="/", uid=65534, gid=65534)
    folders.prepare(A1, "server", nobody, [a_file()])
    paths = folders.paths(A1, "server")
    for path in (paths.task, paths.task / "local", paths.task / "local/app.conf"):
        assert path.stat().st_uid == 65534
    assert mode_of(paths.task) == 0o700
    assert paths.logs.stat().st_uid == 0
    assert mode_of(paths.logs) == 0o700
    for above in (paths.task.parent, paths.task.parent.parent, paths.task.parent.parent.parent):
        assert mode_of(above) & 0o011 == 0o011


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_shared_folder_opens_once_tasks_of_several_users_share_it(folders: DiskFolders) -> None:
    folders.prepare(A1, "server", mine(), [])
    assert mode_of(folders.paths(A1, "server").shared) == 0o700
    folders.prepare(A1, "other", Account(name="nobody", home="/", uid=65534, gid=65534), [])
    assert mode_of(folders.paths(A1, "server").shared) == 0o777
    assert mode_of(folders.paths(A1, "server").task) == 0o700


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "", ".", "a/../../out", "a\0b"])
def test_a_path_that_leads_out_is_refused(folders: DiskFolders, path: str) -> None:
    with pytest.raises(FolderError, match="beneath the task's folder"):
        folders.prepare(A1, "server", mine(), [a_file(path)])


@pytest.mark.parametrize("name", ["..", "", "a/b", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused(folders: DiskFolders, name: str) -> None:
    with pytest.raises(FolderError):
        folders.prepare(A1, name, mine(), [])
    with pytest.raises(FolderError):
        folders.remove(AllocationId(name))


@pytest.mark.parametrize("planted", ["folder", "file", "task folder", "hard link", "temporary"])
def test_no_planted_link_is_followed(folders: DiskFolders, tmp_path: Path, planted: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "app.conf").write_text("precious")
    folders.prepare(A1, "server", mine(), [])
    task = folders.paths(A1, "server").task
    if planted == "task folder":
        task.rmdir()
        task.symlink_to(victim)
    elif planted == "folder":
        (task / "local").symlink_to(victim)
    else:
        (task / "local").mkdir()
        if planted == "file":
            (task / "local/app.conf").symlink_to(victim / "app.conf")
        elif planted == "hard link":
            (task / "local/app.conf").hardlink_to(victim / "app.conf")
        else:
            (task / "local/.app.conf.trueup-new").symlink_to(victim / "app.conf")

    if planted in {"folder", "task folder"}:
        with pytest.raises(FolderError, match="not followed"):
            folders.prepare(A1, "server", mine(), [a_file()])
    else:
        folders.prepare(A1, "server", mine(), [a_file()])
        assert (task / "local/app.conf").read_text() == "x = 1\n"
        assert not (task / "local/app.conf").is_symlink()
    assert (victim / "app.conf").read_text() == "precious"
    assert [path.name for path in victim.iterdir()] == ["app.conf"]


def test_a_folder_in_the_place_of_a_file_is_an_error_in_words(folders: DiskFolders) -> None:
    folders.prepare(A1, "server", mine(), [])
    (folders.paths(A1, "server").task / "local/app.conf").mkdir(parents=True)
    with pytest.raises(FolderError, match=r"cannot write .*app\.conf"):
        folders.prepare(A1, "server", mine(), [a_file()])


def test_removing_follows_no_link_and_may_be_repeated(folders: DiskFolders, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "app.conf").write_text("precious")
    folders.prepare(A1, "server", mine(), [])
    (folders.paths(A1, "server").task / "out").symlink_to(victim)
    folders.remove(A1)
    folders.remove(A1)

    assert not folders.paths(A1, "server").logs.parent.exists()
    assert (victim / "app.conf").read_text() == "precious"


def test_all_that_have_folders_are_listed(folders: DiskFolders, tmp_path: Path) -> None:
    assert folders.all() == []
    for name in ("a2", "a1"):
        folders.prepare(AllocationId(name), "server", mine(), [])
    root = tmp_path / "data" / "allocations"
    (root / "a-file").touch()
    (root / "a-link").symlink_to("/etc")
    assert folders.all() == ["a1", "a2"]
