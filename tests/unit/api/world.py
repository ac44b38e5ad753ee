"""A real store with an app over it, and a client: what the tests of the API begin with."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.doors import ApiDeps, LogsUnavailable, Membership
from metastore.store import SqlStore
from tests.builders import NOON, CountingIds, a_record, a_version
from trueup.models.allocation import Allocation
from trueup.models.evaluation import Event
from trueup.models.ids import AllocationId
from trueup.models.job import Job
from trueup.models.node import Node
from trueup.serving import HttpServer

CLUSTER_TOKEN = "cluster-token"


class NoonClock:
    """It is always noon; what is waited for is real."""

    def now(self) -> datetime:
        return NOON

    def monotonic(self) -> float:
        return time.monotonic()


class NoLogs:
    """No node gives output."""

    @contextmanager
    def logs(
        self, node: Node, allocation_id: AllocationId, params: Mapping[str, str]
    ) -> Iterator[Iterator[bytes]]:
        if node.name:
            raise LogsUnavailable(502, f"node {node.name} is away")
        yield iter(())


class World:
    """A store, the app over it, and a client of it."""

    def __init__(self, folder: Path, **deps: Any) -> None:
        clock = NoonClock()
        self.store = SqlStore.open(folder, clock, CountingIds())
        self.stopping = threading.Event()
        self.deps = ApiDeps(
            **{
                "store": self.store,
                "membership": None,
                "logs": NoLogs(),
                "clock": clock,
                "cluster_token": lambda: CLUSTER_TOKEN,
                "stopping": self.stopping,
                **deps,
            }
        )
        self._serve()

    def use(self, membership: Membership) -> None:
        """Puts a membership over the store behind the app."""
        self.deps = dataclasses.replace(self.deps, membership=membership)
        self._serve()

    def _serve(self) -> None:
        self.app = create_app(self.deps)
        self.client: FlaskClient = self.app.test_client()

    @property
    def index(self) -> int:
        """The store's index."""
        return int(self.store.state.index)

    def put(self, *things: Job | Node | Allocation | Event) -> int:
        """Writes things as one change, jobs as planned in version 1; its index."""
        with self.store.transaction() as transaction:
            for thing in things:
                if isinstance(thing, Job):
                    transaction.put_version(a_version(thing))
                    transaction.put_job(a_record(thing))
                elif isinstance(thing, Node):
                    transaction.put_node(thing)
                elif isinstance(thing, Allocation):
                    transaction.put_allocation(thing)
                else:
                    transaction.put_event(thing)
        return self.index

    def get(self, path: str, **options: Any) -> Any:
        """The JSON of an answer that must be a success."""
        answer = self.client.get(path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[HttpServer]:
        """The app behind a real socket."""
        server = HttpServer(
            self.app,
            ("127.0.0.1", port),
            stopping=self.stopping,
            on_stop=self.store.wake_all,
            watch_cap=self.deps.watch_cap,
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()

    def close(self) -> None:
        """Closes the store."""
        self.stopping.set()
        self.store.close()


def an_event(message: str = "something happened", **fields: Any) -> Event:
    """An event at noon."""
    return Event(at=NOON, type=fields.pop("type", "Registered"), message=message, **fields)


def detail(answer: TestResponse) -> str:
    """The `detail` of a problem."""
    assert answer.content_type == "application/problem+json"
    found: dict[str, str] = answer.get_json()
    return found["detail"]


def until(condition: Callable[[], object], seconds: float = 5) -> bool:
    """Whether *condition* comes to hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
