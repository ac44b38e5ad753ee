"""The store, read: the state in memory, and history from the file over read-only connections."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from metastore.changes import KINDS
from metastore.database import FILE_NAME, reading_engine, worded
from metastore.errors import StoreError
from metastore.history import (
    EVALUATION_HISTORY,
    EVENT_HISTORY,
    REVISION_HISTORY,
    History,
    HistoryEntry,
    events_newer,
    read_page,
)
from metastore.kinds import load
from metastore.meta import load_meta
from metastore.migrate import SCHEMA, schema_of
from metastore.revisions import read_newest, read_revision
from trueup.models.evaluation import Evaluation, Event
from trueup.models.ids import RevisionId
from trueup.models.revision import Revision
from trueup.models.state import ClusterState

T = TypeVar("T")


class StoreReader:
    """All that is read of a store. Thread-safe."""

    def __init__(self, path: Path, state: ClusterState, readers: sa.Engine) -> None:
        self._path = path
        self._state = state
        self._readers = readers
        self._lock = threading.Lock()
        self._snapshot: ClusterState | None = None

    @property
    def state(self) -> ClusterState:
        """The newest committed state; frozen values, containers that move on with each commit."""
        return self._state

    def snapshot(self) -> ClusterState:
        """The newest committed state as of one index, unchanging; the same object until something changes."""
        with self._lock:
            if self._snapshot is None:
                self._snapshot = self._state.copy()
            return self._snapshot

    def revision(self, revision_id: RevisionId) -> Revision | None:
        """The revision of that id, or None."""
        with worded(self._path), self._readers.begin() as connection:
            return read_revision(connection, revision_id)

    def newest_revision(self) -> Revision | None:
        """The revision that arrived last, or None."""
        with worded(self._path), self._readers.begin() as connection:
            return read_newest(connection)

    def events(
        self, *, after: int | None, limit: int, newest_first: bool = False, **filters: str
    ) -> Sequence[HistoryEntry[Event]]:
        """Entries behind number *after*, in order of arrival or the reverse, whose fields equal *filters*.

        HistoryCut if entries right behind *after* are gone.
        """
        return self._page(EVENT_HISTORY, after, limit, newest_first, filters)

    def evaluations(
        self, *, after: int | None, limit: int, newest_first: bool = False, **filters: str
    ) -> Sequence[HistoryEntry[Evaluation]]:
        """As `events`."""
        return self._page(EVALUATION_HISTORY, after, limit, newest_first, filters)

    def revisions(
        self, *, after: int | None, limit: int, newest_first: bool = False, **filters: str
    ) -> Sequence[HistoryEntry[Revision]]:
        """As `events`."""
        return self._page(REVISION_HISTORY, after, limit, newest_first, filters)

    def events_newer(self, index: int) -> Sequence[HistoryEntry[Event]]:
        """All events of changes after *index*. HistoryCut if some of them are gone."""
        with worded(self._path), self._readers.begin() as connection:
            return events_newer(connection, index)

    def close(self) -> None:
        """Closes the file."""
        self._readers.dispose()

    def _page(
        self,
        history: History[T],
        after: int | None,
        limit: int,
        newest_first: bool,
        filters: Mapping[str, str],
    ) -> Sequence[HistoryEntry[T]]:
        with worded(self._path), self._readers.begin() as connection:
            return read_page(
                connection, history, after=after, limit=limit, newest_first=newest_first, filters=filters
            )


def load_state(connection: sa.Connection) -> ClusterState:
    """The state as stored."""
    state = ClusterState()
    load_meta(connection, state)
    for kind in KINDS:
        load(kind, connection, state)
    return state


def open_read_only(data_dir: Path) -> StoreReader:
    """Reads a store without changing a byte of its file, also while a server runs on it.

    StoreError if there is none, it is damaged, or another release wrote it.
    """
    path = data_dir / FILE_NAME
    if not path.is_file():
        raise StoreError(f"{path}: there is no store; --data names the folder of a control plane")
    readers = reading_engine(path)
    try:
        with worded(path), readers.begin() as connection:
            found = schema_of(connection, path)
            state = load_state(connection) if found == SCHEMA else None
    except BaseException:
        readers.dispose()
        raise
    if state is None:
        readers.dispose()
        raise StoreError(
            f"{path}: an older trueup wrote it; start the server once, which brings it up to date"
        )
    return StoreReader(path, state, readers)
