"""A control plane with canned answers on a real socket, and a way to run commands against it."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask, Response, request

from cli.main import cli
from trueup.serving import HttpServer

Answer = Any


@dataclass
class FakeControlPlane:
    """Answers by path: a list as the items of a list, a Response as it is, anything else as JSON.

    `set` changes answers and raises the index, which wakes requests that wait with `?index=`.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[dict[str, str]] = field(default_factory=list)
    index: int = 1
    url: str = ""
    page_size: int = 1000
    stopping: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def set(self, answers: Mapping[str, Answer]) -> None:
        with self.changed:
            self.answers.update(answers)
            self.index += 1
            self.changed.notify_all()

    def app(self) -> Flask:
        app = Flask("fake")

        @app.get("/")
        @app.get("/<path:path>")
        def answer(path: str = "") -> Response:
            self.requests.append(request.args.to_dict())
            return self._answer("/" + path)

        return app

    def _answer(self, path: str) -> Response:
        self._block()
        with self.changed:
            held, index = self.answers.get(path), self.index
        if callable(held) and not isinstance(held, Response):
            held = held(request)
        if isinstance(held, Response):
            return held
        if held is None:
            return problem(404, f"there is no {path}")
        body = self._page(held) if isinstance(held, list) else held
        response = Response(json.dumps(body), content_type="application/json")
        response.headers["X-Index"] = str(index)
        return response

    def _block(self) -> None:
        newer_than = request.args.get("index", type=int)
        if newer_than is None or request.headers.get("Accept") == "text/event-stream":
            return
        with self.changed:
            self.changed.wait_for(lambda: self.index > newer_than or self.stopping.is_set(), timeout=5)

    def _page(self, items: list[Any]) -> dict[str, Any]:
        begin = int(request.args.get("after") or 0)
        end = begin + min(self.page_size, int(request.args.get("limit") or 100))
        return {"items": items[begin:end], "next": str(end) if end < len(items) else None}


def problem(status: int, detail: str) -> Response:
    """A problem document."""
    body = json.dumps({"type": "about:blank", "title": "Problem", "status": status, "detail": detail})
    return Response(body, status=status, content_type="application/problem+json")


@pytest.fixture
def control_plane() -> Iterator[FakeControlPlane]:
    fake = FakeControlPlane()

    def wake() -> None:
        with fake.changed:
            fake.changed.notify_all()

    server = HttpServer(fake.app(), ("127.0.0.1", 0), stopping=fake.stopping, on_stop=wake)
    server.start()
    fake.url = server.url
    yield fake
    server.stop()


Run = Callable[..., Result]


@pytest.fixture
def run(control_plane: FakeControlPlane) -> Run:
    """Runs a command against the control plane."""

    def call(*arguments: str, **options: Any) -> Result:
        environment = {"TRUEUP_ADDRESS": control_plane.url, "NO_COLOR": None, **options.pop("env", {})}
        return CliRunner(env=environment).invoke(cli, list(arguments), **options)

    return call


@pytest.fixture
def run_alone(tmp_path: Path) -> Run:
    """Runs a command that needs no control plane, in an empty folder."""

    def call(*arguments: str, **options: Any) -> Result:
        return CliRunner(env=options.pop("env", {})).invoke(cli, list(arguments), **options)

    return call
