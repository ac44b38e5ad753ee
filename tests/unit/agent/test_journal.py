"""The agent's durable list: what was committed is there, one agent a folder, and damage is said in words."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.journal import (
    ChangeSet,
    FolderInUse,
    Identity,
    JournalUnusable,
    JournalUnwritable,
    holder_of,
    open_journal,
)
from agent.step import new_record
from tests.unit.agent.world import an_assignment
from trueup.models.ids import AllocationId, NodeId

A1, A2 = AllocationId("a1"), AllocationId("a2")


def changes(*ids: AllocationId) -> ChangeSet:
    made = ChangeSet()
    for one in ids:
        made.assignments[one] = an_assignment(one)
        made.records[one] = new_record(made.assignments[one])
    return made


def test_what_was_committed_is_there_for_the_next_agent(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.commit(changes(A2, A1))
    journal.commit(ChangeSet(tombstones={AllocationId("dead"): "not needed"}))
    journal.change_identity(node_id=NodeId("n1"), epoch=3)
    journal.close()

    journal = open_journal(tmp_path)
    assert [assignment.allocation.id for assignment, _ in journal.held()] == ["a1", "a2"]
    assert journal.held()[0][0] == an_assignment("a1")
    assert journal.tombstones() == {"dead": "not needed"}
    assert journal.identity == Identity(node_id=NodeId("n1"), epoch=3)
    journal.commit(ChangeSet(forgotten={A1, AllocationId("dead")}))
    assert [assignment.allocation.id for assignment, _ in journal.held()] == ["a2"]
    assert journal.tombstones() == {}
    journal.close()


def test_a_change_set_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    torn = changes(A1)
    torn.tombstones[A2] = None  # type: ignore[assignment] # the last thing that is written, and refused
    with pytest.raises(sqlite3.IntegrityError):
        journal.commit(torn)
    assert journal.held() == []
    journal.commit(changes(A1))
    assert len(journal.held()) == 1
    journal.close()


def test_one_agent_a_folder(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    journal = open_journal(tmp_path)
    assert holder_of(tmp_path) == os.getpid()
    with pytest.raises(FolderInUse, match=f"pid {os.getpid()}.*--data"):
        open_journal(tmp_path)
    journal.close()
    assert holder_of(tmp_path) is None
    open_journal(tmp_path).close()


def test_a_newer_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "agent.db")
    connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(JournalUnusable, match=r"agent\.db: written by a newer trueup \(schema 99"):
        open_journal(tmp_path)
    assert holder_of(tmp_path) is None


def test_what_cannot_be_a_data_folder_is_said(tmp_path: Path) -> None:
    """Where, what is wrong, and what to do, in one line."""
    (tmp_path / "file").touch()
    with pytest.raises(
        JournalUnusable, match=r"file/agent: cannot be the data folder: Not a directory; give --data"
    ):
        open_journal(tmp_path / "file" / "agent")
    (tmp_path / "agent.db").symlink_to("elsewhere")
    with pytest.raises(JournalUnusable, match=r"agent\.db: cannot be the data folder: Too many levels"):
        open_journal(tmp_path)


def test_a_damaged_journal_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "agent.db").write_bytes(b"this is no database, and it is long enough to be looked at" * 20)
    with pytest.raises(JournalUnusable, match="move it aside"):
        open_journal(tmp_path)


def test_a_record_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.commit(changes(A1))
    journal.close()
    connection = sqlite3.connect(tmp_path / "agent.db", isolation_level=None)
    connection.execute("update allocations set record = x'7b'")
    connection.close()
    journal = open_journal(tmp_path)
    with pytest.raises(JournalUnusable, match="move it aside"):
        journal.held()
    journal.close()


def test_the_folder_and_its_files_are_the_agents_alone(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "data")
    journal.commit(changes(A1))
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "data").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    journal.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 1024):
            if os.statvfs(disk).f_bfree == 0:
                return


def test_on_a_full_disk_who_it_is_stays_known_and_what_is_to_be_written_waits(small_disk: Path) -> None:
    journal = open_journal(small_disk)
    journal.commit(changes(A1))
    fill(small_disk)
    many = changes(*(AllocationId(f"b{number}") for number in range(200)))
    with pytest.raises(JournalUnwritable, match=r"^the disk of the agent's data folder is full$"):
        journal.commit(many)
    journal.change_identity(epoch=7, index=3)
    assert (journal.identity.epoch, journal.identity.index) == (7, 3)
    assert journal.trouble == "the disk of the agent's data folder is full"
    assert len(journal.held()) == 1

    (small_disk / "filler").unlink()
    journal.commit(changes(A2))
    assert journal.trouble == ""
    journal.close()
    journal = open_journal(small_disk)
    assert journal.identity.epoch == 7
    assert len(journal.held()) == 2
    journal.close()


def test_an_agent_can_start_on_a_full_disk_and_no_number_of_a_start_is_used_twice(small_disk: Path) -> None:
    journal = open_journal(small_disk)
    journal.commit(changes(A1))
    assert journal.count_start() == 1
    journal.close()
    fill(small_disk)
    for number in (2, 3):
        journal = open_journal(small_disk)
        assert [assignment.allocation.id for assignment, _ in journal.held()] == ["a1"]
        assert journal.count_start() == number
        assert journal.trouble
        journal.close()
    (small_disk / "filler").unlink()
    journal = open_journal(small_disk)
    assert journal.count_start() == 4
    assert journal.trouble == ""
    journal.close()
