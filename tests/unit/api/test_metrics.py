"""Metrics: gauges of the state at scrape, counters of requests by route."""

from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.builders import a_job, a_node, an_allocation
from tests.unit.api.world import World
from trueup.models.ids import NodeId
from trueup.models.node import NodeUse
from trueup.models.units import Bytes, Millicores


def samples(world: World) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels."""
    text = world.client.get("/metrics").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(world: World, name: str, **labels: Any) -> float:
    return samples(world)[name, frozenset(labels.items())]


def test_gauges_of_the_state(world: World) -> None:
    """Jobs, allocations and nodes are counted by word; groups and nodes tell their amounts."""
    web, node = a_job("web", count=2, cpu=0.5), a_node(cpu=4, memory="8GiB")
    world.put(web, node, an_allocation(web, node))
    assert value(world, "trueup_jobs", health="Progressing") == 1
    assert value(world, "trueup_jobs", health="Degraded") == 0
    assert value(world, "trueup_allocations", client_status="running") == 1
    assert value(world, "trueup_nodes", status="ready") == 1
    assert value(world, "trueup_group_allocations", job="web", group="app", state="desired") == 2
    assert value(world, "trueup_node_cpu_cores", node="node-1", state="allocated") == 0.5
    assert value(world, "trueup_node_memory_bytes", node="node-1", state="total") == 8 * 1024**3
    assert value(world, "trueup_index") == world.index
    assert value(world, "trueup_source_up") == 1


def test_what_is_in_use(make_world: Callable[..., World]) -> None:
    """Of nodes that say so: the newest numbers, whatever the index."""
    used = {
        NodeId("id-node-1"): NodeUse(
            cpu_millicores=Millicores(250),
            memory_bytes=Bytes(5),
            disk_bytes=Bytes(9),
            disk_free_bytes=Bytes(3),
        )
    }
    world = make_world(node_use=used.get)
    world.put(a_node(), a_node("node-2"))
    assert value(world, "trueup_node_cpu_cores", node="node-1", state="used") == 0.25
    assert value(world, "trueup_node_memory_bytes", node="node-1", state="used") == 5
    assert value(world, "trueup_node_disk_bytes", node="node-1", state="total") == 9
    assert value(world, "trueup_node_disk_bytes", node="node-1", state="free") == 3
    assert not [key for key in samples(world) if key[1] >= {("node", "node-2"), ("state", "used")}]


def test_requests_are_counted_by_route(world: World) -> None:
    """Requests are counted under their route, whatever the client wrote."""
    for name in ("a", "b", "c"):
        world.client.get(f"/jobs/{name}")
    world.client.open("/jobs", method="BREW")
    assert value(world, "trueup_http_requests_total", method="GET", route="/jobs/<name>", status="404") == 3
    assert value(world, "trueup_http_requests_total", method="other", route="none", status="405") == 1


def test_waiting_is_not_counted_as_slow(world: World) -> None:
    """The time of a request that waited for news says nothing of the server."""
    world.client.get(f"/jobs?index={world.index}&wait=10ms")
    assert (
        "trueup_http_request_seconds_count",
        frozenset({("method", "GET"), ("route", "/jobs")}),
    ) not in samples(world)


def test_hostile_label(world: World) -> None:
    """A node's name cannot forge a metric."""
    world.put(a_node('x"} 1\ntrueup_forged 1\n#', id="n"))
    assert not [name for name, _ in samples(world) if name == "trueup_forged"]
