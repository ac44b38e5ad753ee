"""What starts wait for: one fetch for all who wait for the same, on threads that nothing else needs."""

import threading
from dataclasses import dataclass, field

import pytest

from agent.doors import DriverError
from agent.instructions import StartFailed
from agent.shared_fetches import SharedFetches
from agent.workers import ThreadWorkers
from tests.unit.agent.node import until
from trueup.models.ids import AllocationId

SECONDS = 10


@dataclass
class HeldFetch:
    """Runs until it is let go or cancelled."""

    key: str
    source: str = "registry"
    shown: str = "shop:1"
    fails: Exception | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)
    cancelled: bool = False

    def run(self) -> None:
        self.begun.set()
        assert self.let_go.wait(SECONDS)
        if self.fails is not None:
            raise self.fails

    def cancel(self) -> None:
        self.cancelled = True
        self.let_go.set()


class Told:
    """What each waiter was told, by its allocation."""

    def __init__(self) -> None:
        self.by_waiter: dict[str, StartFailed | None] = {}

    def begin(self, fetches: SharedFetches, waiter: str, fetch: HeldFetch) -> None:
        fetches.begin(
            AllocationId(waiter), "server", fetch, lambda failed: self.by_waiter.update({waiter: failed})
        )


def test_all_who_wait_for_the_same_are_told_by_one_fetch() -> None:
    fetches, told = SharedFetches(ThreadWorkers("test", 4)), Told()
    first, second = HeldFetch("image"), HeldFetch("image")
    told.begin(fetches, "a1", first)
    told.begin(fetches, "a2", second)
    first.let_go.set()

    until(lambda: told.by_waiter == {"a1": None, "a2": None})
    assert not second.begun.is_set()


@pytest.mark.parametrize(
    ("fails", "failure"),
    [
        (DriverError("no such image"), StartFailed(message="no such image")),
        (DriverError("registry down", temporary=True), StartFailed(message="registry down", temporary=True)),
        (
            RuntimeError("a fault"),
            StartFailed(message="unexpected RuntimeError; the agent's log says more", temporary=True),
        ),
    ],
)
def test_what_fails_fails_for_all_who_wait_and_the_next_begins_anew(
    fails: Exception, failure: StartFailed
) -> None:
    fetches, told = SharedFetches(ThreadWorkers("test", 4)), Told()
    fetch, again = HeldFetch("image", fails=fails), HeldFetch("image")
    told.begin(fetches, "a1", fetch)
    told.begin(fetches, "a2", fetch)
    fetch.let_go.set()
    until(lambda: told.by_waiter == {"a1": failure, "a2": failure})

    told.begin(fetches, "a1", again)
    assert again.begun.wait(SECONDS)
    again.let_go.set()


def test_who_gives_up_is_told_at_once_and_the_last_one_ends_the_fetch() -> None:
    fetches, told = SharedFetches(ThreadWorkers("test", 4)), Told()
    fetch = HeldFetch("image")
    told.begin(fetches, "a1", fetch)
    told.begin(fetches, "a2", fetch)
    assert fetch.begun.wait(SECONDS)

    fetches.give_up(AllocationId("a1"), "server")
    assert (list(told.by_waiter), fetch.cancelled) == (["a1"], False)

    fetches.give_up(AllocationId("a2"), "server")
    fetches.give_up(AllocationId("a2"), "server")
    assert fetch.cancelled
    assert {failed.event for failed in told.by_waiter.values() if failed} == {"Not started"}


def test_what_was_given_up_before_its_turn_is_never_fetched() -> None:
    workers, told = ThreadWorkers("test", 1), Told()
    fetches = SharedFetches(workers)
    slow, given_up, wanted = (HeldFetch(key) for key in ("slow", "given up", "wanted"))
    for waiter, fetch in (("a1", slow), ("a2", given_up), ("a3", wanted)):
        told.begin(fetches, waiter, fetch)
    fetches.give_up(AllocationId("a2"), "server")
    slow.let_go.set()
    assert wanted.begun.wait(SECONDS)
    wanted.let_go.set()

    assert not given_up.begun.is_set()


def test_a_slow_source_holds_up_no_other() -> None:
    fetches, told = SharedFetches(ThreadWorkers("test", 4)), Told()
    slow = [HeldFetch(f"image {number}", source="slow") for number in range(10)]
    for number, fetch in enumerate(slow):
        told.begin(fetches, f"slow{number}", fetch)
    other = HeldFetch("image", source="other")
    told.begin(fetches, "a1", other)

    assert other.begun.wait(SECONDS)
    assert sum(fetch.begun.is_set() for fetch in slow) <= 2
    for fetch in (other, *slow):
        fetch.let_go.set()
    until(lambda: len(told.by_waiter) == 11)
