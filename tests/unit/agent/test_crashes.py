"""kill -9 of the agent at every call it makes of its doors: nothing runs twice, nothing is lost.

A story is run once without a crash to count the doors it goes through, then once for each of them with the agent
killed there and started again.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.builders import a_group, a_task
from tests.unit.agent.fake_driver import Behaviour
from tests.unit.agent.world import Killed, World, an_assignment
from trueup.models.allocation import TaskState
from trueup.models.ids import AllocationId
from trueup.models.job import Lifecycle, Restart
from trueup.models.units import Duration
from trueup.models.wire import Holding

Story = Callable[["Told"], None]


class Told:
    """A world whose control plane repeats its orders until the agent shows that it has them, as heartbeats do."""

    def __init__(self, data: Path, kill_at: int | None) -> None:
        self.world = World(data)
        self.world.settle()
        self.world.reached.clear()
        self.world.kill_at = kill_at
        self.killed = False
        self._orders: list[Callable[[], None]] = []

    def order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        order()

    def run(self, seconds: float) -> None:
        """Lets time pass; an agent that is killed meanwhile is up again at once, and hears all orders anew."""
        end = self.world.clock.now() + timedelta(seconds=seconds)
        while True:
            try:
                self.world.run(max(0.0, (end - self.world.clock.now()).total_seconds()))
            except Killed:
                self.killed = True
                self.world.crash()
                self.world.start_agent()
                for order in self._orders:
                    order()
            else:
                return

    def outcome(self) -> list[tuple[str, str, dict[str, TaskState]]]:
        held: list[Holding] = list(self.world.agent.reports.holdings())
        return [
            (
                one.id,
                one.client_status,
                {name: TaskState(state=task.state, failed=task.failed) for name, task in one.tasks.items()},
            )
            for one in held
        ]


def start_and_stop(told: Told) -> None:
    told.order(lambda: told.world.assign(an_assignment("a1"), an_assignment("a2")))
    told.run(3)
    told.order(lambda: told.world.stop("a1"))
    told.run(15)


def kill_what_ignores_signals(told: Told) -> None:
    told.world.machine.behave = lambda _launch: Behaviour(ignores_signals=True)
    told.order(lambda: told.world.assign(an_assignment("a1")))
    told.run(3)
    told.order(lambda: told.world.stop("a1"))
    told.run(20)


def replace(told: Told) -> None:
    told.world.machine.behave = lambda _launch: Behaviour(ends_after=timedelta(seconds=2))
    told.order(lambda: told.world.assign(an_assignment("a1")))
    told.run(3)
    told.order(lambda: told.world.assign(an_assignment("a2", replaces=AllocationId("a1"))))
    told.order(lambda: told.world.stop("a1"))
    told.run(15)


def run_a_batch_with_its_surroundings(told: Told) -> None:
    told.world.machine.behave = lambda _launch: Behaviour(run_for=timedelta(seconds=1))
    tasks = (
        a_task("init", lifecycle=Lifecycle(hook="prestart")),
        a_task("server"),
        a_task("clean", lifecycle=Lifecycle(hook="poststop")),
    )
    told.order(lambda: told.world.assign(an_assignment("a1", job_type="batch", group=a_group(tasks=tasks))))
    told.run(20)


def restart_until_it_fails(told: Told) -> None:
    told.world.machine.behave = lambda _launch: Behaviour(run_for=timedelta(seconds=1), exit_code=1)
    policy = Restart(attempts=2, interval=Duration(minutes=10), delay=Duration(seconds=1))
    told.order(lambda: told.world.assign(an_assignment("a1", group=a_group(restart=policy))))
    told.run(30)


STORIES: list[Story] = [
    start_and_stop,
    kill_what_ignores_signals,
    replace,
    run_a_batch_with_its_surroundings,
    restart_until_it_fails,
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_a_kill_at_any_door_changes_neither_starts_nor_outcome(tmp_path: Path, story: Story) -> None:
    undisturbed = Told(tmp_path / "undisturbed", None)
    story(undisturbed)
    expected = undisturbed.world.machine.started
    assert undisturbed.world.machine.overlaps == []
    assert len(undisturbed.world.reached) > 10

    for number in range(len(undisturbed.world.reached)):
        told = Told(tmp_path / str(number), number)
        story(told)
        where = undisturbed.world.reached[number]
        assert told.killed, where
        assert told.world.machine.started == expected, where
        assert told.world.machine.overlaps == [], where
        assert told.outcome() == undisturbed.outcome(), where
