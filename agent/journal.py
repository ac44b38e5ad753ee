"""The durable list of what the agent should run, and who it is: one SQLite file in the agent's data folder.

One commit for one change set; what was committed survives kill -9 and loss of power. It knows nothing of tasks:
records go in and come out whole. One agent a folder, kept by a lock on an open file.
"""

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

from agent.record import AllocationRecord
from trueup.models.codec import Model, from_json, to_json
from trueup.models.ids import AllocationId, NodeId
from trueup.models.service import ServiceAddress
from trueup.models.wire import Assignment

SCHEMA_VERSION: Final = 1
_LOCK: Final = "agent.lock"
_ADVICE: Final = (
    "move it aside and start again: what runs is found and taken up by what the control plane wants"
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


class Journal:
    """The open journal. Thread-safe; a write returns when it is durable."""

    def __init__(self, connection: sqlite3.Connection, *, lock_file: int | None = None) -> None:
        """Takes over a connection opened with `check_same_thread=False`, and an open, locked file if there is one."""
        self._connection = connection
        self._lock_file = lock_file
        self._lock = threading.Lock()
        connection.isolation_level = None
        connection.execute("pragma synchronous = full")
        _migrate(connection)
        row = connection.execute("select value from identity").fetchone()
        self._identity = Identity() if row is None else from_json(row[0], Identity)

    @property
    def identity(self) -> Identity:
        """Who the agent is, as last written."""
        return self._identity

    def change_identity(self, **fields: object) -> Identity:
        """Writes some fields of the identity; nothing is written where they are as they were."""
        with self._lock:
            changed = msgspec.structs.replace(self._identity, **fields)
            if changed != self._identity:
                self._connection.execute(
                    "insert or replace into identity (one, value) values (1, ?)", (to_json(changed),)
                )
                self._identity = changed
            return changed

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
        """Writes *changes* in one transaction: all or nothing, durable on return. OSError-like failures raise."""
        if changes.is_empty:
            return
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                self._write(changes)
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    def close(self) -> None:
        """Closes the file and lets go of the folder."""
        with self._lock:
            self._connection.close()
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

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
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock_file = _lock(folder)
    path = folder / "agent.db"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        connection = sqlite3.connect(path, check_same_thread=False, timeout=10)
        connection.execute("pragma journal_mode = wal")
        return Journal(connection, lock_file=lock_file)
    except JournalUnusable as error:
        os.close(lock_file)
        raise JournalUnusable(f"{path}: {error}") from None
    except sqlite3.DatabaseError as error:
        os.close(lock_file)
        raise JournalUnusable(f"{path}: {error}; {_ADVICE}") from error
    except OSError:
        os.close(lock_file)
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
    os.ftruncate(lock_file, 0)
    os.pwrite(lock_file, f"{os.getpid()}\n".encode(), 0)
    return lock_file


def _migrate(connection: sqlite3.Connection) -> None:
    version = connection.execute("pragma user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise JournalUnusable(
            f"written by a newer trueup (schema {version}, this release knows {SCHEMA_VERSION}); start that release"
        )
    if version == 0:
        connection.executescript(f"begin immediate;{_SCHEMA}pragma user_version = {SCHEMA_VERSION};commit;")
    connection.executescript(f"begin immediate;{_ADDED}commit;")
