"""When checks are made, and what they say together."""

from datetime import timedelta

from agent.checks import CheckBoard, CheckKey
from agent.instructions import CheckView
from tests.builders import NOON
from trueup.models.ids import AllocationId
from trueup.models.job import Check
from trueup.models.units import Duration

A1 = AllocationId("a1")
SECOND = timedelta(seconds=1)


def a_check(path: str = "/", *, interval: int = 10, restart_after: int = 0) -> Check:
    return Check(
        type="http", port="http", path=path, interval=Duration(seconds=interval), restart_after=restart_after
    )


def due_paths(board: CheckBoard, seconds: int) -> list[str]:
    return [check.path for _, check in board.due(NOON + seconds * SECOND)]


def key(number: int = 0, attempt: int = 1) -> CheckKey:
    return CheckKey(allocation_id=A1, task="server", attempt=attempt, number=number)


def test_the_first_is_at_once_and_the_next_an_interval_after_its_answer() -> None:
    board = CheckBoard()
    board.watch(A1, "server", 1, [a_check()], NOON)
    assert due_paths(board, 0) == ["/"]
    assert due_paths(board, 30) == [], "one that hangs is not asked by ever more"

    board.take(key(), None, NOON + 30 * SECOND)
    assert board.next_at == NOON + 40 * SECOND
    assert due_paths(board, 39) == []
    assert due_paths(board, 40) == ["/"]


def test_together_they_pass_once_each_has_and_fail_if_one_does() -> None:
    board = CheckBoard()
    board.watch(A1, "server", 1, [a_check("/a"), a_check("/b")], NOON)
    board.due(NOON)
    assert not board.take(key(0), None, NOON)
    assert board.view(A1, "server") == CheckView(attempt=1, passing=None)
    assert board.take(key(1), None, NOON)
    assert board.view(A1, "server") == CheckView(attempt=1, passing=True)
    failed(board, key(1), "status 500")
    assert board.view(A1, "server") == CheckView(attempt=1, passing=False, detail="http /b: status 500")
    assert not board.take(key(0), None, NOON), "nothing new"


def failed(board: CheckBoard, check: CheckKey, why_not: str) -> None:
    """What passed before fails, and fails again when it is asked at once."""
    assert not board.take(check, why_not, NOON)
    assert [found for found, _ in board.due(NOON)] == [check]
    assert board.take(check, why_not, NOON)


def test_a_failure_after_a_success_is_confirmed_at_once_before_it_counts() -> None:
    board = CheckBoard()
    board.watch(A1, "server", 1, [a_check(restart_after=1)], NOON)
    board.due(NOON)
    board.take(key(), None, NOON)
    assert due_paths(board, 10) == ["/"]
    assert not board.take(key(), "no answer", NOON + 12 * SECOND)
    assert due_paths(board, 12) == ["/"]
    assert not board.take(key(), None, NOON + 13 * SECOND)
    assert board.view(A1, "server") == CheckView(attempt=1, passing=True)
    assert board.next_at == NOON + 23 * SECOND

    assert due_paths(board, 23) == ["/"]
    failed(board, key(), "status 500")
    assert board.views(A1)["server"].exhausted


def test_restart_after_counts_failures_in_a_row() -> None:
    board = CheckBoard()
    board.watch(A1, "server", 1, [a_check(restart_after=2)], NOON)
    answers = [("no", False), (None, False), ("no", False), ("no", False), ("no", True), (None, False)]
    for why_not, exhausted in answers:
        board.take(key(), why_not, NOON)
        assert board.views(A1)["server"].exhausted is exhausted


def test_other_checks_take_the_place_of_those_before_and_nothing_is_asked_twice() -> None:
    board = CheckBoard()
    board.watch(A1, "server", 1, [a_check("/old")], NOON)
    board.due(NOON)
    board.take(key(), None, NOON)
    board.watch(A1, "server", 1, [a_check("/new")], NOON + SECOND)
    board.watch(A1, "server", 1, [a_check("/new")], NOON + 2 * SECOND)
    assert due_paths(board, 5) == ["/new"]
    board.take(key(), None, NOON + 5 * SECOND)
    assert [due_paths(board, seconds) for seconds in (10, 14, 15, 20)] == [[], [], ["/new"], []]


def test_an_answer_about_an_earlier_attempt_says_nothing() -> None:
    board = CheckBoard()
    board.watch(A1, "server", 1, [a_check()], NOON)
    board.due(NOON)
    board.watch(A1, "server", 2, [a_check()], NOON)
    assert not board.take(key(attempt=1), None, NOON)
    assert board.view(A1, "server") == CheckView(attempt=2)


def test_a_task_that_is_forgotten_is_not_asked_any_more() -> None:
    board = CheckBoard()
    board.watch(A1, "server", 1, [a_check()], NOON)
    board.watch(A1, "proxy", 1, [a_check("/proxy")], NOON)
    board.forget(A1, "server")
    assert due_paths(board, 0) == ["/proxy"]
    board.forget(A1)
    board.forget(A1)
    assert board.views(A1) == {}
