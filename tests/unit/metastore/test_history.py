"""Histories: pages both ways, filters, and a clear word where retention cut."""

from datetime import timedelta

import pytest

from metastore.errors import HistoryCut
from metastore.store import SqlStore
from metastore.trimming import Trim
from tests.builders import NOON
from trueup.models.evaluation import Evaluation, Event
from trueup.models.ids import EvaluationId, RevisionId
from trueup.models.revision import Revision


def put_events(store: SqlStore, *names: str, minutes: int = 0) -> None:
    with store.transaction() as tx:
        for name in names:
            tx.put_event(
                Event(at=NOON + timedelta(minutes=minutes), type=name, message=name, job=name.lower())
            )


def types(entries: object) -> list[str]:
    return [entry.value.type for entry in entries]  # type: ignore[attr-defined]


def trim(store: SqlStore, *, minutes: int, revisions: int = 1000, kept: tuple[str, ...] = ()) -> int:
    before = NOON + timedelta(minutes=minutes)
    return store.trim(Trim(events_before=before, evaluations_before=before, revisions=revisions, kept=kept))


def test_pages_go_on_from_a_number_both_ways(store: SqlStore) -> None:
    """In order of arrival, or newest first."""
    put_events(store, "A", "B")
    put_events(store, "C")
    first = store.events(after=None, limit=2)
    assert types(first) == ["A", "B"]
    assert types(store.events(after=first[-1].number, limit=2)) == ["C"]
    newest = store.events(after=None, limit=2, newest_first=True)
    assert types(newest) == ["C", "B"]
    assert types(store.events(after=newest[-1].number, limit=2, newest_first=True)) == ["A"]
    assert [entry.index for entry in store.events(after=None, limit=9)] == [1, 1, 2]


def test_pages_are_filtered(store: SqlStore) -> None:
    """By the fields of an entry."""
    put_events(store, "A", "B")
    assert types(store.events(after=None, limit=9, job="b")) == ["B"]
    with store.transaction() as tx:
        for number, status in enumerate(("complete", "blocked")):
            tx.put_evaluation(
                Evaluation(id=EvaluationId(str(number)), job="web", status=status, created_at=NOON)  # type: ignore[arg-type]
            )
    assert [
        entry.value.id for entry in store.evaluations(after=None, limit=9, job="web", status="blocked")
    ] == ["1"]


def test_events_newer_than_an_index_come_whole(store: SqlStore) -> None:
    """All of each change after it."""
    put_events(store, "A")
    put_events(store, "B", "C")
    assert types(store.events_newer(0)) == ["A", "B", "C"]
    assert types(store.events_newer(1)) == ["B", "C"]
    assert types(store.events_newer(2)) == []


def test_what_retention_dropped_is_said_to_be_gone(store: SqlStore) -> None:
    """To those who ask for what came right behind it; all others get what is left."""
    put_events(store, "A", "B")
    put_events(store, "C", minutes=10)
    first = store.events(after=None, limit=1)[0]
    assert trim(store, minutes=5) == 2
    assert types(store.events(after=None, limit=9)) == ["C"]
    with pytest.raises(HistoryCut, match="events"):
        store.events(after=first.number, limit=9)
    assert types(store.events(after=first.number + 1, limit=9)) == ["C"]
    with pytest.raises(HistoryCut):
        store.events_newer(0)
    assert types(store.events_newer(1)) == ["C"]


def test_trimming_is_no_change_of_the_state(store: SqlStore) -> None:
    """The index stays, and numbers are never given out twice."""
    put_events(store, "A")
    number = store.events(after=None, limit=1)[0].number
    index = store.state.index
    trim(store, minutes=5)
    assert store.state.index == index
    put_events(store, "B")
    assert store.events(after=None, limit=1)[0].number > number


def test_revisions_are_kept_by_number(store: SqlStore) -> None:
    """The newest, and those that something still names."""
    for number in range(6):
        with store.transaction() as tx:
            tx.put_revision(Revision(id=RevisionId(f"r{number}"), seen_at=NOON + timedelta(seconds=number)))
    assert trim(store, minutes=-5, revisions=2, kept=("r1",)) == 3
    assert [entry.value.id for entry in store.revisions(after=None, limit=9)] == ["r1", "r4", "r5"]


def test_a_revision_that_comes_back_is_the_newest(store: SqlStore) -> None:
    """A directory's content is put back: its digest is an old one."""
    for number, name in enumerate(("r1", "r2", "r1")):
        with store.transaction() as tx:
            tx.put_revision(Revision(id=RevisionId(name), seen_at=NOON + timedelta(seconds=number)))
    assert [entry.value.id for entry in store.revisions(after=None, limit=9)] == ["r2", "r1"]
    newest = store.newest_revision()
    assert newest is not None
    assert newest.id == "r1"
