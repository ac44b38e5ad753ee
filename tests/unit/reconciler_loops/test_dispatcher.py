"""Pushes: batched per node, in the newest form, and left alone where they do not arrive."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec
import pytest

from metastore.store import SqlStore
from reconciler.dispatcher import Dispatcher, SideBySide
from reconciler.doors import AgentUnreachable
from reconciler.loop import ReconcileLoop
from tests.builders import NOON, CountingIds, a_desired, a_job, a_node
from tests.unit.reconciler_loops.conftest import HandClock
from tests.unit.reconciler_loops.test_loop import applied, joined
from trueup.models.node import Node
from trueup.models.wire import Assignment, StopOrder


class Recorder:
    """The network: notes what arrives; nodes in `away` do not answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, list[str]]] = []
        self.away: set[str] = set()

    def start(self, node: Node, assignments: Sequence[Assignment]) -> None:
        self._note(node, "start", [one.allocation.name for one in assignments])

    def stop(self, node: Node, orders: Sequence[StopOrder]) -> None:
        self._note(node, "stop", [one.reason for one in orders])

    def _note(self, node: Node, kind: str, names: list[str]) -> None:
        if node.name in self.away:
            raise AgentUnreachable(f"{node.endpoint}: timed out")
        self.calls.append((node.name, kind, names))


@pytest.fixture
def network() -> Recorder:
    return Recorder()


@pytest.fixture
def dispatcher(store: SqlStore, network: Recorder, clock: HandClock) -> Dispatcher:
    return Dispatcher(store, network, clock)


def a_reachable(name: str) -> Node:
    return a_node(name, endpoint=f"http://{name}:7431")


@pytest.fixture
def placed(store: SqlStore, clock: HandClock) -> ReconcileLoop:
    joined(store, a_reachable("a"), a_reachable("b"))
    applied(store, a_desired(a_job(count=4)))
    loop = ReconcileLoop(store, clock, CountingIds())
    loop.step()
    return loop


def test_a_nodes_starts_go_in_one_call(
    placed: ReconcileLoop, dispatcher: Dispatcher, network: Recorder, store: SqlStore
) -> None:
    assert dispatcher.step() is None
    assert sorted(network.calls) == [
        ("a", "start", ["web.app[0]", "web.app[2]"]),
        ("b", "start", ["web.app[1]", "web.app[3]"]),
    ]
    assert not store.outbox()
    dispatcher.step()
    assert len(network.calls) == 2


def test_stops_go_with_their_reason_and_before_starts(
    placed: ReconcileLoop, dispatcher: Dispatcher, network: Recorder, store: SqlStore
) -> None:
    dispatcher.step()
    network.calls.clear()
    applied(store, a_desired(a_job(count=4, env={"V": "2"}, max_parallel=0), revision="r3"))
    placed.step()
    dispatcher.step()
    assert [kind for node, kind, _ in network.calls if node == "a"] == ["stop", "start"]
    assert network.calls[0][2] == ["updating", "updating"]


def test_a_start_that_is_no_longer_wanted_is_not_pushed(
    placed: ReconcileLoop, dispatcher: Dispatcher, network: Recorder, store: SqlStore
) -> None:
    applied(store, a_desired(a_job(count=0), revision="r3"))
    placed.step()
    dispatcher.step()
    assert {kind for _, kind, _ in network.calls} == {"stop"}


def test_a_node_that_does_not_answer_is_left_alone_for_a_while_and_holds_up_no_other(
    placed: ReconcileLoop, dispatcher: Dispatcher, network: Recorder, store: SqlStore, clock: HandClock
) -> None:
    network.away.add("a")
    assert dispatcher.step() == NOON + timedelta(seconds=0.25)
    assert [node for node, _, _ in network.calls] == ["b"]
    assert {entry.node_id for entry in store.outbox()} == {"id-a"}
    dispatcher.step()
    clock.move(seconds=0.25)
    assert dispatcher.step() == NOON + timedelta(seconds=0.75), "the pause doubles"
    network.away.clear()
    clock.move(seconds=0.5)
    assert dispatcher.step() is None
    assert not store.outbox()


def test_nothing_is_pushed_to_a_node_that_is_down(
    placed: ReconcileLoop, dispatcher: Dispatcher, network: Recorder, store: SqlStore
) -> None:
    joined(store, msgspec.structs.replace(a_reachable("a"), status="down"))
    dispatcher.step()
    assert [node for node, _, _ in network.calls] == ["b"]
    assert not store.outbox(), "its next heartbeat tells it all"


def test_nodes_are_called_side_by_side(
    placed: ReconcileLoop, store: SqlStore, network: Recorder, clock: HandClock
) -> None:
    run_all = SideBySide(most=2)
    Dispatcher(store, network, clock, run_all=run_all).step()
    run_all.close()
    assert {node for node, _, _ in network.calls} == {"a", "b"}
