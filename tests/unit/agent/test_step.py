"""The pure step of an allocation: it never goes back, never starts twice, and always comes to an end."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.doors import TaskHandle, TaskStatus
from agent.instructions import (
    Answer,
    CallFailed,
    Find,
    Instruction,
    Kill,
    Moment,
    NotFound,
    Observed,
    Remove,
    Removed,
    Signal,
    Start,
    Started,
    StartFailed,
    World,
)
from agent.record import AllocationRecord, rebased
from agent.step import client_status, new_record, step_allocation, taken_up, told_to_stop
from tests.builders import NOON, a_group, a_task
from tests.unit.agent.world import an_assignment
from trueup.models.codec import from_json, to_json
from trueup.models.ids import AllocationId
from trueup.models.job import JobType, Lifecycle, Restart, TaskGroup
from trueup.models.units import Duration

GROUPS: Sequence[TaskGroup] = (
    a_group(restart=Restart(attempts=1, interval=Duration(minutes=1), delay=Duration(seconds=2))),
    a_group(
        tasks=(
            a_task("init", lifecycle=Lifecycle(hook="prestart")),
            a_task("server"),
            a_task("proxy", lifecycle=Lifecycle(hook="prestart", sidecar=True)),
            a_task("warm", lifecycle=Lifecycle(hook="poststart")),
            a_task("clean", lifecycle=Lifecycle(hook="poststop")),
        ),
        restart=Restart(attempts=2, interval=Duration(minutes=1), delay=Duration(seconds=1), mode="delay"),
        shutdown_delay=Duration(seconds=1),
    ),
)


class Play:
    """One allocation against a machine that does as it is drawn; answers come late, repeated, or after a crash."""

    def __init__(self, group: TaskGroup, job_type: JobType) -> None:
        self.assignment = an_assignment(group=group, job_type=job_type)
        self.record = new_record(self.assignment)
        self.steady = NOON
        self.heard = True
        self.jitter = 0.0
        self.running: dict[str, int] = {}
        self.ended: dict[tuple[str, int], TaskStatus] = {}
        self.started: list[tuple[str, int]] = []
        self.answers: dict[str, list[Answer]] = {}
        self.under_way: dict[str, Instruction] = {}

    def step(self) -> datetime | None:
        before = self.record
        world = World(
            moment=Moment(
                now=self.steady, steady=self.steady, boot_id="b", heard=self.heard, jitter=self.jitter
            ),
            answers={name: tuple(answers) for name, answers in self.answers.items()},
            busy=frozenset(self.under_way),
        )
        self.answers.clear()
        step = step_allocation(self.assignment, self.record, world)
        self.record = step.record
        for instruction in step.instructions:
            assert instruction.task not in self.under_way
            self.under_way[instruction.task] = instruction
        self._check(before)
        again = step_allocation(
            self.assignment,
            self.record,
            World(moment=world.moment, busy=frozenset(self.under_way)),
        )
        assert again.record == self.record
        assert again.instructions == ()
        return step.look_at

    def crash(self) -> None:
        """What was under way is done or not; its answer is lost. The record is read from the journal again."""
        self.under_way.clear()
        self.answers.clear()
        stored = from_json(to_json(self.record), AllocationRecord)
        assert stored == self.record
        self.record = taken_up(rebased(stored, self.steady))
        self.heard = False
        for name, task in self.record.tasks.items():
            if task.phase in {"running", "stopping"}:
                self.answers[name] = [Observed(attempt=task.attempt, status=self.status(name, task.attempt))]
            elif task.phase == "starting" and (name, task.attempt) in self.started:
                self.answers[name] = [self._found(name, task.attempt)]

    def answer(self, name: str, *, fails: bool, temporary: bool, lost: bool) -> None:
        """Does what was asked for *name*, and answers."""
        instruction = self.under_way.pop(name)
        made: Answer | None = None
        match instruction:
            case Start(attempt=attempt):
                if not fails or (temporary and lost):
                    self._start(name, attempt)
                made = StartFailed(message="no", temporary=temporary) if fails else self._found(name, attempt)
            case Find():
                attempt = self.record.tasks[name].attempt
                made = self._found(name, attempt) if (name, attempt) in self.started else NotFound()
            case Signal() | Kill():
                if fails:
                    made = CallFailed(message="engine away")
                elif isinstance(instruction, Kill) or not lost:
                    self.end(name, None)
            case Remove(handle=handle):
                made = CallFailed(message="busy") if fails else Removed(attempt=handle.attempt)
        if made is not None:
            self.answers.setdefault(name, []).append(made)

    def end(self, name: str, exit_code: int | None) -> None:
        attempt = self.running.pop(name, None)
        if attempt is None:
            return
        signal = 9 if exit_code is None else None
        status = TaskStatus(state="exited", exit_code=exit_code, signal=signal, finished_at=self.steady)
        self.ended[name, attempt] = status
        self.answers.setdefault(name, []).append(Observed(attempt=attempt, status=status))

    def status(self, name: str, attempt: int) -> TaskStatus:
        if self.running.get(name) == attempt:
            return TaskStatus(state="running", pid=1)
        return self.ended.get((name, attempt), TaskStatus(state="gone"))

    def _start(self, name: str, attempt: int) -> None:
        if (name, attempt) not in self.started:
            assert name not in self.running, "two attempts of one task at once"
            self.started.append((name, attempt))
            self.running[name] = attempt

    def _found(self, name: str, attempt: int) -> Started:
        handle = TaskHandle(
            driver="process", allocation_id=AllocationId("a1"), task=name, attempt=attempt, data=""
        )
        return Started(handle=handle, status=self.status(name, attempt))

    def _check(self, before: AllocationRecord) -> None:
        for name, task in self.record.tasks.items():
            earlier = before.tasks[name]
            assert task.attempt - earlier.attempt in {0, 1}
            assert not (earlier.phase == "dead" and task.phase != "dead")
            if task.phase == "dead":
                assert name not in self.running, "called ended while it runs"
        assert not (before.wanted == "stop" and self.record.wanted == "run")
        if before.outcome is not None:
            assert self.record.outcome == before.outcome
        order = ["pending", "running", "complete", "failed"]
        assert order.index(client_status(self.record)) >= min(2, order.index(client_status(before)))


EVENTS = ["answer", "answer", "answer", "end", "time", "crash", "hear", "stop"]


def disturb(play: Play, event: str, look_at: datetime | None, data: st.DataObject) -> None:
    """One thing that may happen between two steps."""
    if event == "answer" and play.under_way:
        name = data.draw(st.sampled_from(sorted(play.under_way)))
        fails, temporary, lost = (data.draw(st.booleans()) for _ in range(3))
        play.answer(name, fails=fails, temporary=temporary, lost=lost)
    elif event == "end" and play.running:
        play.end(data.draw(st.sampled_from(sorted(play.running))), data.draw(st.sampled_from([0, 1, None])))
    elif event == "time":
        play.steady = max(play.steady, look_at or play.steady)
    elif event == "crash":
        play.crash()
    elif event == "hear":
        play.heard = True
    elif event == "stop":
        play.record = told_to_stop(play.record, "not needed", play.steady)


def wind_down(play: Play) -> None:
    """From here on everything answers as it should, until the allocation has ended."""
    play.record = told_to_stop(play.record, "not needed", play.steady)
    play.heard = True
    for _ in range(200):
        look_at = play.step()
        if play.record.has_ended:
            return
        for name in sorted(play.under_way):
            play.answer(name, fails=False, temporary=False, lost=False)
        if "clean" in play.running:
            play.end("clean", 0)
        if not play.answers:
            play.steady = max(play.steady, look_at or play.steady)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), group=st.sampled_from(GROUPS), job_type=st.sampled_from(["service", "batch"]))
def test_whatever_happens_nothing_starts_twice_and_a_stop_ends_it(
    data: st.DataObject, group: TaskGroup, job_type: JobType
) -> None:
    play = Play(group, job_type)
    for event in data.draw(st.lists(st.sampled_from(EVENTS), max_size=40)):
        disturb(play, event, play.step(), data)
    wind_down(play)
    assert play.record.has_ended
    assert play.running == {}


@pytest.mark.parametrize(
    ("phase_events", "status"),
    [
        ((), "pending"),
        (("start",), "running"),
        (("start", "end 0"), "running"),
        (("start", "stop"), "complete"),
    ],
)
def test_the_word_for_how_far_it_is(phase_events: tuple[str, ...], status: str) -> None:
    play = Play(a_group(), "service")
    play.step()
    for event in phase_events:
        if event == "start":
            play.answer("server", fails=False, temporary=False, lost=False)
        elif event == "end 0":
            play.end("server", 0)
        else:
            play.record = told_to_stop(play.record, "not needed", play.steady)
            play.step()
            play.answer("server", fails=False, temporary=False, lost=False)
        play.step()
    assert client_status(play.record) == status


def test_starts_that_fail_together_are_not_tried_again_together() -> None:
    """What they lack would be as short the next time."""
    looks = set()
    for jitter in (0.0, 0.5, 1.0):
        play = Play(a_group(), "service")
        play.jitter = jitter
        play.step()
        play.answer("server", fails=True, temporary=True, lost=False)
        looks.add(play.step())
    assert looks == {NOON + timedelta(seconds=seconds) for seconds in (0.5, 0.5625, 0.625)}


def test_a_start_whose_repeat_is_refused_is_looked_for_before_it_is_given_up() -> None:
    """The first did work although its answer was lost, and what the repeat needs (a secret, say) is gone by now."""
    play = Play(a_group(restart=Restart(attempts=0)), "service")
    play.step()
    play.answer("server", fails=True, temporary=True, lost=True)
    look_at = play.step()
    assert look_at is not None
    play.steady = look_at
    play.step()
    play.answer("server", fails=True, temporary=False, lost=False)
    play.step()
    assert isinstance(play.under_way["server"], Find)

    play.answer("server", fails=False, temporary=False, lost=False)
    play.step()
    assert play.record.tasks["server"].phase == "running"
    assert play.started == [("server", 1)]


def test_a_container_with_another_process_has_ended_unseen() -> None:
    """Somebody restarted it: the policy decides, as of any end."""
    play = Play(a_group(restart=Restart(attempts=0)), "service")
    play.step()
    play.answer("server", fails=False, temporary=False, lost=False)
    play.step()
    seen = TaskStatus(state="running", container_id="c", pid=1)
    play.answers["server"] = [Observed(attempt=1, status=seen)]
    play.step()
    assert play.record.tasks["server"].phase == "running"

    play.running.clear()
    again = TaskStatus(state="running", container_id="c", pid=2)
    play.answers["server"] = [Observed(attempt=1, status=again)]
    play.step()
    assert client_status(play.record) == "failed"


def test_one_failed_task_ends_its_siblings_and_the_allocation_fails() -> None:
    group = a_group(tasks=(a_task("one"), a_task("two")), restart=Restart(attempts=0))
    play = Play(group, "service")
    play.step()
    for name in ("one", "two"):
        play.answer(name, fails=False, temporary=False, lost=False)
    play.step()
    play.end("one", 1)
    play.step()
    assert isinstance(play.under_way["two"], Signal)

    play.answer("two", fails=False, temporary=False, lost=False)
    play.step()
    assert client_status(play.record) == "failed"
    assert not play.record.tasks["two"].failed


def test_a_restart_waits_for_its_delay_and_says_so() -> None:
    play = Play(GROUPS[0], "service")
    play.step()
    play.answer("server", fails=False, temporary=False, lost=False)
    play.step()
    play.end("server", 1)
    play.step()
    assert isinstance(play.under_way["server"], Remove)
    play.answer("server", fails=False, temporary=False, lost=False)
    assert play.step() == NOON + timedelta(seconds=2)
    assert play.under_way == {}
    assert play.record.tasks["server"].events[-1].type == "Restarting"

    play.steady = NOON + timedelta(seconds=2)
    play.step()
    assert play.under_way == {"server": Start(task="server", attempt=2)}
