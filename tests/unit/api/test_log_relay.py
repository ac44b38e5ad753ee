"""Output that an agent brings by itself: orders, pieces, and who is given up when."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
import requests

from api.agent_logs import AgentLogs
from api.doors import LogsUnavailable, NoSuchOrder
from api.log_relay import LISTEN_CAP, SILENT_SECONDS, WINDOW_BYTES, LogRelay
from api.reach import AWAY_SECONDS, Reach
from tests.builders import NOON, a_job, a_node, an_allocation
from tests.unit.api.world import World, detail, until
from trueup.models.ids import AllocationId
from trueup.models.log_order import LogOrder
from trueup.models.node import Node
from trueup.models.wire import HeartbeatRequest, HeartbeatResponse

A1 = AllocationId("a1")
NODE = a_node(endpoint="http://127.0.0.1:1")
BEAT = HeartbeatRequest(node_id=NODE.id, incarnation=1, sequence=1, holdings_digest="", brings_logs=True)
ANSWER = HeartbeatResponse(epoch=1, index=1, heartbeat_seconds=3, deadline_seconds=10)


class AheadClock:
    """The real monotonic clock, put forward at will."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> datetime:
        return NOON

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class Relayed:
    """A relay over a clock, and readers of it on threads."""

    def __init__(self) -> None:
        self.clock = AheadClock()
        self.reach = Reach(self.clock)
        self.reach.note(NODE, reached=False)
        self.relay = LogRelay(lambda node_id: f"secret of {node_id}", self.reach, self.clock)
        self.secret = f"secret of {NODE.id}"
        self.pool = ThreadPoolExecutor(LISTEN_CAP + 8)

    def read(self, node: Node = NODE) -> "Future[list[bytes]]":
        """All the output, once it has ended."""

        def run() -> list[bytes]:
            with self.relay.output(node, A1, {"tail": "3"}) as pieces:
                return [piece for piece in pieces if piece]

        return self.pool.submit(run)

    def listen(self, node: Node = NODE) -> "Future[Any]":
        return self.pool.submit(self.relay.listen, node, f"secret of {node.id}", peer_gone=lambda: False)

    def order(self) -> LogOrder:
        """The order of the only reader, as a heartbeat's answer tells it."""
        found: list[LogOrder] = []

        def told() -> bool:
            found.extend(self.relay.answer(BEAT, ANSWER, NODE).logs)
            return bool(found)

        assert until(told)
        return found[0]

    def take(self, order: LogOrder, piece: bytes, *, at: int = 0, is_last: bool = False) -> tuple[int, int]:
        taken = self.relay.take(order.id, self.secret, piece, at=at, is_last=is_last)
        return taken.received, taken.room


@pytest.fixture
def relayed() -> Iterator[Relayed]:
    made = Relayed()
    yield made
    made.relay.close()
    made.pool.shutdown()


def test_an_order_comes_with_the_answer_to_a_beat_and_its_output_in_pieces(relayed: Relayed) -> None:
    reading = relayed.read()
    order = relayed.order()
    assert (order.allocation_id, order.parameters) == (A1, {"tail": "3"})
    assert len(order.id) >= 32
    assert relayed.take(order, b"one\n")[0] == 4
    relayed.take(order, b"two\n", at=4)
    relayed.take(order, b"", at=8, is_last=True)
    assert b"".join(reading.result(10)) == b"one\ntwo\n"
    with pytest.raises(NoSuchOrder):
        relayed.take(order, b"more", at=8)


def test_a_piece_that_comes_twice_or_overlaps_is_taken_once_and_a_gap_not_at_all(relayed: Relayed) -> None:
    reading = relayed.read()
    order = relayed.order()
    for _ in range(2):
        assert relayed.take(order, b"one\n")[0] == 4
    assert relayed.take(order, b"e\ntwo\n", at=2)[0] == 8
    with pytest.raises(ValueError, match="begins at 9"):
        relayed.take(order, b"gap", at=9)
    relayed.take(order, b"", at=8, is_last=True)
    assert b"".join(reading.result(10)) == b"one\ntwo\n"


def test_no_more_than_a_window_waits_for_a_slow_reader(relayed: Relayed) -> None:
    piece = b"x" * (WINDOW_BYTES // 2)
    with ThreadPoolExecutor(1) as agent:

        def bring() -> LogOrder:
            order = relayed.order()
            assert relayed.take(order, piece) == (len(piece), len(piece))
            assert relayed.take(order, piece + b"tail", at=len(piece)) == (WINDOW_BYTES, 0)
            assert relayed.take(order, b"tail", at=WINDOW_BYTES, is_last=True) == (WINDOW_BYTES, 0)
            return order

        brought = agent.submit(bring)
        with relayed.relay.output(NODE, A1, {}) as pieces:
            order = brought.result(10)
            assert next(pieces) == piece
            assert relayed.take(order, b"tail", at=WINDOW_BYTES, is_last=True)[0] == WINDOW_BYTES + 4
            assert b"".join(pieces) == piece + b"tail"


def test_an_order_is_told_again_until_it_was_begun(relayed: Relayed) -> None:
    relayed.read()
    order = relayed.order()
    assert relayed.relay.answer(BEAT, ANSWER, NODE).logs == ()
    relayed.clock.ahead += 1.1
    assert relayed.relay.answer(BEAT, ANSWER, NODE).logs == (order,)
    relayed.take(order, b"")
    relayed.clock.ahead += 1.1
    assert relayed.relay.answer(BEAT, ANSWER, NODE).logs == ()
    relayed.take(order, b"", is_last=True)


def test_what_the_agent_refuses_is_told_in_its_words(relayed: Relayed) -> None:
    reading = relayed.read()
    order = relayed.order()
    relayed.relay.refuse(order.id, relayed.secret, LogsUnavailable(404, "it has no task 'x'"))
    with pytest.raises(LogsUnavailable, match="no task") as refused:
        reading.result(10)
    assert refused.value.status == 404


def test_another_node_cannot_bring_it(relayed: Relayed) -> None:
    reading = relayed.read()
    order = relayed.order()
    with pytest.raises(NoSuchOrder):
        relayed.relay.take(order.id, "secret of other", b"forged", at=0, is_last=True)
    with pytest.raises(NoSuchOrder):
        relayed.relay.refuse(order.id, "secret of other", LogsUnavailable(404, "forged"))
    with pytest.raises(NoSuchOrder):
        relayed.relay.listen(NODE, "secret of other", peer_gone=lambda: False)
    other = a_node(id="other", name="other")
    assert (
        relayed.relay.answer(
            HeartbeatRequest(
                node_id=other.id, incarnation=1, sequence=1, holdings_digest="", brings_logs=True
            ),
            ANSWER,
            other,
        ).logs
        == ()
    )
    relayed.take(order, b"true\n", is_last=True)
    assert reading.result(10) == [b"true\n"]


def test_an_agent_that_does_not_begin_is_a_gateway_timeout(relayed: Relayed) -> None:
    relayed.relay.answer(BEAT, ANSWER, NODE)
    reading = relayed.read()
    relayed.order()
    relayed.clock.ahead += 60
    with pytest.raises(LogsUnavailable, match="has not begun") as given_up:
        reading.result(30)
    assert given_up.value.status == 504


def test_an_agent_that_falls_silent_is_no_end_of_the_output(relayed: Relayed) -> None:
    reading = relayed.read()
    order = relayed.order()
    relayed.take(order, b"one\n")
    relayed.clock.ahead += SILENT_SECONDS + 1
    with pytest.raises(LogsUnavailable, match="brings no more"):
        reading.result(10)


def test_a_listening_agent_hears_of_an_order_at_once(relayed: Relayed) -> None:
    assert relayed.relay.answer(BEAT, ANSWER, NODE).listen
    listening = relayed.listen()
    reading = relayed.read()
    answer = listening.result(10)
    assert answer.again
    relayed.take(answer.logs[0], b"one\n", is_last=True)
    assert reading.result(10) == [b"one\n"]


def test_a_nudge_comes_at_once_or_with_the_next_listening_but_not_after_a_beat(relayed: Relayed) -> None:
    listening = relayed.listen()
    assert until(lambda: relayed.relay.listening == 1)
    relayed.relay.nudge(NODE)
    assert listening.result(10).beat
    relayed.relay.nudge(NODE)
    assert relayed.listen().result(10).beat
    relayed.relay.nudge(NODE)
    relayed.relay.answer(BEAT, ANSWER, NODE)
    listening = relayed.listen()
    assert until(lambda: relayed.relay.listening == 1)
    relayed.relay.close()
    assert not listening.result(10).beat


def test_one_that_can_be_reached_does_not_listen(relayed: Relayed) -> None:
    relayed.reach.note(NODE, reached=True)
    assert relayed.relay.answer(BEAT, ANSWER, NODE) is ANSWER
    assert not relayed.listen().result(10).again
    without_endpoint = a_node(endpoint="")
    assert relayed.relay.answer(BEAT, ANSWER, without_endpoint).listen


def test_one_that_was_away_is_tried_again_after_a_while(relayed: Relayed) -> None:
    assert relayed.reach.is_away(NODE)
    assert not relayed.reach.is_away(a_node(endpoint="http://127.0.0.1:2"))
    relayed.clock.ahead += AWAY_SECONDS + 1
    assert not relayed.reach.is_away(NODE)
    # It listens on: only a try that succeeds shows that it can be reached.
    assert relayed.relay.answer(BEAT, ANSWER, NODE).listen
    relayed.reach.note(NODE, reached=False)
    relayed.clock.ahead += AWAY_SECONDS + 1
    assert relayed.reach.is_away(NODE)
    relayed.clock.ahead += AWAY_SECONDS
    assert not relayed.reach.is_away(NODE)


def test_a_newer_request_of_an_agent_takes_the_place_of_its_older_one(relayed: Relayed) -> None:
    second = relayed.listen()
    assert until(lambda: relayed.relay.listening == 1)
    third = relayed.listen()
    assert second.result(10).logs == ()
    assert not third.done()
    relayed.relay.close()
    assert not third.result(10).again


def test_who_listens_is_capped_and_half_the_places_are_for_those_that_are_asked(relayed: Relayed) -> None:
    crowd = [relayed.listen(a_node(id=f"n{number}", endpoint="")) for number in range(LISTEN_CAP // 2)]
    assert until(lambda: relayed.relay.listening == LISTEN_CAP // 2)
    assert not relayed.relay.answer(BEAT, ANSWER, NODE).listen
    assert not relayed.listen().result(10).again
    reading = relayed.read()
    relayed.order()
    relayed.clock.ahead += 1.1
    assert relayed.relay.answer(BEAT, ANSWER, NODE).listen
    relayed.relay.close()
    assert not any(one.result(10).again for one in crowd)
    with pytest.raises(LogsUnavailable):
        reading.result(10)


def test_an_agent_that_hung_up_gives_its_place_back(relayed: Relayed) -> None:
    gone = threading.Event()
    listening = relayed.pool.submit(relayed.relay.listen, NODE, relayed.secret, peer_gone=gone.is_set)
    assert until(lambda: relayed.relay.listening == 1)
    gone.set()
    listening.result(10)
    assert relayed.relay.listening == 0


def away(make_world: Callable[..., World], relayed: Relayed, node: Node = NODE) -> World:
    """A world of one allocation on a node that cannot be reached."""
    world = make_world(
        logs=AgentLogs(lambda _node_id: relayed.secret, reach=relayed.reach, relay=relayed.relay),
        brought_logs=relayed.relay,
    )
    web = a_job("web")
    world.put(web, node, an_allocation(web, node, id="a1"))
    return world


def test_an_agent_of_an_earlier_release_is_told_as_such(
    make_world: Callable[..., World], relayed: Relayed
) -> None:
    """It keeps working, and the reader learns at once why there is no output."""
    earlier = HeartbeatRequest(node_id=NODE.id, incarnation=1, sequence=1, holdings_digest="")
    assert relayed.relay.answer(earlier, ANSWER, NODE) is ANSWER
    answer = away(make_world, relayed).client.get("/allocations/a1/logs")
    assert answer.status_code == 502
    assert "of a release that brings no output" in detail(answer)


def test_a_node_that_is_down_is_not_waited_for(make_world: Callable[..., World], relayed: Relayed) -> None:
    down = a_node(endpoint="http://127.0.0.1:1", status="down")
    answer = away(make_world, relayed, down).client.get("/allocations/a1/logs")
    assert answer.status_code == 502
    assert "is down" in detail(answer)


def test_the_doors_over_http(make_world: Callable[..., World], relayed: Relayed) -> None:
    """What an agent does over the wire, and what it is refused."""
    world = away(make_world, relayed)
    bearer = {"Authorization": f"Bearer {relayed.secret}"}
    with world.serving() as server:
        reading = relayed.pool.submit(requests.get, f"{server.url}/allocations/a1/logs?tail=3", timeout=30)
        heard = requests.post(
            f"{server.url}/listen", json={"node_id": NODE.id}, headers=bearer, timeout=30
        ).json()
        (order,) = heard["logs"]
        assert order["parameters"] == {"tail": "3"}
        door = f"{server.url}/log-orders/{order['id']}"
        assert requests.post(door, data=b"x", timeout=5).status_code == 401
        assert (
            requests.post(door, data=b"x", headers={"Authorization": "Bearer no"}, timeout=5).status_code
            == 404
        )
        assert requests.post(f"{door}?at=7", data=b"x", headers=bearer, timeout=5).status_code == 400
        assert requests.post(f"{door}?at=x", data=b"x", headers=bearer, timeout=5).status_code == 400
        assert requests.post(door, data=b"x" * 2**20 + b"x", headers=bearer, timeout=5).status_code == 413
        assert requests.get(door, timeout=5).status_code == 405
        problem = {**bearer, "Content-Type": "application/problem+json"}
        assert requests.post(door, data=b"{", headers=problem, timeout=5).status_code == 400
        taken = requests.post(f"{door}?last=true", data=b"one\n", headers=bearer, timeout=5)
        assert taken.json()["received"] == 4
        answer = reading.result(30)
        assert (answer.status_code, answer.content) == (200, b"one\n")
        assert until(lambda: requests.post(door, data=b"", headers=bearer, timeout=5).status_code == 404)
        wrong = requests.post(f"{server.url}/listen", json={"node_id": "n9"}, headers=bearer, timeout=5)
        assert wrong.status_code == 401


def test_readers_of_what_is_brought_are_watchers(make_world: Callable[..., World], relayed: Relayed) -> None:
    """Beyond the cap they get 503 with Retry-After, whether they follow or not."""
    world = make_world(
        logs=AgentLogs(lambda _node_id: relayed.secret, reach=relayed.reach, relay=relayed.relay),
        brought_logs=relayed.relay,
        watch_cap=1,
    )
    web = a_job("web")
    world.put(web, NODE, an_allocation(web, NODE, id="a1"))
    reading = relayed.pool.submit(world.app.test_client().get, "/allocations/a1/logs")
    order = relayed.order()
    refused = world.client.get("/allocations/a1/logs")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    relayed.take(order, b"one\n", is_last=True)
    assert reading.result(10).data == b"one\n"
