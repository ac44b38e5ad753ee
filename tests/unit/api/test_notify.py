"""`POST /notify`: who may nudge, and what comes of it."""

import hashlib
import hmac
import http.client
import json
import threading
from collections.abc import Callable

import pytest

from api.nudges import AT_ONCE, Paced
from tests.unit.api.world import World
from trueup.signing import sign

SECRET = "correct horse battery staple".replace(" ", "-")
BODY = json.dumps({"ref": "refs/heads/main", "pusher": "Ann"}).encode()
MakeWorld = Callable[..., World]


def hex_of(body: bytes = BODY, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class Nudges:
    """Counts the looks that were asked for."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def nudges() -> Nudges:
    return Nudges()


@pytest.fixture
def world(make_world: MakeWorld, nudges: Nudges) -> World:
    return make_world(notify_secret=lambda: SECRET, nudge=nudges, read_token=lambda: "only-for-readers")


SIGNED = {
    "github": {"X-Hub-Signature-256": f"sha256={hex_of()}"},
    "gitea": {"X-Gitea-Signature": hex_of(), "X-Gitea-Event": "push"},
    "forgejo": {"X-Forgejo-Signature": hex_of()},
    "gitlab": {"X-Gitlab-Token": SECRET},
    "gitlab, signed": {
        "Webhook-Id": "f5e5f430",
        "Webhook-Timestamp": "1795000000",
        "Webhook-Signature": f"v1,AAAA {sign(SECRET, 'f5e5f430', '1795000000', BODY)}",
    },
}


@pytest.mark.parametrize("forge", SIGNED)
def test_a_forge_nudges(world: World, nudges: Nudges, forge: str) -> None:
    """What each forge sends is taken, without any token, and the source looks."""
    answer = world.client.post("/notify", data=BODY, headers=SIGNED[forge])
    assert (answer.status_code, answer.data) == (202, b"")
    assert nudges.count == 1
    assert world.index == 0


def test_what_other_programs_sign() -> None:
    """The examples of GitHub's documentation and of Standard Webhooks are signed as written there."""
    assert hex_of(b"Hello, World!", "It's a Secret to Everybody") == (
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    )
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": f"sha256={hex_of(secret='another')}"},
        {"X-Hub-Signature-256": f"sha256={hex_of(b'another')}"},
        {"X-Hub-Signature-256": "sha256="},
        {"X-Hub-Signature-256": "sha256=ü"},
        {"X-Hub-Signature": hex_of()},
        {"X-Gitlab-Token": ""},
        {"X-Gitlab-Token": "ü"},
        {"X-Gitlab-Token": hex_of()},
        {"Webhook-Signature": sign(SECRET, "1", "2", BODY), "Webhook-Id": "1", "Webhook-Timestamp": "3"},
        {"Authorization": f"Bearer {SECRET}"},
    ],
)
def test_what_is_not_signed(world: World, nudges: Nudges, headers: dict[str, str]) -> None:
    """Without a signature of this secret over this body nothing happens, and the answer says what is wanted."""
    answer = world.client.post("/notify", data=BODY, headers=headers)
    assert (answer.status_code, nudges.count) == (401, 0)
    assert SECRET not in answer.text


def test_a_burst_is_two_looks(world: World, nudges: Nudges) -> None:
    """Of many nudges the first makes the source look, and all the others together once more."""
    done = threading.Event()

    def look() -> None:
        nudges()
        if nudges.count == 2:
            done.set()

    paced = Paced(look, seconds=0.1)
    for _ in range(50):
        paced()
    assert nudges.count == 1
    assert done.wait(10)
    paced()
    assert nudges.count == 2


def test_a_body_beyond_the_limit(world: World, nudges: Nudges) -> None:
    """A body larger than the server reads is refused while it comes, however it is announced."""
    with world.serving() as server:
        for headers in ({"Content-Length": str(10**9)}, {"Transfer-Encoding": "chunked"}):
            connection = http.client.HTTPConnection(*server.address, timeout=30)
            connection.putrequest("POST", "/notify")
            for name, value in {**SIGNED["github"], **headers}.items():
                connection.putheader(name, value)
            connection.endheaders()
            try:
                if "Transfer-Encoding" in headers:
                    piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
                    for _ in range(40):
                        connection.send(piece)
                status = connection.getresponse().status
            except (BrokenPipeError, ConnectionResetError):
                status = 413
            assert status == 413
            connection.close()
    assert nudges.count == 0


def test_slow_senders_take_few_threads(world: World, nudges: Nudges) -> None:
    """Whoever sends bodies that do not end holds so many threads and no more; the others are told to come again."""
    with world.serving() as server:
        slow = [http.client.HTTPConnection(*server.address, timeout=30) for _ in range(AT_ONCE)]
        for connection in slow:
            connection.putrequest("POST", "/notify")
            connection.putheader("Content-Length", "10")
            connection.endheaders()
            connection.send(b"x")
        statuses = set[int]()
        for _ in range(200):
            connection = http.client.HTTPConnection(*server.address, timeout=30)
            connection.request("POST", "/notify", BODY, SIGNED["github"])
            statuses.add(connection.getresponse().status)
            connection.close()
            if 503 in statuses:
                break
        assert 503 in statuses
        for connection in slow:
            connection.close()


def test_get(world: World) -> None:
    """Who looks with a browser is told what it is."""
    answer = world.client.get("/notify", headers={"Authorization": "Bearer only-for-readers"})
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert "forge" in json.loads(answer.text)["detail"]
