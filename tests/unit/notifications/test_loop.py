"""Webhooks are told by a real store's changes, over real sockets."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.system import RandomIds, SystemClock
from cli.threads import LoopThreads
from metastore.store import SqlStore
from tests.builders import a_job, a_node, a_record, a_version, an_allocation
from tests.e2e.cluster import eventually
from tests.receiver import Receiver, receiving, taken
from trueup.models.job import SecretValue
from trueup.models.template import ClusterSettings, Notification
from trueup.models.units import Duration
from trueup.notifications.loop import NoticeLoop

SOON = Duration(milliseconds=200)
CANARY = "canary-of-a-secret-value"


class Server:
    """A store and the loop that tells of it, as a control plane has them."""

    def __init__(self, folder: Path, *hosts: str, secrets: dict[str, str] | None = None) -> None:
        held = secrets or {}

        def secret(name: str) -> str:
            if name not in held:
                raise LookupError(f"secret {name} is missing")
            return held[name]

        clock = SystemClock()
        self.store = SqlStore.open(folder, clock, RandomIds())
        self.threads = LoopThreads(clock)
        loop = NoticeLoop(
            self.store, clock, secret=secret, allowed_hosts=hosts, retry_first=timedelta(milliseconds=50)
        )
        loop.wake = self.threads.add("notifications", loop)
        self.threads.start()

    def tell(self, *urls: str | SecretValue, **fields: Any) -> None:
        fields = {"on": ("Degraded", "held", "Unknown"), "after": SOON, **fields}
        settings = ClusterSettings(notifications=tuple(Notification(url=url, **fields) for url in urls))
        with self.store.transaction() as tx:
            tx.put_settings(settings)

    def web(self, client_status: str, *, name: str = "web") -> None:
        """The one allocation of a job is so now."""
        job, node = a_job(name, env={"PASSWORD": CANARY}), a_node()
        with self.store.transaction() as tx:
            tx.put_node(node)
            tx.put_version(a_version(job))
            tx.put_job(a_record(job))
            tx.put_allocation(an_allocation(job, node, client_status=client_status))

    def events(self) -> list[str]:
        return [one.value.message for one in self.store.events(after=None, limit=100)]

    def told(self) -> list[tuple[str, str]]:
        return [(one.cause, one.subject) for one in self.store.state.told]

    def stop(self) -> None:
        self.threads.stop(10)
        self.store.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers of one data folder, one after the other."""
    made: list[Server] = []

    def make(*hosts: str, **options: Any) -> Server:
        if made:
            made[-1].stop()
        made.append(Server(tmp_path, *hosts, **options))
        return made[-1]

    yield make
    made[-1].stop()


def test_a_job_fails_and_recovers(start: Callable[..., Server]) -> None:
    """The beginning and the end are told once each, signed; no value of an environment is in them."""
    with receiving() as receiver:
        server = start(
            receiver.host, secrets={"hook-key": "whsec_" + base64.b64encode(b"k" * 24).decode() + "\n"}
        )
        server.tell(receiver.url, secret="hook-key")
        server.web("failed")
        (began,) = receiver.until(1)
        eventually(lambda: server.told() == [("Degraded", "web")])
        server.web("running")
        _, ended = receiver.until(2)
        eventually(lambda: server.told() == [])
    assert receiver.told == [("firing", "Degraded", "web"), ("resolved", "Degraded", "web")]
    assert began.document["id"] == ended.document["id"]
    assert began.headers["webhook-id"] != ended.headers["webhook-id"]
    assert CANARY not in f"{began.body!r}{ended.body!r}"
    for came in (began, ended):
        signed = f"{came.headers['webhook-id']}.{came.headers['webhook-timestamp']}.".encode() + came.body
        mac = base64.b64encode(hmac.new(b"k" * 24, signed, hashlib.sha256).digest()).decode()
        assert came.headers["webhook-signature"] == f"v1,{mac}"


def test_a_restart_repeats_nothing_and_forgets_no_end(start: Callable[..., Server]) -> None:
    """What was told before is not told again by the next server; the end is, though it came while none was there."""
    with receiving() as receiver:
        server = start(receiver.host)
        server.tell(receiver.url)
        server.web("failed")
        server.web("failed", name="db")
        receiver.until(2)
        eventually(lambda: len(server.told()) == 2)
        server.stop()
        server = start(receiver.host)
        server.web("running", name="db")
        receiver.until(3)
        server.web("failed", name="cache")
        receiver.until(4)
        eventually(lambda: sorted(server.told()) == [("Degraded", "cache"), ("Degraded", "web")])
    assert sorted(receiver.told[:2]) == [("firing", "Degraded", "db"), ("firing", "Degraded", "web")]
    assert receiver.told[2:] == [("resolved", "Degraded", "db"), ("firing", "Degraded", "cache")]


def test_a_receiver_that_fails_is_asked_again(start: Callable[..., Server]) -> None:
    """It is told once it takes it; its trouble is one event, which does not show the path of its address."""

    def sick(handler: BaseHTTPRequestHandler) -> None:
        if len(receiver.requests) < 4:
            handler.send_error(500)
        else:
            taken(handler)

    with receiving(sick) as receiver:
        server = start(receiver.host)
        server.tell(f"{receiver.url}/T000/secret-of-slack")
        server.web("failed")
        receiver.until(4)
        eventually(lambda: server.told() == [("Degraded", "web")])
    assert len({one.headers["webhook-id"] for one in receiver.requests}) == 1
    assert server.events() == [f"the webhook at {receiver.url} takes nothing: it answers 500"]


def test_one_that_is_not_taken_keeps_no_other(start: Callable[..., Server]) -> None:
    """A receiver that chokes on one notice still gets the others."""

    def picky(handler: BaseHTTPRequestHandler) -> None:
        if receiver.requests[-1].document["job"] == "web":
            handler.send_error(400)
        else:
            taken(handler)

    with receiving(picky) as receiver:
        server = start(receiver.host)
        server.web("failed")
        server.web("failed", name="db")
        server.web("failed", name="zoo")
        server.tell(receiver.url)
        eventually(lambda: sorted(server.told()) == [("Degraded", "db"), ("Degraded", "zoo")])


def test_a_receiver_that_hangs_holds_up_no_other(start: Callable[..., Server]) -> None:
    """While one does not answer, the other hears all, and the store takes writes."""

    def hang(_handler: BaseHTTPRequestHandler) -> None:
        hanging.ended.wait(60)

    with receiving(hang) as hanging, receiving() as receiver:
        server = start(hanging.host, receiver.host)
        server.tell(hanging.url, receiver.url)
        server.web("failed")
        receiver.until(1)
        hanging.until(1)
        server.web("running")
        receiver.until(2)
        assert len(hanging.requests) == 1
        hanging.ended.set()


@contextmanager
def two_receivers() -> Iterator[tuple[Receiver, Receiver]]:
    with receiving() as one, receiving() as other:
        yield one, other


def test_a_new_address_hears_what_is_wrong_now(start: Callable[..., Server]) -> None:
    """Another address is another receiver: it is told all that is wrong, and the old one nothing more."""
    with two_receivers() as (old, new):
        server = start(old.host, new.host)
        server.tell(old.url)
        server.web("failed")
        old.until(1)
        eventually(lambda: server.told() == [("Degraded", "web")])
        server.tell(new.url)
        new.until(1)
        server.web("running")
        new.until(2)
        server.tell()
        eventually(lambda: server.store.state.told == ())
    assert (len(old.requests), len(new.requests)) == (1, 2)


def test_an_address_that_is_a_secret(start: Callable[..., Server]) -> None:
    """Its value is in no event; where it is missing, the event says so."""
    with receiving() as receiver:
        server = start(receiver.host, secrets={"address": f"{receiver.url}/private\n"})
        server.tell(SecretValue(secret="address"), SecretValue(secret="nowhere"))
        server.web("failed")
        (came,) = receiver.until(1)
        assert came.path == "/private"
        eventually(
            lambda: (
                server.events() == ["the webhook of secret nowhere takes nothing: secret nowhere is missing"]
            )
        )


def test_a_host_that_was_not_allowed(start: Callable[..., Server]) -> None:
    """A document alone sends nothing anywhere: the operator says which hosts."""
    with receiving() as receiver:
        server = start("hooks.example.org")
        server.tell(receiver.url)
        server.web("failed")
        eventually(lambda: any("--notification-host" in one for one in server.events()))
    assert receiver.requests == []


def test_without_webhooks_it_does_nothing(start: Callable[..., Server]) -> None:
    """No look, no write."""
    server = start()
    server.web("failed")
    before = server.store.state.index
    server.threads.wake("notifications")
    with server.store.transaction() as tx:
        tx.put_settings(msgspec.structs.replace(tx.state.settings, placement="spread"))
    assert server.store.state.index == before + 1
    assert server.told() == []
