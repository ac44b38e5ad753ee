"""The durable list of what the agent should run, and who it is: one SQLite file in the agent's data folder.

One commit for one change set; what was committed survives kill -9 and loss of power. It knows nothing of tasks:
records go in and come out whole. One agent a folder, kept by a lock on an open file.

Where nothing can be written (a full disk, above all), a commit says so and changes nothing; who the agent is stays
known in memory and is written once there is room.
"""

import contextlib
import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from agent.record import AllocationRecord
from trueup.models.codec import Model, from_json, to_json
from trueup.models.ids import AllocationId, NodeId
from trueup.models.service import ServiceAddress
from trueup.models.wire import Assignment

_log = structlog.stdlib.get_logger("trueup.agent")

SCHEMA_VERSION: Final = 1
_LOCK: Final = "agent.lock"
_STARTS: Final = "agent.starts"
_STARTS_DIGITS: Final = 20
_ADVICE: Final = (
    "move it aside and start again: what runs is found and taken up by what the control plane wants"
)
_FULL: Final = "its disk is full; make room on it, then start again: what runs goes on"
_READ_ONLY_ADVICE: Final = (
    "see why its disk cannot be written (the kernel's log, `mount`), mount it writable, then start again: what runs "
    "goes on"
)
_SCHEMA: Final = """
create table allocations (id text primary key, assignment blob not null, record blob not null) strict;
create table tombstones (id text primary key, reason text not null) strict;
create table identity (one integer primary key check (one = 1), value blob not null) strict;
"""
# Beside the schema's number: an older release does not look at them, and its agent has no task that needs them.
_ADDED: Final = """
create table if not exists services (name text primary key, addresses blob not null) strict;
create table if not exists services_version (one integer primary key check (one = 1), version text not null) strict;
"""


class Identity(Model, frozen=True, kw_only=True):
    """Who the agent is, and what it last heard of the control plane (0 and empty: nothing).

    *incarnation* counts the agent's own starts. *heard_at* is kept only where something depends on it.
    """

    node_id: NodeId = NodeId("")
    node_secret: str = ""
    cluster_id: str = ""
    epoch: int = 0
    index: int = 0
    incarnation: int = 0
    boot_id: str = ""
    heard_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class ChangeSet:
    """What one commit writes. *assignments* only where they are new: a record changes far more often.

    *services* are lists of addresses that changed (None: no longer kept), *services_version* that of all of them.
    """

    assignments: dict[AllocationId, Assignment] = field(default_factory=dict)
    records: dict[AllocationId, AllocationRecord] = field(default_factory=dict)
    tombstones: dict[AllocationId, str] = field(default_factory=dict)
    forgotten: set[AllocationId] = field(default_factory=set)
    services: dict[str, tuple[ServiceAddress, ...] | None] = field(default_factory=dict)
    services_version: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        stays = self.services_version is None and not self.services
        return stays and not (self.assignments or self.records or self.tombstones or self.forgotten)


class FolderInUse(Exception):
    """Another agent runs in this data folder."""


class JournalUnusable(Exception):
    """The file is damaged, or was written by a newer release: says which file and what to do."""


class JournalUnwritable(Exception):
    """Nothing can be written now; it may work later. Says where and why, the same words for the same cause."""


class Journal:
    """The open journal. Thread-safe; a write returns when it is durable."""

    def __init__(
        self, connection: sqlite3.Connection, *, lock_file: int | None = None, folder: Path | None = None
    ) -> None:
        """Takes over a connection opened with `check_same_thread=False`, and an open, locked file if there is one.

        *folder* is the data folder it is in, for the count of starts; None: it is in memory.
        """
        self._connection = connection
        self._lock_file = lock_file
        self._folder = folder
        self._lock = threading.Lock()
        self._trouble = ""
        connection.isolation_level = None
        connection.execute("pragma synchronous = full")
        _migrate(connection)
        row = connection.execute("select value from identity").fetchone()
        self._identity = Identity() if row is None else from_json(row[0], Identity)
        self._written_identity = self._identity

    @property
    def identity(self) -> Identity:
        """Who the agent is."""
        return self._identity

    @property
    def trouble(self) -> str:
        """Why nothing can be written, as the newest write found; empty while writes go through."""
        return self._trouble

    def change_identity(self, **fields: object) -> Identity:
        """Changes some fields of the identity, and writes it where that is news.

        What cannot be written now counts all the same, and goes with the next change or commit: without it no
        control plane could be heard while the disk is full.
        """
        with self._lock:
            self._identity = msgspec.structs.replace(self._identity, **fields)
            if self._identity != self._written_identity:
                with contextlib.suppress(JournalUnwritable):
                    self._transact(ChangeSet())
            return self._identity

    def count_start(self) -> int:
        """The number of this start of an agent, greater than that of any before it, also on a full disk.

        The count is kept in a file beside the journal too, which is overwritten in place and so needs no room: two
        starts of one number would have the control plane take the second one's messages for old ones.
        """
        count = self._identity.incarnation + 1
        if self._folder is not None:
            count = max(count, _counted_start(self._folder, count))
        self.change_identity(incarnation=count)
        return count

    def held(self) -> Sequence[tuple[Assignment, AllocationRecord]]:
        """Every allocation, in order of id. JournalUnusable if one cannot be read."""
        try:
            with self._lock:
                rows = self._connection.execute(
                    "select assignment, record from allocations order by id"
                ).fetchall()
            return [
                (from_json(first, Assignment), from_json(second, AllocationRecord)) for first, second in rows
            ]
        except (msgspec.MsgspecError, sqlite3.DatabaseError) as error:
            raise JournalUnusable(
                f"a record in the agent's journal cannot be read: {error}; {_ADVICE}"
            ) from error

    def tombstones(self) -> Mapping[AllocationId, str]:
        """Ids that may never start, unknown when their stop came, with its reason."""
        with self._lock:
            rows = self._connection.execute("select id, reason from tombstones order by id").fetchall()
        return {AllocationId(key): reason for key, reason in rows}

    def services(self) -> tuple[str, Mapping[str, tuple[ServiceAddress, ...]]]:
        """The version of the services' addresses that were told, and the addresses by service. JournalUnusable."""
        try:
            with self._lock:
                rows = self._connection.execute(
                    "select name, addresses from services order by name"
                ).fetchall()
                version = self._connection.execute("select version from services_version").fetchone()
            lists = {str(name): from_json(value, tuple[ServiceAddress, ...]) for name, value in rows}
        except (msgspec.MsgspecError, sqlite3.DatabaseError) as error:
            raise JournalUnusable(
                f"a list of addresses in the agent's journal cannot be read: {error}; {_ADVICE}"
            ) from error
        return "" if version is None else str(version[0]), lists

    def commit(self, changes: ChangeSet) -> None:
        """Writes *changes* in one transaction: all or nothing, durable on return. JournalUnwritable."""
        if changes.is_empty:
            return
        with self._lock:
            self._transact(changes)

    def close(self) -> None:
        """Closes the file and lets go of the folder."""
        with self._lock:
            self._connection.close()
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    def _transact(self, changes: ChangeSet) -> None:
        """Writes *changes*, and the identity where that is news."""
        try:
            self._write_whole(changes)
        except sqlite3.OperationalError:
            # What SQLite has in its log goes where it belongs, which mostly needs no room: the log's is free again.
            try:
                self._connection.execute("pragma wal_checkpoint(restart)").fetchall()
                self._write_whole(changes)
            except sqlite3.OperationalError as error:
                self._note_trouble(error)
                raise JournalUnwritable(self._trouble) from error
        if self._trouble:
            _log.info("the agent's list can be written again")
        self._trouble, self._written_identity = "", self._identity

    def _note_trouble(self, error: sqlite3.OperationalError) -> None:
        before, self._trouble = self._trouble, _in_words(error)
        if self._trouble != before:
            _log.error(
                "the agent's list cannot be written; what runs goes on, stops are carried out, nothing starts",
                why=self._trouble,
                error=str(error),
            )

    def _write_whole(self, changes: ChangeSet) -> None:
        self._connection.execute("begin immediate")
        try:
            self._write(changes)
            if self._identity != self._written_identity:
                self._connection.execute(
                    "insert or replace into identity (one, value) values (1, ?)", (to_json(self._identity),)
                )
            self._connection.execute("commit")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            raise

    def _write(self, changes: ChangeSet) -> None:
        gone = [(key,) for key in sorted(changes.forgotten)]
        self._connection.executemany("delete from allocations where id = ?", gone)
        self._connection.executemany("delete from tombstones where id = ?", gone)
        new = [
            (key, to_json(assignment), to_json(changes.records[key]))
            for key, assignment in changes.assignments.items()
        ]
        self._connection.executemany("insert or replace into allocations values (?, ?, ?)", new)
        known = [
            (to_json(record), key)
            for key, record in changes.records.items()
            if key not in changes.assignments
        ]
        self._connection.executemany("update allocations set record = ? where id = ?", known)
        self._connection.executemany(
            "insert or replace into tombstones values (?, ?)", sorted(changes.tombstones.items())
        )
        self._write_services(changes)

    def _write_services(self, changes: ChangeSet) -> None:
        dropped = [(name,) for name, addresses in changes.services.items() if addresses is None]
        kept = [(name, to_json(held)) for name, held in changes.services.items() if held is not None]
        self._connection.executemany("delete from services where name = ?", dropped)
        self._connection.executemany("insert or replace into services values (?, ?)", kept)
        if changes.services_version is not None:
            self._connection.execute(
                "insert or replace into services_version values (1, ?)", (changes.services_version,)
            )


def open_journal(folder: Path) -> Journal:
    """Opens the journal of a data folder, making both where absent; FolderInUse, JournalUnusable.

    The folder is 0700, its files 0600 (SQLite's own beside it follow).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock_file = _lock(folder)
    except OSError as error:
        raise JournalUnusable(f"{folder}: {_unusable(error)}") from error
    path = folder / "agent.db"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        return _opened(path, lock_file)
    except JournalUnusable as error:
        os.close(lock_file)
        raise JournalUnusable(f"{path}: {error}") from None
    except sqlite3.DatabaseError as error:
        os.close(lock_file)
        raise JournalUnusable(f"{path}: {_advice(error)}") from error
    except OSError as error:
        os.close(lock_file)
        raise JournalUnusable(f"{path}: {_unusable(error)}") from error


def _opened(path: Path, lock_file: int) -> Journal:
    """The journal of a file. On a full disk without the file SQLite shares its index in: that is kept in memory then.

    Nobody else reads along in that case, for as long as it is open.
    """
    try:
        return _opened_with(path, lock_file, locking="normal")
    except sqlite3.OperationalError:
        return _opened_with(path, lock_file, locking="exclusive")


def _opened_with(path: Path, lock_file: int, *, locking: str) -> Journal:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=10)
    try:
        connection.execute(f"pragma locking_mode = {locking}").fetchall()
        connection.execute("pragma journal_mode = wal").fetchall()
        return Journal(connection, lock_file=lock_file, folder=path.parent)
    except BaseException:
        connection.close()
        raise


def holder_of(folder: Path) -> int | None:
    """The process id of the agent that runs in a data folder; None if none does."""
    try:
        lock_file = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock_file, 32, 0).decode("ascii", "replace").strip()
        return int(holder) if holder.isdecimal() else None
    finally:
        os.close(lock_file)
    return None


def _lock(folder: Path) -> int:
    lock_file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock_file, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock_file)
        raise FolderInUse(
            f"{folder}: an agent (pid {holder}) runs in this data folder already; stop it, or give --data another"
        ) from None
    # In place, and cut afterwards: so it needs no room on a full disk.
    line = f"{os.getpid()}\n".encode()
    with contextlib.suppress(OSError):
        os.pwrite(lock_file, line, 0)
        os.ftruncate(lock_file, len(line))
    return lock_file


def _counted_start(folder: Path, at_least: int) -> int:
    """The next number of the count of starts in *folder*, kept there; *at_least* where there is none to be had."""
    try:
        counted = os.open(folder / _STARTS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return at_least
    try:
        text = os.pread(counted, _STARTS_DIGITS, 0)
        count = max(at_least, int(text) + 1 if text.isdigit() else 0)
        os.pwrite(counted, f"{count:0{_STARTS_DIGITS}}\n".encode(), 0)
        os.fsync(counted)
    except OSError:
        return at_least
    finally:
        os.close(counted)
    return count


def _migrate(connection: sqlite3.Connection) -> None:
    version = connection.execute("pragma user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise JournalUnusable(
            f"written by a newer trueup (schema {version}, this release knows {SCHEMA_VERSION}); start that release"
        )
    if version == 0:
        connection.executescript(f"begin immediate;{_SCHEMA}pragma user_version = {SCHEMA_VERSION};commit;")
    tables = {name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")}
    # Only where it is needed: a write would fail on a full disk.
    if not {"services", "services_version"} <= tables:
        connection.executescript(f"begin immediate;{_ADDED}commit;")


def _advice(error: sqlite3.DatabaseError) -> str:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return _FULL
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_IOERR:
            return f"{error}; {_READ_ONLY_ADVICE}"
        case _:
            return f"{error}; {_ADVICE}"


def _unusable(error: OSError) -> str:
    match error.errno:
        case errno.EROFS:
            return f"the data folder is on a disk that is read-only; {_READ_ONLY_ADVICE}"
        case errno.ENOSPC | errno.EDQUOT:
            return _FULL
        case errno.EACCES | errno.EPERM:
            return (
                f"the agent's user (uid {os.geteuid()}) may not use the data folder; make it the owner, or give "
                "--data another folder"
            )
        case _:
            return f"cannot be the data folder: {error.strerror}; give --data another folder"


def _in_words(error: sqlite3.OperationalError) -> str:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return "the disk of the agent's data folder is full"
        case sqlite3.SQLITE_READONLY:
            return "the agent's data folder is read-only"
        case _:
            return f"the agent's data folder cannot be written: {error}"
