"""Lists: pages, cursors, filters."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from api.paging import Cursor, page_of
from tests.builders import a_job, a_node, an_allocation
from tests.unit.api.world import World, an_event, detail


def pages(world: World, path: str, limit: int) -> list[Any]:
    """All items of a list, a page at a time."""
    found: list[Any] = []
    after = ""
    while True:
        page = world.get(f"{path}{'&' if '?' in path else '?'}limit={limit}{after}")
        assert len(page["items"]) <= limit
        found += page["items"]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_every_item_once(world: World, limit: int) -> None:
    """Pages of any size hold every item once, in order."""
    world.put(*(a_job(f"job-{number}") for number in range(5)))
    assert [job["name"] for job in pages(world, "/jobs", limit)] == [f"job-{number}" for number in range(5)]


def test_items_come_and_go_between_pages(world: World) -> None:
    """What was there all the while is neither skipped nor repeated when its neighbours change."""
    world.put(a_job("b"), a_job("d"), a_job("f"))
    first = world.get("/jobs?limit=2")
    world.put(a_job("a"), a_job("c"), a_job("e"))
    second = world.get(f"/jobs?limit=2&after={first['next']}")
    assert [job["name"] for job in first["items"] + second["items"]] == ["b", "d", "e", "f"]


def test_history_pages_both_ways(world: World) -> None:
    """History is read from the oldest or from the newest, every entry once."""
    for number in range(5):
        world.put(an_event(f"event {number}"))
    oldest_first = [event["message"] for event in pages(world, "/events", 2)]
    assert oldest_first == [f"event {number}" for number in range(5)]
    assert [event["message"] for event in pages(world, "/events?reverse=true", 2)] == oldest_first[::-1]


@pytest.mark.parametrize("path", ["/jobs", "/events", "/allocations"])
def test_cursor_of_another_epoch(world: World, path: str) -> None:
    """A cursor that another epoch gave out is gone."""
    text = Cursor(epoch=world.store.state.epoch + 1).next(("web",))
    assert world.client.get(f"{path}?after={text}").status_code == 410


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "%00",
        base64.urlsafe_b64encode(b"[1]").decode(),
        base64.urlsafe_b64encode(b'{"a":1}').decode(),
    ],
)
def test_cursor_that_is_none(world: World, text: str) -> None:
    """What is no cursor is refused as such."""
    answer = world.client.get(f"/jobs?after={text}")
    assert (answer.status_code, "next" in detail(answer)) == (400, True)


def test_cursor_of_another_list(world: World) -> None:
    """A cursor of one list is refused by another."""
    world.put(a_job("a"), a_job("b"), an_event(), an_event())
    of_events = world.get("/events?limit=1")["next"]
    of_jobs = world.get("/jobs?limit=1")["next"]
    assert world.client.get(f"/jobs?after={of_events}").status_code == 400
    assert world.client.get(f"/events?after={of_jobs}").status_code == 400


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "1e3", "٣", "9" * 5000])
def test_limit_out_of_bounds(world: World, limit: str) -> None:
    """A limit that is none, or too high, is refused with the bounds."""
    assert world.client.get(f"/jobs?limit={limit}").status_code == 400


def test_filters_of_jobs(world: World) -> None:
    """Jobs are found by type and by status."""
    world.put(a_job("web"), a_job("report", type="batch"), an_allocation(a_job("web")), a_node())
    assert names(world, "/jobs?type=batch") == ["report"]
    assert names(world, "/jobs?status=running") == ["web"]
    assert names(world, "/jobs?revision=r1") == ["report", "web"]
    assert names(world, "/jobs?revision=r2") == []


def test_filters_of_allocations(world: World) -> None:
    """Allocations are found by job, node (name or id), status and revision."""
    web, db, one, two = a_job("web"), a_job("db"), a_node("one"), a_node("two")
    world.put(
        web,
        db,
        one,
        two,
        an_allocation(web, one),
        an_allocation(web, two, index=1, client_status="failed"),
        an_allocation(db, two),
    )
    assert names(world, "/allocations?job=web") == ["web.app[0]", "web.app[1]"]
    assert names(world, "/allocations?node=two") == ["db.app[0]", "web.app[1]"]
    assert names(world, "/allocations?node=id-two&job=db") == ["db.app[0]"]
    assert names(world, "/allocations?status=failed") == ["web.app[1]"]
    assert names(world, "/jobs/web/allocations?node=one") == ["web.app[0]"]


def test_filters_of_events(world: World) -> None:
    """Events are found by job, node, type and revision."""
    world.put(
        an_event("a", job="web", type="Placed"), an_event("b", node="node-1"), an_event("c", revision="r1")
    )
    assert [event["message"] for event in world.get("/events?job=web")["items"]] == ["a"]
    assert [event["message"] for event in world.get("/events?type=Placed")["items"]] == ["a"]
    assert [event["message"] for event in world.get("/events?node=node-1")["items"]] == ["b"]
    assert [event["message"] for event in world.get("/events?revision=r1")["items"]] == ["c"]


@pytest.mark.parametrize(
    "path", ["/jobs?status=runing", "/jobs?type=deamon", "/nodes?status=up", "/revisions?status=x"]
)
def test_filter_with_an_unknown_word(world: World, path: str) -> None:
    """A filter that could never match is refused with the words there are, not answered with nothing."""
    answer = world.client.get(path)
    assert answer.status_code == 400
    assert "one of" in detail(answer)


def test_items_in_any_order() -> None:
    """A page is made of items in whatever order they come."""
    found = page_of(
        range(1000, 0, -1),
        key=lambda one: (one,),
        cursor=Cursor(epoch=1, key=(10,)),
        limit=3,
        show=lambda one: one,
    )
    assert found.items == (11, 12, 13)


def names(world: World, path: str) -> list[str]:
    return [item["name"] for item in world.get(path)["items"]]


def test_unknown_parameter(make_world: Callable[..., World]) -> None:
    """A parameter that a later release has is ignored, so that releases work together."""
    assert make_world().client.get("/jobs?depth=3").status_code == 200
