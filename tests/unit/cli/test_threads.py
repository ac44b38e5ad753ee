"""Loops on threads: woken, timed, and never ended by a fault."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from cli.system import SystemClock
from cli.threads import LoopThreads


class CountingLoop:
    """Counts its steps; *answer* is what each returns or raises."""

    def __init__(self, answer: Callable[[int], datetime | None]) -> None:
        self._answer = answer
        self._changed = threading.Condition()
        self.steps = 0

    def step(self) -> datetime | None:
        with self._changed:
            self.steps += 1
            self._changed.notify_all()
            return self._answer(self.steps)

    def reached(self, steps: int) -> bool:
        """Whether so many steps were made, within five seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.steps >= steps, timeout=5)


def test_a_loop_steps_at_once_when_woken_and_when_due() -> None:
    """A wake during a step is seen after it."""
    clock = SystemClock()
    sleeper = CountingLoop(lambda _: None)
    timed = CountingLoop(lambda _: clock.now() + timedelta(milliseconds=5))
    threads = LoopThreads(clock)
    wake = threads.add("sleeper", sleeper)
    threads.add("timed", timed)
    threads.start()
    assert sleeper.reached(1)
    assert timed.reached(3)
    wake()
    assert sleeper.reached(2)
    threads.wake("sleeper")
    assert sleeper.reached(3)
    assert threads.stop(5) == []


class TurnedBackClock(SystemClock):
    """A wall clock that is set back an hour after its second reading."""

    def __init__(self) -> None:
        self._readings = 0

    def now(self) -> datetime:
        self._readings += 1
        return super().now() - timedelta(hours=self._readings > 2)


def test_a_wall_clock_that_is_set_back_delays_no_step() -> None:
    """Heartbeats are due by the time that passes, whatever the clock on the wall says."""
    clock = TurnedBackClock()
    timed = CountingLoop(lambda _: clock.now() + timedelta(milliseconds=20))
    threads = LoopThreads(clock)
    threads.add("timed", timed)
    threads.start()
    assert timed.reached(3)
    assert threads.stop(5) == []


def test_a_step_that_fails_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """One fault must not end a loop that all depend on."""

    def fail_first(step: int) -> None:
        if step == 1:
            raise ZeroDivisionError("once")

    loop = CountingLoop(fail_first)
    threads = LoopThreads(SystemClock())
    threads.add("loop", loop)
    threads.start()
    assert loop.reached(2)
    assert threads.stop(5) == []


def test_a_stuck_step_is_named_and_does_not_keep_the_process() -> None:
    """Its thread is a daemon."""
    release = threading.Event()
    started = threading.Event()

    class Stuck:
        def step(self) -> datetime | None:
            started.set()
            release.wait(10)
            return None

    threads = LoopThreads(SystemClock())
    threads.add("stuck", Stuck())
    threads.start()
    assert started.wait(5)
    assert threads.stop(0.01) == ["stuck"]
    release.set()
    assert threads.stop(5) == []


def test_a_loop_that_keeps_failing_is_stepped_again_within_its_longest_pause() -> None:
    def fail(_steps: int) -> None:
        raise OSError("no room")

    loop = CountingLoop(fail)
    threads = LoopThreads(SystemClock(), longest_pause_seconds=0.01)
    threads.add("failing", loop)
    threads.start()
    assert loop.reached(8)
    assert threads.stop(5) == []
