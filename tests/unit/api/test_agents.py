"""What agents post, and what each refusal of the membership becomes on the wire."""

from collections.abc import Callable
from typing import Any

import pytest

from metastore.errors import NameTaken, StoreUnavailable, UnknownNode
from tests.unit.api.world import CLUSTER_TOKEN, World, detail
from trueup.models.codec import from_json, to_json
from trueup.models.ids import NodeId
from trueup.models.node import NodeResources
from trueup.models.units import Bytes, Millicores
from trueup.models.wire import HeartbeatRequest, HeartbeatResponse, RegisterRequest, RegisterResponse

REGISTER = RegisterRequest(
    node_id=NodeId("n1"),
    name="node-1",
    resources=NodeResources(cpu_millicores=Millicores(4000), memory_bytes=Bytes(2**30)),
)
BEAT = HeartbeatRequest(node_id=NodeId("n1"), incarnation=1, sequence=1, holdings_digest="")


class Members:
    """Notes what it is asked and answers, or refuses, the same to all."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.refusal = refusal

    def register(
        self, request: RegisterRequest, *, joined: bool, secret: str | None, peer: str
    ) -> RegisterResponse:
        self._note(request=request, joined=joined, secret=secret, peer=peer)
        return RegisterResponse(
            node_secret="own", cluster_id="c1", epoch=3, index=7, heartbeat_seconds=2, deadline_seconds=10
        )

    def heartbeat(self, request: HeartbeatRequest, *, secret: str) -> HeartbeatResponse:
        self._note(request=request, secret=secret)
        return HeartbeatResponse(epoch=3, index=7, heartbeat_seconds=2, deadline_seconds=10)

    def _note(self, **asked: Any) -> None:
        self.asked.append(asked)
        if self.refusal is not None:
            raise self.refusal


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_node_joins_with_the_cluster_token(make_world: Callable[..., World]) -> None:
    """The token says that it may join; the answer hands it a secret of its own."""
    members = Members()
    world = make_world(membership=members)
    answer = world.client.post("/register", data=to_json(REGISTER), headers=bearer(CLUSTER_TOKEN))
    assert answer.status_code == 200
    assert from_json(answer.data, RegisterResponse).node_secret == "own"
    assert members.asked == [{"request": REGISTER, "joined": True, "secret": None, "peer": "127.0.0.1"}]


def test_a_node_registers_again_with_its_own_secret(make_world: Callable[..., World]) -> None:
    """What is not the cluster token may be the node's secret: the membership knows."""
    members = Members()
    world = make_world(membership=members)
    answer = world.client.post("/register", data=to_json(REGISTER), headers=bearer("own"))
    assert answer.status_code == 200
    assert (members.asked[0]["joined"], members.asked[0]["secret"]) == (False, "own")


def test_a_beat_is_handed_over_with_its_secret(make_world: Callable[..., World]) -> None:
    """The secret travels in the header alone."""
    members = Members()
    world = make_world(membership=members)
    answer = world.client.post("/heartbeat", data=to_json(BEAT), headers=bearer("own"))
    assert from_json(answer.data, HeartbeatResponse).index == 7
    assert members.asked == [{"request": BEAT, "secret": "own"}]


@pytest.mark.parametrize("path", ["/register", "/heartbeat"])
@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (UnknownNode("no node has this secret; join again"), 401),
        (StoreUnavailable("disk full"), 503),
    ],
)
def test_a_refusal_has_its_status(
    make_world: Callable[..., World], path: str, refusal: Exception, status: int
) -> None:
    """An unknown secret is 401, so that the agent rejoins; a store that cannot be written is 503, so that it waits."""
    world = make_world(membership=Members(refusal))
    body = to_json(REGISTER if path == "/register" else BEAT)
    answer = world.client.post(path, data=body, headers=bearer("own"))
    assert answer.status_code == status
    assert str(refusal) in detail(answer)
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_a_second_claimant_of_a_name_is_refused(make_world: Callable[..., World]) -> None:
    """A living node has that name: 409 says so."""
    world = make_world(membership=Members(NameTaken("node-1 is taken by a living node")))
    answer = world.client.post("/register", data=to_json(REGISTER), headers=bearer(CLUSTER_TOKEN))
    assert (answer.status_code, detail(answer)) == (409, "node-1 is taken by a living node")
    assert "Retry-After" not in answer.headers


def test_who_may_take_a_name_over_soon_is_told_when(make_world: Callable[..., World]) -> None:
    """In whole seconds, and not too early."""
    world = make_world(membership=Members(NameTaken("it may be you", again_seconds=5.2)))
    answer = world.client.post("/register", data=to_json(REGISTER), headers=bearer(CLUSTER_TOKEN))
    assert (answer.status_code, answer.headers["Retry-After"]) == (409, "6")


@pytest.mark.parametrize("path", ["/register", "/heartbeat"])
def test_without_a_token_nobody_is_asked(make_world: Callable[..., World], path: str) -> None:
    """No header, no answer; Basic is for people."""
    members = Members()
    world = make_world(membership=members)
    for headers in ({}, {"Authorization": "Basic OnNlY3JldA=="}, bearer("")):
        assert world.client.post(path, data=b"{}", headers=headers).status_code == 401
    assert members.asked == []


@pytest.mark.parametrize("body", [b"", b"[]", b'{"node_id": 3}', b"\xff", b'{"node_id": "n1"'])
def test_a_body_that_is_none_is_named(make_world: Callable[..., World], body: bytes) -> None:
    """What cannot be read is 400, and says what is wrong with it."""
    world = make_world(membership=Members())
    answer = world.client.post("/heartbeat", data=body, headers=bearer("own"))
    assert answer.status_code == 400
    assert "HeartbeatRequest" in detail(answer)


def test_fields_of_a_later_release_are_ignored(make_world: Callable[..., World]) -> None:
    """One minor version apart, server and agents work together."""
    world = make_world(membership=Members())
    body = to_json(BEAT)[:-1] + b', "mood": "fine"}'
    assert world.client.post("/heartbeat", data=body, headers=bearer("own")).status_code == 200
