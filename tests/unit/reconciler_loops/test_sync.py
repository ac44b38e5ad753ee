"""From source to store: what is registered, what an unreadable source changes, and that looking writes nothing."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from metastore.store import SqlStore
from reconciler.doors import SourceUnavailable
from reconciler.sync import SyncLoop
from tests.builders import NOON, a_desired, a_job
from tests.unit.reconciler_loops.conftest import HandClock
from trueup.models.desired import DesiredState
from trueup.models.errors import SpecError
from trueup.models.health import cluster_health
from trueup.models.ids import RevisionId
from trueup.models.revision import Commit, RemoteState, RemoteStatus, SourceStatus
from trueup.models.template import ClusterSettings


class HandSource:
    """A source that yields what a test puts in."""

    def __init__(self) -> None:
        self.next: DesiredState | None = None
        self.asked_with: RevisionId | None = None
        self.last_success_at: datetime | None = NOON
        self.remotes: tuple[RemoteStatus, ...] = ()

    def read(self, applied: RevisionId | None) -> DesiredState:
        self.asked_with = applied
        if self.next is None:
            raise SourceUnavailable("specs: no such folder; make it, or name another")
        return self.next

    @property
    def status(self) -> SourceStatus:
        error = "" if self.next is not None else "specs: no such folder"
        return SourceStatus(
            kind="directory",
            url="specs",
            last_success_at=self.last_success_at,
            error=error,
            remotes=self.remotes,
        )

    @property
    def next_look(self) -> datetime | None:
        return NOON + timedelta(seconds=5)


@pytest.fixture
def source() -> HandSource:
    return HandSource()


@pytest.fixture
def sync(source: HandSource, store: SqlStore, clock: HandClock) -> SyncLoop:
    return SyncLoop(source, store, clock)


def test_a_revision_is_registered_once(source: HandSource, sync: SyncLoop, store: SqlStore) -> None:
    source.next = a_desired(a_job())
    assert sync.step() == NOON + timedelta(seconds=5)
    assert store.state.revision == "r2"
    index = store.state.index
    sync.step()
    source.next = a_desired(a_job())
    sync.step()
    assert store.state.index == index
    assert source.asked_with == "r2"


def test_after_a_restart_the_same_revision_writes_nothing(
    source: HandSource, sync: SyncLoop, store: SqlStore, clock: HandClock
) -> None:
    source.next = a_desired(a_job())
    sync.step()
    index = store.state.index
    SyncLoop(source, store, clock).step()
    assert store.state.index == index


def test_an_unreadable_source_changes_nothing_and_shows(
    source: HandSource, sync: SyncLoop, store: SqlStore
) -> None:
    source.next = a_desired(a_job())
    sync.step()
    source.next = None
    sync.step()
    assert not store.state.jobs["web"].removed
    assert store.state.revision == "r2"
    assert cluster_health(store.state).sync == "Unknown"
    index = store.state.index
    sync.step()
    assert store.state.index == index, "the same trouble is noted once"
    source.next = a_desired(a_job())
    sync.step()
    assert cluster_health(store.state).sync != "Unknown"
    types = [one.value.type for one in store.events(after=None, limit=10)]
    assert types == ["RevisionApplied", "SourceUnavailable", "SourceAvailable"]


def test_a_restart_while_the_source_is_away_keeps_the_time_of_the_last_success(
    source: HandSource, sync: SyncLoop, store: SqlStore, clock: HandClock
) -> None:
    source.next = a_desired(a_job())
    sync.step()
    restarted = HandSource()
    restarted.last_success_at = None
    SyncLoop(restarted, store, clock).step()
    assert store.state.source.error
    assert store.state.source.last_success_at == NOON


def test_an_unreadable_source_is_logged_once_each_time_it_becomes_so(
    source: HandSource, sync: SyncLoop
) -> None:
    with capture_logs() as said:
        for _ in range(3):
            sync.step()
        source.next = a_desired(a_job())
        sync.step()
        source.next = None
        sync.step()
    assert [line["log_level"] for line in said] == ["warning", "info", "warning"]


def test_a_held_revision_that_another_overtakes_is_superseded(
    source: HandSource, sync: SyncLoop, store: SqlStore
) -> None:
    for desired in (a_desired(a_job()), a_desired(revision="r3"), a_desired(a_job(), revision="r4")):
        source.next = desired
        sync.step()
    states = {one.value.id: one.value.state for one in store.revisions(after=None, limit=10)}
    assert states == {"r2": "applied", "r3": "superseded", "r4": "applied"}


@pytest.mark.parametrize("how", ["by its confirmation", "by a revision that is not held"])
def test_who_ended_a_hold_is_an_event(source: HandSource, sync: SyncLoop, store: SqlStore, how: str) -> None:
    for desired in (a_desired(a_job()), a_desired(revision="r3")):
        source.next = desired
        sync.step()
    held = store.state.held
    assert held is not None
    confirms = how == "by its confirmation"
    commit = Commit(id=RevisionId("r4"), author="Ann", author_email="ann@example.org")
    source.next = msgspec.structs.replace(
        a_desired(*([] if confirms else [a_job()])),
        commit=commit,
        cluster=ClusterSettings(confirm=held.confirm) if confirms else None,
    )
    sync.step()
    (event,) = [one.value for one in store.events(after=None, limit=10, type="HoldEnded")]
    assert event.message == f"the hold of revision r3 ended {how}, r4 of Ann <ann@example.org>"
    assert event.revision == "r4"


def test_errors_of_a_revision_show_and_go_with_the_next(
    source: HandSource, sync: SyncLoop, store: SqlStore
) -> None:
    error = SpecError(file="web.yaml", line=3, column=1, path="count", message="-1 is too small")
    source.next = a_desired(a_job(), errors=(error,))
    sync.step()
    assert store.state.errors == (error,)
    source.next = a_desired(a_job())
    sync.step()
    assert not store.state.errors, "the same revision without its errors: a template file that came back"


def test_nothing_is_registered_while_agents_are_still_heard(
    source: HandSource, store: SqlStore, clock: HandClock
) -> None:
    source.next = a_desired(a_job())
    SyncLoop(source, store, clock, adopting=lambda: True).step()
    assert store.state.revision is None


def remotes(*states: RemoteState) -> tuple[RemoteStatus, ...]:
    return tuple(RemoteStatus(url=f"remote-{number}", state=state) for number, state in enumerate(states))


def test_a_remote_in_trouble_is_an_event_once_and_its_return_another(
    source: HandSource, sync: SyncLoop, store: SqlStore
) -> None:
    source.next = a_desired(a_job())
    source.remotes = remotes("followed", "current")
    sync.step()
    for states in ((("followed", "unreachable"),) * 2) + ((("behind", "followed"),) * 2):
        source.remotes = remotes(*states)
        sync.step()
    said = [one.value for one in store.events(after=None, limit=10)][1:]
    assert [(one.type, one.message.split(" ")[0]) for one in said] == [
        ("RemoteUnavailable", "remote-1"),
        ("RemoteAvailable", "remote-1"),
    ]


def test_atomic_keeps_an_invalid_revision_out_until_one_without_errors(
    source: HandSource, store: SqlStore, clock: HandClock
) -> None:
    """It is in the history as invalid, and a restart finds it as it was."""
    error = SpecError(file="web.yaml", line=3, column=1, path="count", message="-1 is too small")
    source.next = a_desired(a_job())
    SyncLoop(source, store, clock, atomic=True).step()
    source.next = a_desired(a_job(), a_job("api"), revision="r3", errors=(error,))
    for _ in range(2):
        SyncLoop(source, store, clock, atomic=True).step()
        assert (store.state.revision, set(store.state.jobs)) == ("r2", {"web"})
        assert store.state.held is not None
        assert cluster_health(store.state).sync == "Invalid"
    found = store.revision(RevisionId("r3"))
    assert found is not None
    assert (found.state, found.errors, found.applied_at) == ("invalid", (error,), None)
    source.next = a_desired(a_job(), a_job("api"), revision="r4")
    SyncLoop(source, store, clock, atomic=True).step()
    assert (store.state.revision, set(store.state.jobs)) == ("r4", {"web", "api"})


def a_commit(identifier: str, **fields: Any) -> Commit:
    return Commit(id=RevisionId(identifier), author="Ann", subject=identifier, **fields)


def test_a_revision_looked_at_again_came_when_it_first_did(
    source: HandSource, store: SqlStore, clock: HandClock
) -> None:
    """A template file that comes back within one revision: what it did at first is not forgotten."""
    error = SpecError(file="base.yaml", message="cannot be parsed")
    source.next = a_desired(a_job(), unreadable_files=("base.yaml",), errors=(error,))
    SyncLoop(source, store, clock).step()
    clock.move(seconds=60)
    source.next = a_desired(a_job(), a_job("api"))
    SyncLoop(source, store, clock).step()
    (found,) = [one.value for one in store.revisions(after=None, limit=10)]
    assert (found.seen_at, found.applied_at) == (NOON, NOON)
    assert found.jobs.created == ("api", "web")
    assert found.errors == ()


def test_a_held_revision_that_is_released_is_applied_then_and_was_seen_before(
    source: HandSource, sync: SyncLoop, store: SqlStore, clock: HandClock
) -> None:
    source.next = a_desired(a_job())
    sync.step()
    source.next = a_desired(revision="r3")
    sync.step()
    clock.move(seconds=60)
    with store.transaction() as tx:
        tx.put_job(msgspec.structs.replace(store.state.jobs["web"], removed=True))
    SyncLoop(source, store, clock).step()
    found = store.revision(RevisionId("r3"))
    assert found is not None
    assert (found.state, found.held) == ("applied", None)
    assert (found.seen_at, found.applied_at) == (NOON, NOON + timedelta(seconds=60))


def test_the_author_of_a_change_keeps_the_errors_and_the_time_of_an_earlier_look(
    source: HandSource, store: SqlStore, clock: HandClock
) -> None:
    """Two commits: the first was kept out for an error elsewhere, the second mends that and lets both in."""
    sync = SyncLoop(source, store, clock, atomic=True)
    error = SpecError(file="api.yaml", message="-1 is too small")
    source.next = msgspec.structs.replace(a_desired(a_job(), errors=(error,)), commit=a_commit("r2"))
    sync.step()
    clock.move(seconds=60)
    mended = a_desired(a_job(), a_job("api"))
    web = msgspec.structs.replace(mended.jobs["web"], commit=a_commit("r2"))
    source.next = msgspec.structs.replace(mended, commit=a_commit("r3"), jobs={**mended.jobs, "web": web})
    sync.step()
    first, second = [one.value for one in store.revisions(after=None, limit=10)]
    assert (first.id, first.state, first.errors, first.held) == ("r2", "applied", (error,), None)
    assert (first.seen_at, first.applied_at) == (NOON, NOON + timedelta(seconds=60))
    assert (second.id, second.state) == ("r3", "applied")
    assert store.state.jobs["web"].revision == "r2"
