"""The stream of events: one message a change, ids are indexes, no gap and no repeat."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from tests.unit.api.world import World, an_event, until
from trueup.serving import HttpServer

STREAM = {"Accept": "text/event-stream"}


@contextmanager
def streaming(
    server: HttpServer, path: str = "/events", **headers: str
) -> Iterator[Iterator[dict[str, Any]]]:
    """Messages of a stream, each with its id."""
    with requests.get(server.url + path, headers={**STREAM, **headers}, stream=True, timeout=5) as answer:
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield messages(answer.iter_lines(decode_unicode=True))


def messages(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield {"id": int(fields["id"]), **json.loads(fields["data"])}
            fields = {}


def texts(message: dict[str, Any]) -> list[str]:
    return [event["message"] for event in message["items"]]


def opened(world: World) -> bool:
    return until(lambda: "trueup_watchers 1.0" in world.client.get("/metrics").text)


def test_what_happens_is_streamed(world: World) -> None:
    """A stream begins now: what happens from then on arrives, one message a change, its id the index."""
    world.put(an_event("before"))
    with world.serving() as server, streaming(server) as stream:
        assert opened(world)
        index = world.put(an_event("one"), an_event("two"))
        message = next(stream)
        assert (message["id"], message["index"], texts(message)) == (index, index, ["one", "two"])
        world.put(an_event("three"))
        assert texts(next(stream)) == ["three"]


def test_coming_back(world: World) -> None:
    """With the id of the last message, exactly what came since arrives."""
    world.put(an_event("one"))
    seen = world.put(an_event("two"), an_event("still two"))
    world.put(an_event("three"))
    world.put(an_event("four"))
    with world.serving() as server, streaming(server, **{"Last-Event-ID": str(seen)}) as stream:
        assert [texts(next(stream)), texts(next(stream))] == [["three"], ["four"]]


def test_from_an_index(world: World) -> None:
    """`index` begins a stream in the past, for clients that cannot set the header."""
    world.put(an_event("one"))
    with world.serving() as server, streaming(server, "/events?index=0") as stream:
        assert texts(next(stream)) == ["one"]


def test_every_break_resumes(world: World) -> None:
    """Wherever the connection breaks, the messages before and after it are all there once."""
    for number in range(6):
        world.put(*(an_event(f"{number}.{part}") for part in range(1 + number % 2)))
    with world.serving() as server, streaming(server, "/events?index=0") as stream:
        whole = [next(stream) for _ in range(6)]
    for cut, before in enumerate(whole[:-1]):
        world.stopping.clear()
        with world.serving() as server, streaming(server, **{"Last-Event-ID": str(before["id"])}) as stream:
            assert [next(stream) for _ in whole[cut + 1 :]] == whole[cut + 1 :]


def test_filters(world: World) -> None:
    """A stream of one job has that job's events alone."""
    world.put(an_event("of db", job="db"))
    world.put(an_event("of web", job="web"), an_event("of db", job="db"))
    with world.serving() as server, streaming(server, "/events?index=0&job=web") as stream:
        assert texts(next(stream)) == ["of web"]


def test_id_of_another_epoch(world: World) -> None:
    """An id ahead of the store is gone."""
    assert world.client.get("/events", headers={**STREAM, "Last-Event-ID": "999"}).status_code == 410


@pytest.mark.parametrize("written", ["x", "-1", "1.0", "٣", "9" * 40])
def test_what_is_no_id(world: World, written: str) -> None:
    """What is no id is refused."""
    answer = world.client.get(
        "/events", headers={**STREAM, "Last-Event-ID": written.encode().decode("latin-1")}
    )
    assert answer.status_code == 400


def test_client_leaves(make_world: Callable[..., World]) -> None:
    """A client that leaves gives its place back."""
    world = make_world(watch_cap=1)
    with world.serving() as server:
        for _ in range(3):
            peer = socket.create_connection(server.address, timeout=5)
            peer.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
            assert peer.recv(100).startswith(b"HTTP/1.1 200")
            peer.close()
            assert until(lambda: "trueup_watchers 0.0" in world.client.get("/metrics").text)


def test_server_stops(world: World) -> None:
    """A server that stops ends its streams in good form."""
    with world.serving() as server, streaming(server) as stream:
        assert opened(world)
        server.stop()
        assert list(stream) == []


def test_hostile_message(world: World) -> None:
    """A message with line breaks cannot forge a message of the stream."""
    hostile = "x\n\nid: 999\ndata: {}\n\n"
    world.put(an_event(hostile))
    with world.serving() as server, streaming(server, "/events?index=0") as stream:
        assert texts(next(stream)) == [hostile]
