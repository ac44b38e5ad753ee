"""Services: the addresses that are healthy now."""

from typing import Any

import pytest

from tests.builders import a_group, a_job, a_node, an_allocation
from tests.unit.api.world import World
from trueup.models.job import Job, Port, Service


def a_shop() -> Job:
    service = Service(
        name="shop", port="http", labels={"host": "shop.example.org", "scrape-path": "/metrics"}
    )
    return a_job("web", groups=(a_group(count=3, ports=(Port(name="http"),), services=(service,)),))


def addresses(world: World) -> list[str]:
    return [one["address"] for one in world.get("/services/shop")["addresses"]]


def test_healthy_addresses(world: World) -> None:
    """An allocation that runs and is healthy is found under its node's host and its port."""
    shop, node = a_shop(), a_node(endpoint="http://10.0.0.5:7431")
    world.put(shop, node, an_allocation(shop, node, ports={"http": 20001}))
    assert addresses(world) == ["10.0.0.5:20001"]
    assert [service["name"] for service in world.get("/services")["items"]] == ["shop"]


@pytest.mark.parametrize(
    "fields",
    [
        {"healthy": False},
        {"healthy": None},
        {"client_status": "pending"},
        {"client_status": "unknown"},
        {"desired_status": "stop"},
    ],
)
def test_others_are_left_out(world: World, fields: dict[str, Any]) -> None:
    """What is not healthy, not running or leaving is not found; the service is there all the same."""
    shop, node = a_shop(), a_node()
    world.put(shop, node, an_allocation(shop, node, ports={"http": 20001}, **fields))
    assert addresses(world) == []


def test_prometheus(world: World) -> None:
    """The form of Prometheus's HTTP service discovery, with labels whose names it accepts."""
    shop, node = a_shop(), a_node(endpoint="http://[fd00::5]:7431")
    world.put(shop, node, an_allocation(shop, node, ports={"http": 20001}))
    found = world.get("/services?format=prometheus")
    assert found == world.get("/services/shop?format=prometheus")
    assert found[0]["targets"] == ["[fd00::5]:20001"]
    assert found[0]["labels"]["__meta_trueup_label_scrape_path"] == "/metrics"
    assert found[0]["labels"]["__meta_trueup_allocation"] == "web.app[0]"
