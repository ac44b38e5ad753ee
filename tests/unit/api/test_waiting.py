"""Blocking reads: they end with news, with time, with the server, and are capped."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.builders import a_job
from tests.unit.api.world import World, until


class Asking(threading.Thread):
    """A request in a thread of its own."""

    def __init__(self, world: World, path: str) -> None:
        super().__init__()
        self.world = world
        self.path = path
        self.answer: Any = None
        self.start()

    def run(self) -> None:
        self.answer = self.world.app.test_client().get(self.path)

    def result(self) -> Any:
        self.join(5)
        assert self.answer is not None
        return self.answer


def parked(world: World, count: int = 1) -> bool:
    """Whether so many requests wait."""
    return until(lambda: waiting(world) == count)


def waiting(world: World) -> int:
    text = world.client.get("/metrics").text
    return int(
        float(next(line.split()[1] for line in text.splitlines() if line.startswith("trueup_watchers ")))
    )


def test_news_ends_the_wait(world: World) -> None:
    """A blocking read answers once something newer is there, and shows it."""
    asking = Asking(world, f"/jobs?index={world.index}&wait=60s")
    assert parked(world)
    index = world.put(a_job("web"))
    answer = asking.result()
    assert answer.headers["X-Index"] == str(index)
    assert [job["name"] for job in answer.json["items"]] == ["web"]


def test_older_index_does_not_wait(world: World) -> None:
    """With an index that is behind, the answer comes at once."""
    world.put(a_job("web"))
    began = time.monotonic()
    assert world.get("/status?index=0&wait=60s")["index"] == world.index
    assert time.monotonic() - began < 1


def test_time_ends_the_wait(world: World) -> None:
    """When the wait is over, the answer is what it is, with the same index."""
    answer = world.client.get(f"/jobs?index={world.index}&wait=50ms")
    assert (answer.status_code, answer.headers["X-Index"]) == (200, str(world.index))


def test_server_stops(world: World) -> None:
    """A server that stops wakes what waits."""
    asking = Asking(world, f"/jobs?index={world.index}&wait=60s")
    assert parked(world)
    world.stopping.set()
    world.store.wake_all()
    assert asking.result().status_code == 200


def test_client_hangs_up(world: World) -> None:
    """A client that hung up holds no place."""
    gone = threading.Event()

    def ask() -> None:
        world.app.test_client().get(
            f"/jobs?index={world.index}&wait=60s", environ_overrides={"trueup.peer_gone": gone.is_set}
        )

    thread = threading.Thread(target=ask)
    thread.start()
    assert parked(world)
    gone.set()
    thread.join(5)
    assert parked(world, 0)


def test_cap(make_world: Callable[..., World]) -> None:
    """Beyond the cap, waiting is refused with `Retry-After`; what does not wait still answers."""
    world = make_world(watch_cap=1)
    asking = Asking(world, f"/jobs?index={world.index}&wait=60s")
    assert parked(world)
    refused = world.client.get(f"/jobs?index={world.index}&wait=60s")
    assert (refused.status_code, refused.content_type) == (503, "application/problem+json")
    assert int(refused.headers["Retry-After"]) > 0
    assert world.client.get("/events", headers={"Accept": "text/event-stream"}).status_code == 503
    assert world.client.get("/jobs").status_code == 200
    world.put(a_job("web"))
    asking.result()
    assert parked(world, 0)


def test_index_of_another_epoch(world: World) -> None:
    """An index ahead of the store was given out by another one: gone."""
    assert world.client.get(f"/jobs?index={world.index + 1}").status_code == 410


@pytest.mark.parametrize(
    "query", ["index=x", "index=-1", "index=1.5", "index=0&wait=never", "index=0&wait=-1s"]
)
def test_what_is_no_index_or_wait(world: World, query: str) -> None:
    """An index or wait that is none is refused."""
    assert world.client.get(f"/jobs?{query}").status_code == 400


def test_wait_in_bare_seconds(world: World) -> None:
    """A bare number of a wait counts seconds, as other tools write it."""
    assert world.client.get(f"/jobs?index={world.index}&wait=0").status_code == 200
