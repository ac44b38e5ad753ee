"""The SQLite file: how its connections are made, checked and closed, and its errors in words.

One connection writes, and it alone makes checkpoints: SQLite before 3.51.3 can corrupt a WAL when a checkpoint
meets another writer. All others are read-only.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool, StaticPool

from metastore.errors import StoreError

FILE_NAME: Final = "trueup.db"
_BUSY_SECONDS: Final = 10.0
_WAL_BYTES: Final = 64 * 1024**2
_CACHE_KIB: Final = 64 * 1024
"""What a transaction changed stays in memory up to this: with SQLite's own 2 MiB large ones are written out twice."""
_DAMAGED: Final = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
_ADVICE: Final = (
    "put a backup in its place, or move it aside and start again: what runs goes on and is adopted"
)


def writing_engine(path: Path) -> sa.Engine:
    """The one connection that writes; every commit is durable (`synchronous=FULL`)."""

    def connect() -> sqlite3.Connection:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.close(descriptor)
        connection = _connect(path, "rw")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        return connection

    return _engine(connect, "BEGIN IMMEDIATE", StaticPool)


def reading_engine(path: Path) -> sa.Engine:
    """Connections that cannot write, each transaction of which sees one state of the file."""

    def connect() -> sqlite3.Connection:
        try:
            connection = _connect(path, "ro")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            if os.access(path.parent, os.W_OK) or _log_of(path).exists():
                raise
            # In a folder that cannot be written SQLite's lock file cannot be made; nobody else writes there either.
            connection = _connect(path, "ro&immutable=1")
        return connection

    return _engine(connect, "BEGIN", QueuePool, pool_size=8, max_overflow=-1)


@contextmanager
def worded(path: Path) -> Iterator[None]:
    """Turns errors of the file and of values in it into StoreError: where, what, and what to do."""
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error) as error:
        raise StoreError(f"{path}: {database_fault(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: it holds a value that cannot be read ({error}); {_ADVICE}") from error
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror}; give --data a folder that this user can write"
        ) from error


def database_fault(error: Exception) -> str:
    """What is wrong with the file, and what to do about it."""
    cause = getattr(error, "orig", None) or error
    name = getattr(cause, "sqlite_errorname", "")
    if name.startswith(_DAMAGED):
        return f"it is damaged ({cause}); {_ADVICE}"
    if name.startswith("SQLITE_FULL"):
        return "the disk is full; make room, and it goes on by itself"
    if name.startswith("SQLITE_READONLY"):
        return (
            f"it cannot be written ({cause}); make the file and its folder writable, and it goes on by itself"
        )
    if name.startswith("SQLITE_CANTOPEN"):
        return f"it cannot be opened ({cause}); check that it is there, and whose it is"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "another program has it open and locked; close that program"
    if name.startswith("SQLITE_IOERR"):
        return f"the disk gave an error ({cause}); look into the system's log"
    return str(cause)


def check_sound(connection: sa.Connection, path: Path) -> None:
    """StoreError if the file's structure is damaged."""
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        words = " ".join(str(found).split())
        raise StoreError(f"{path}: it is damaged ({words}); {_ADVICE}")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def _engine(connect: object, begin: str, pool: type[sa.Pool], **pool_options: int) -> sa.Engine:
    engine = sa.create_engine("sqlite://", creator=connect, poolclass=pool, **pool_options)

    # The driver begins no transaction by itself: reads of one transaction belong together too.
    @sa.event.listens_for(engine, "begin")
    def _(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
