"""What agent and control plane say to each other, and what is obeyed of it."""

from pathlib import Path

import pytest

from agent.doors import Refused, Unknown
from agent.driver_watch import DriverWatch
from tests.unit.agent.world import World, an_assignment
from trueup.models.ids import AllocationId
from trueup.models.log_order import LogOrder
from trueup.models.node import NodeUse
from trueup.models.units import Bytes
from trueup.models.wire import HeartbeatResponse, StopOrder, holdings_digest


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "agent")
    world.settle()
    return world


def a_stop(allocation_id: str = "a1") -> StopOrder:
    return StopOrder(id=AllocationId(allocation_id), reason="not needed")


def test_it_registers_once_and_keeps_its_secret_and_id(world: World) -> None:
    [first] = world.control_plane.registrations
    assert first.incarnation == 1
    assert world.agent.secret == "secret"

    world.crash()
    world.start_agent()
    world.run(10)
    _, second = world.control_plane.registrations
    assert second.node_id == first.node_id
    assert (second.incarnation, second.epoch, second.cluster_id) == (2, 1, "c1")


def test_it_beats_in_the_rhythm_it_is_told_with_growing_numbers(world: World) -> None:
    world.run(30)
    beats = world.control_plane.beats
    assert 10 <= len(beats) <= 12
    assert [beat.sequence for beat in beats] == list(range(2, len(beats) + 2)), (
        "the registration is the first message"
    )
    assert all(not beat.updates and beat.holdings is None for beat in beats)


class Heard:
    """A courier that brings nothing."""

    def __init__(self) -> None:
        self.answers: list[HeartbeatResponse] = []

    def hear(self, answer: HeartbeatResponse) -> None:
        self.answers.append(answer)


def test_orders_for_output_are_handed_on_and_that_nobody_takes_them_is_told(world: World) -> None:
    world.run(4)
    world.agent.heartbeat.courier = courier = Heard()
    order = LogOrder(id="o1", allocation_id=AllocationId("a1"))
    world.control_plane.answers = [world.control_plane.answer(logs=(order,), listen=True)]
    world.run(4)
    assert [beat.brings_logs for beat in world.control_plane.beats] == [False, False, True]
    (heard,) = courier.answers
    assert (heard.logs, heard.listen) == ((order,), True)


def test_output_is_brought_to_no_older_copy_of_the_store(world: World) -> None:
    world.run(4)
    world.agent.heartbeat.courier = courier = Heard()
    world.control_plane.epoch = 0
    world.run(4)
    assert courier.answers == []


def test_each_beat_says_what_is_in_use(world: World) -> None:
    """As measured last; that it changes needs no registration."""
    for memory in (5, 7):
        world.facts.used = NodeUse(memory_bytes=Bytes(memory))
        world.run(4)
        assert world.control_plane.beats[-1].used == NodeUse(memory_bytes=Bytes(memory))
    assert len(world.control_plane.registrations) == 1


def test_news_is_told_at_once_and_many_together(world: World) -> None:
    world.run(1)
    before = len(world.control_plane.beats)
    world.assign(*(an_assignment(f"a{number}") for number in range(100)))
    world.run(0.2)

    assert len(world.control_plane.beats) - before <= 4
    assert len(world.control_plane.updates) == 100


def test_an_update_that_was_not_answered_is_told_again(world: World) -> None:
    world.control_plane.reachable = False
    world.assign(an_assignment())
    world.run(5)
    assert world.running() == [("a1", "server")]

    world.control_plane.reachable = True
    world.run(10)
    assert world.told().client_status == "running"
    beats = len(world.control_plane.beats)
    world.run(10)
    assert all(not beat.updates for beat in world.control_plane.beats[beats:])


def test_unreachable_means_everything_runs_on_and_tries_grow_apart(world: World) -> None:
    world.assign(an_assignment())
    world.run(2)
    world.control_plane.reachable = False
    world.run(3600)
    assert world.running() == [("a1", "server")]
    assert world.agent.heartbeat.trouble == "no route"

    world.control_plane.reachable = True
    world.run(6)
    assert world.agent.heartbeat.trouble == ""


def test_one_the_server_does_not_know_registers_again(world: World) -> None:
    world.assign(an_assignment())
    world.run(2)
    world.control_plane.refuses = Unknown("who?")
    world.run(5)
    world.control_plane.refuses = None
    world.run(11)

    assert len(world.control_plane.registrations) == 2
    assert [held.id for held in world.control_plane.registrations[1].allocations] == ["a1"]
    assert world.running() == [("a1", "server")]


def test_one_that_is_refused_runs_on_and_asks_again_now_and_then(world: World) -> None:
    world.assign(an_assignment())
    world.run(2)
    world.control_plane.refuses = Refused("another living node has that name")
    world.run(100)
    assert world.agent.heartbeat.trouble == "another living node has that name"
    assert world.running() == [("a1", "server")]

    world.control_plane.refuses = None
    world.run(11)
    assert len(world.control_plane.registrations) == 2


def test_one_that_is_told_when_to_ask_again_asks_then(world: World) -> None:
    """A new agent of a machine whose data were lost takes its own place once the old one counts as gone."""
    world.crash()
    world.start_agent()
    world.control_plane.refuses = Refused("it may be you", again_seconds=2)
    world.run(1)
    world.control_plane.refuses = None
    world.run(0.9)
    assert len(world.control_plane.registrations) == 1
    world.run(0.2)
    assert len(world.control_plane.registrations) == 2


def test_a_new_data_folder_tells_what_runs_without_a_record(world: World) -> None:
    """The old one was lost: the first registration has the tasks its drivers found."""
    world.assign(an_assignment("a1"), an_assignment("a2", job_type="batch"))
    world.run(2)
    world.crash()
    (world.data / "agent.db").unlink()
    world.start_agent()
    world.settle()
    assert world.control_plane.registrations[0].orphans == ()
    assert world.control_plane.registrations[-1].orphans == ("a1", "a2")


def test_a_driver_that_does_not_say_what_runs_is_waited_for_only_a_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that hangs does not keep a node out."""
    monkeypatch.setattr(DriverWatch, "_recover", lambda _watch, _name: None)
    world.crash()
    (world.data / "agent.db").unlink()
    world.start_agent()
    world.run(2.9)
    assert len(world.control_plane.registrations) == 1
    world.run(0.2)
    assert len(world.control_plane.registrations) == 2


def test_what_the_answer_wants_started_and_stopped_is_done(world: World) -> None:
    plane = world.control_plane
    plane.answers.append(plane.answer(start=(an_assignment("a1"), an_assignment("a2"))))
    world.run(4)
    assert world.running() == [("a1", "server"), ("a2", "server")]

    plane.answers.append(plane.answer(stop=(a_stop(),)))
    world.run(4)
    assert world.running() == [("a2", "server")]
    assert world.told("a1").reason == "not needed"


def test_holdings_are_sent_at_once_when_asked_for_and_not_over_and_over(world: World) -> None:
    world.assign(an_assignment())
    world.run(3)
    plane = world.control_plane
    before = len(plane.beats)
    plane.answers += [plane.answer(send_holdings=True), plane.answer(send_holdings=True)]
    world.run(3)

    asked, sent, *_ = plane.beats[before:]
    assert asked.holdings is None
    assert sent.holdings is not None
    assert holdings_digest(sent.holdings) == sent.holdings_digest
    assert len(plane.beats) - before <= 3


def test_what_has_ended_is_in_no_digest(world: World) -> None:
    world.assign(an_assignment("a1"), an_assignment("a2"))
    world.run(2)
    world.stop("a1")
    world.run(2)

    assert [key.id for key in world.agent.reports.sheet().keys] == ["a2"]
    assert [held.id for held in world.agent.reports.holdings()] == ["a1", "a2"]


@pytest.mark.parametrize(
    "change",
    [{"adopting": True}, {"epoch": 2}, {"index": 4}, {"epoch": 0}],
    ids=["adopting", "another epoch", "a lower index", "a lower epoch"],
)
def test_no_stop_is_obeyed_of_a_control_plane_that_may_know_too_little(
    world: World, change: dict[str, int]
) -> None:
    plane = world.control_plane
    plane.index = 5
    world.assign(an_assignment())
    world.run(4)
    plane.answers.append(plane.answer(stop=(a_stop(),), **change))
    world.run(4)

    assert world.running() == [("a1", "server")]
    assert world.held().desired_status == "run"


def test_an_older_copy_of_the_store_is_not_obeyed_at_all(world: World) -> None:
    world.control_plane.epoch = 0
    world.control_plane.answers.append(world.control_plane.answer(start=(an_assignment(),)))
    world.run(10)

    assert world.running() == []
    assert "epoch 0" in world.agent.heartbeat.trouble


def test_another_epoch_hears_of_everything_and_is_obeyed_from_then_on(world: World) -> None:
    plane = world.control_plane
    world.assign(an_assignment("a1"))
    world.run(4)
    plane.epoch, plane.index = 2, 1
    world.run(4)
    assert [held.id for held in plane.registrations[-1].allocations] == ["a1"]

    plane.answers.append(plane.answer(stop=(a_stop(),)))
    world.run(4)
    assert world.running() == []


def test_a_stop_of_what_it_never_held_is_told_as_ended(world: World) -> None:
    plane = world.control_plane
    plane.answers.append(plane.answer(stop=(a_stop("never"),)))
    world.run(4)
    assert world.told("never").client_status == "complete"

    plane.answers.append(plane.answer(forget=(AllocationId("never"),)))
    world.run(4)
    assert world.agent.runner._tombstones == {}


def test_an_end_that_was_not_heard_is_told_again_when_its_start_is_ordered(world: World) -> None:
    world.assign(an_assignment())
    world.run(2)
    world.stop("a1")
    world.run(2)
    world.control_plane.updates.clear()
    world.assign(an_assignment())
    world.run(1)

    assert world.told().client_status == "complete"
    assert len(world.machine.started) == 1
