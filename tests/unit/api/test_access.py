"""Who may read: the read token, and the Host check where there is none."""

import base64
from collections.abc import Callable

import pytest

from api.app import ROUTES
from tests.unit.api.world import World

TOKEN = "lesé-token"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def as_header(text: str) -> str:
    """Header text as WSGI hands it over: bytes as latin-1."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize(
    "header",
    [as_header(f"Bearer {TOKEN}"), as_header(f"bearer {TOKEN}"), basic("", TOKEN), basic("anyone", TOKEN)],
)
def test_read_token(make_world: Callable[..., World], header: str) -> None:
    """The token opens as Bearer, and as the password of Basic."""
    world = make_world(read_token=lambda: TOKEN)
    assert world.client.get("/jobs", headers={"Authorization": header}).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer lesé-token",
        "Basic",
        "Basic !!!",
        basic("", "wrong"),
        basic(TOKEN, ""),
        "Basic " + base64.b64encode(TOKEN.encode()).decode(),
        "Digest x",
        as_header(TOKEN),
    ],
)
def test_without_the_token(make_world: Callable[..., World], header: str) -> None:
    """Anything else is 401 with how to send it, and asks a browser for it."""
    world = make_world(read_token=lambda: TOKEN)
    answer = world.client.get("/jobs", headers={"Authorization": header})
    assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_every_read_needs_it(make_world: Callable[..., World]) -> None:
    """No read is open without the token, not even which jobs there are to delete."""
    world = make_world(read_token=lambda: TOKEN)
    paths = [route.path for route in ROUTES if route.audience == "readers" and route.method == "GET"]
    assert {world.client.get(path).status_code for path in paths} == {401}
    assert {world.client.delete(path).status_code for path in paths} == {401}


def test_probes_are_open(make_world: Callable[..., World]) -> None:
    """Whether it lives is told to everyone."""
    world = make_world(read_token=lambda: TOKEN)
    assert [world.client.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_a_changed_token_counts_at_once(make_world: Callable[..., World]) -> None:
    """The token is asked for on every request."""
    tokens = ["first"]
    world = make_world(read_token=lambda: tokens[-1])
    assert world.client.get("/jobs", headers={"Authorization": "Bearer first"}).status_code == 200
    tokens.append("second")
    assert world.client.get("/jobs", headers={"Authorization": "Bearer first"}).status_code == 401


def test_an_empty_token_opens_nothing(make_world: Callable[..., World]) -> None:
    """An empty token file lets nobody in."""
    world = make_world(read_token=lambda: "")
    assert world.client.get("/jobs", headers={"Authorization": basic("", "")}).status_code == 401


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:7430",
        "127.0.0.1:7430",
        "[::1]:7430",
        "[::1]",
        "10.1.2.3",
        "ops.example.org",
        "ops.example.org.:80",
    ],
)
def test_hosts_that_pass(make_world: Callable[..., World], host: str) -> None:
    """Addresses, localhost and allowed names are ours."""
    world = make_world(allowed_hosts=("ops.example.org",))
    assert world.client.get("/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7430",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "[evil]",
        "127.0.0.1@evil",
    ],
)
def test_hosts_that_do_not(world: World, host: str) -> None:
    """A name that is not ours is refused: another site's page may have made it resolve to us."""
    assert world.client.get("/jobs", headers={"Host": host}).status_code == 421
    assert world.client.get("/", headers={"Host": host}).status_code == 421


def test_host_does_not_matter_with_a_token(make_world: Callable[..., World]) -> None:
    """Who has the token may call us what they like."""
    world = make_world(read_token=lambda: "token")
    headers = {"Host": "anything.example", "Authorization": "Bearer token"}
    assert world.client.get("/jobs", headers=headers).status_code == 200
