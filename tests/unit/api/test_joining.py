"""A node's first minute with the real membership behind the API: it joins, beats, is forgotten, and joins again."""

from collections.abc import Callable
from typing import TypeVar

from werkzeug.test import TestResponse

from metastore.membership import Membership
from tests.builders import CountingIds
from tests.unit.api.world import CLUSTER_TOKEN, NoonClock, World
from trueup.models.codec import Model, from_json, to_json
from trueup.models.ids import NodeId
from trueup.models.node import NodeResources
from trueup.models.units import Bytes, Millicores
from trueup.models.wire import (
    HeartbeatRequest,
    HeartbeatResponse,
    RegisterRequest,
    RegisterResponse,
    holdings_digest,
)

M = TypeVar("M", bound=Model)


def a_world(make_world: Callable[..., World]) -> World:
    world = make_world()
    world.use(Membership(world.store, NoonClock(), CountingIds()))
    return world


def post(world: World, path: str, body: Model, token: str) -> TestResponse:
    return world.client.post(path, data=to_json(body), headers={"Authorization": f"Bearer {token}"})


def said(answer: TestResponse, kind: type[M]) -> M:
    assert answer.status_code == 200, answer.text
    return from_json(answer.data, kind)


def a_registration(node_id: str = "n1", name: str = "node-1") -> RegisterRequest:
    return RegisterRequest(
        node_id=NodeId(node_id),
        name=name,
        incarnation=1,
        resources=NodeResources(cpu_millicores=Millicores(4000), memory_bytes=Bytes(2**30)),
    )


def a_beat(sequence: int = 1) -> HeartbeatRequest:
    return HeartbeatRequest(
        node_id=NodeId("n1"), incarnation=1, sequence=sequence, holdings_digest=holdings_digest(())
    )


def test_a_node_joins_beats_and_is_shown(make_world: Callable[..., World]) -> None:
    """The cluster token lets it in; from then on it uses the secret of its own that the answer gave it."""
    world = a_world(make_world)
    joined = said(post(world, "/register", a_registration(), CLUSTER_TOKEN), RegisterResponse)
    assert joined.node_secret != CLUSTER_TOKEN
    beat = said(post(world, "/heartbeat", a_beat(), joined.node_secret), HeartbeatResponse)
    assert (beat.epoch, beat.send_holdings) == (joined.epoch, False)
    assert [node["name"] for node in world.get("/nodes")["items"]] == ["node-1"]


def test_a_beat_without_news_moves_no_index(make_world: Callable[..., World]) -> None:
    """Hundreds of nodes beat for days, and nothing is written."""
    world = a_world(make_world)
    joined = said(post(world, "/register", a_registration(), CLUSTER_TOKEN), RegisterResponse)
    said(post(world, "/heartbeat", a_beat(1), joined.node_secret), HeartbeatResponse)
    index = world.index
    said(post(world, "/heartbeat", a_beat(2), joined.node_secret), HeartbeatResponse)
    assert world.index == index


def test_no_node_can_act_for_another(make_world: Callable[..., World]) -> None:
    """The cluster token beats for nobody, and one node's secret not for another."""
    world = a_world(make_world)
    said(post(world, "/register", a_registration("n1", "node-1"), CLUSTER_TOKEN), RegisterResponse)
    other = said(post(world, "/register", a_registration("n2", "node-2"), CLUSTER_TOKEN), RegisterResponse)
    assert post(world, "/heartbeat", a_beat(), CLUSTER_TOKEN).status_code == 401
    assert post(world, "/heartbeat", a_beat(), other.node_secret).status_code == 401


def test_a_living_nodes_name_is_taken(make_world: Callable[..., World]) -> None:
    """A second machine of that name is told so."""
    world = a_world(make_world)
    said(post(world, "/register", a_registration("n1", "node-1"), CLUSTER_TOKEN), RegisterResponse)
    assert post(world, "/register", a_registration("n2", "node-1"), CLUSTER_TOKEN).status_code == 409
