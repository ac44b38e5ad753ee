"""The one place of truth: transactions of one writer, each durable when it ends, and the state in memory.

There are two states: the committed one, which all others read, and the working one, which a transaction changes as
it goes on. A commit writes what changed to the file, then puts the same into the committed state; an error puts the
working state back. So what is read was durable before, and what failed was never seen.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from metastore.allocations import ALLOCATIONS, conflicting_names, release_names
from metastore.changes import KINDS, Changes
from metastore.database import FILE_NAME, check_sound, database_fault, reading_engine, worded, writing_engine
from metastore.errors import NameConflict, StoreUnavailable
from metastore.evaluations import write_evaluations
from metastore.events import write_events
from metastore.kinds import write
from metastore.lock import DataLock
from metastore.meta import FIELDS, write_meta
from metastore.migrate import migrate
from metastore.nodes import load_secrets, write_secrets
from metastore.outbox import Outbox, load_outbox, write_outbox
from metastore.reading import StoreReader, load_state, open_read_only
from metastore.revisions import read_revision, write_revisions
from metastore.transaction import StoreTransaction
from metastore.trimming import Trim, trim
from trueup.models.clock import Clock
from trueup.models.commit import Committed, OutboxEntry
from trueup.models.ids import IdSource, NodeId
from trueup.models.state import ClusterState

Listener = Callable[[Committed], None]


class SqlStore(StoreReader):
    """An open store. Reads from any thread; one transaction at a time."""

    def __init__(self, path: Path, writer: sa.Engine, lock: DataLock) -> None:
        """Takes over a sound store in this release's form. `open` makes one."""
        self._connection = writer.connect()
        with self._connection.begin():
            state = load_state(self._connection)
            self._outbox: Outbox = load_outbox(self._connection)
            self._secrets = load_secrets(self._connection)
        super().__init__(path, state, reading_engine(path))
        self._working = state.copy()
        self._writer = writer
        self._data_lock = lock
        self._writing = threading.Lock()
        self._writing_thread: int | None = None
        self._changed = threading.Condition(self._lock)
        self._wakes = 0
        self._listeners: list[Listener] = []
        self._fault = ""
        self._closed = False

    @classmethod
    def open(cls, data_dir: Path, clock: Clock, ids: IdSource) -> "SqlStore":
        """Opens the store of a data folder, making both where absent; migrates an older one.

        StoreError if another server has the folder, the file is damaged, or a newer release wrote it.
        """
        path = data_dir / FILE_NAME
        with worded(data_dir):
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = DataLock.take(data_dir)
        writer = writing_engine(path)
        try:
            with worded(path):
                with writer.connect() as connection, connection.begin():
                    check_sound(connection, path)
                    if migrate(connection, path):
                        _begin(connection, clock, ids)
                return cls(path, writer, lock)
        except BaseException:
            writer.dispose()
            lock.release()
            raise

    @classmethod
    def read_only(cls, data_dir: Path) -> StoreReader:
        """The store of a data folder without changing a byte of its file. StoreError as `open`, or if there is none."""
        return open_read_only(data_dir)

    @contextmanager
    def transaction(self) -> Iterator[StoreTransaction]:
        """Begins a write; blocks while another is under way. Durable when the block is left.

        Raising inside leaves no trace; a block that changed nothing writes nothing and keeps the index.
        StoreUnavailable if it cannot be written, NameConflict if it wants a name twice.
        """
        if self._writing_thread == threading.get_ident():
            raise RuntimeError("a transaction is under way in this thread: it would wait for itself")
        with self._writing:
            self._writing_thread = threading.get_ident()
            try:
                if self._closed:
                    raise StoreUnavailable(f"{self._path}: the store is closed")
                transaction = StoreTransaction(self._working, self._outbox)
                try:
                    yield transaction
                    committed = self._commit(transaction)
                except BaseException:
                    self._working = transaction.changes.undo(self._working, self._state)
                    self._working.index, self._working.source = self._state.index, self._state.source
                    raise
                if committed is not None:
                    for listener in self._listeners:
                        listener(committed)
            finally:
                self._writing_thread = None

    def subscribe(self, listener: Listener) -> None:
        """Calls *listener* after each commit, on the writer's thread: it must only note names and return."""
        self._listeners.append(listener)

    def outbox(self) -> Sequence[OutboxEntry]:
        """Pushes that are due, oldest first; kept in memory, so asking costs nothing."""
        with self._lock:
            return self._outbox.due()

    def pushed(self, numbers: Sequence[int]) -> None:
        """Takes pushes off the outbox. Durable with the next transaction: a repeat after a crash does no harm."""
        with self._lock:
            self._outbox.take(numbers)

    def node_secret(self, node_id: NodeId) -> str | None:
        """The node's own secret; None if it was given none."""
        return self._secrets.get(node_id)

    def wait_newer(self, index: int, timeout_seconds: float) -> int:
        """Blocks until the index is greater than *index*, the time is over, or all were woken; the index then."""
        with self._changed:
            wakes = self._wakes
            self._changed.wait_for(
                lambda: self._state.index > index or self._wakes != wakes or self._closed, timeout_seconds
            )
            return self._state.index

    def wake_all(self) -> None:
        """Ends all waiting: the server stops."""
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    def not_writable(self) -> str:
        """Why nothing can be written now; empty while writes go through. Found out by writes, and by `probe`."""
        return self._fault

    def probe(self) -> None:
        """Writes what is there already: after a fault this finds out whether writes go through again."""
        with self._writing:
            if not self._closed:
                self._write(lambda connection: write_meta(connection, self._state, ["index"]))

    def trim(self, wanted: Trim) -> int:
        """Drops entries of histories by age and number, which is no change of the state; returns how many."""
        with self._writing:
            if self._closed:
                raise StoreUnavailable(f"{self._path}: the store is closed")
            found = 0

            def drop(connection: sa.Connection) -> None:
                nonlocal found
                found = trim(connection, wanted)

            self._write(drop)
            return found

    def close(self) -> None:
        """Waits for the transaction under way, wakes all who wait, and closes the file. A repeat does nothing."""
        self.wake_all()
        with self._writing:
            if self._closed:
                return
            self._closed = True
            # Readers first: the last to close makes the final checkpoint, and that must be the writer.
            super().close()
            self._connection.close()
            self._writer.dispose()
            self._data_lock.release()
        self.wake_all()

    def _commit(self, transaction: StoreTransaction) -> Committed | None:
        changes = transaction.changes
        changes.settle(self._state, self._working)
        self._drop_known_revisions(changes)
        if changes.is_empty:
            self._take_source(changes)
            return None
        index = transaction.next_index
        self._working.index = index
        if changes.source is not None:
            self._working.source = changes.source
        with self._lock:
            emptied = self._outbox.emptied()
        try:
            self._write(lambda connection: self._write_changes(connection, changes, emptied))
        except sa.exc.IntegrityError as error:
            allocations = changes.staged(ALLOCATIONS)
            twice = ", ".join(conflicting_names(allocations, self._working)) or str(error.orig)
            raise NameConflict(f"wanted twice: {twice}; nothing of this change was written") from error
        return self._publish(changes, index, emptied)

    def _write_changes(self, connection: sa.Connection, changes: Changes, emptied: Sequence[int]) -> None:
        working, index = self._working, self._working.index
        allocations = changes.staged(ALLOCATIONS)
        release_names(connection, allocations, self._state)
        for kind in KINDS:
            write(kind, connection, changes.staged(kind), working, index)
        write_secrets(connection, changes.secrets)
        if changes.events:
            write_events(connection, changes.events, index)
        if changes.evaluations:
            write_evaluations(connection, changes.evaluations, index)
        write_revisions(connection, changes.revisions.values(), index)
        write_outbox(connection, changes.pushes, emptied)
        write_meta(connection, working, sorted({"index", "source", *changes.meta}))

    def _write(self, work: Callable[[sa.Connection], None]) -> None:
        try:
            with self._connection.begin():
                work(self._connection)
        except sa.exc.IntegrityError:
            raise
        except sa.exc.DBAPIError as error:
            self._fault = f"{self._path}: {database_fault(error)}"
            raise StoreUnavailable(self._fault) from error
        self._fault = ""

    def _publish(self, changes: Changes, index: int, emptied: Sequence[int]) -> Committed:
        summary = changes.summary(self._state, index)
        with self._changed:
            changes.apply(self._state)
            for name in changes.meta:
                setattr(self._state, name, getattr(self._working, name))
            self._state.source = self._working.source
            for node_id, secret in changes.secrets.items():
                if secret is None:
                    self._secrets.pop(node_id, None)
                else:
                    self._secrets[node_id] = secret
            self._outbox.add(changes.pushes)
            self._outbox.forget(emptied)
            # Last: who sees the index sees all that came with it.
            self._state.index = index
            self._snapshot = None
            self._changed.notify_all()
        return summary

    def _take_source(self, changes: Changes) -> None:
        if changes.source is not None:
            with self._lock:
                self._working.source = self._state.source = changes.source
                self._snapshot = None

    def _drop_known_revisions(self, changes: Changes) -> None:
        if changes.revisions:
            with worded(self._path), self._readers.begin() as connection:
                for revision_id, revision in list(changes.revisions.items()):
                    if read_revision(connection, revision_id) == revision:
                        del changes.revisions[revision_id]


def _begin(connection: sa.Connection, clock: Clock, ids: IdSource) -> None:
    """The first values of a new store. Its epoch is the time: greater than that of any store before it."""
    epoch = int(clock.now().timestamp() * 1000)
    write_meta(connection, ClusterState(cluster_id=ids.new_id(), epoch=epoch), FIELDS)
