"""An engine for benchmarks, and what they ask of it: how many containers of a kind run, and the end of all.

It is asked in the same way for both sides, and never by what is measured.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import docker
import docker.errors
import psutil

from tests.docker_engine import Engine, EngineError
from tests.e2e.cluster import eventually
from tests.require import unavailable

_CALL_SECONDS = 120
_PATIENCE_SECONDS = 240.0
_GATEWAY_BRIDGE = "docker_gwbridge"


class BenchEngine:
    """A running engine; *api* is for the benchmark's own questions."""

    def __init__(self, host: str, api: docker.APIClient) -> None:
        self.host = host
        self.api = api

    def until_running(self, label: str, count: int, *, command: str = "") -> None:
        """Waits until exactly *count* containers with that label run, all of them *command* if it is given."""

        def settled() -> bool:
            found = self.api.containers(filters={"label": label, "status": "running"})
            return len(found) == count and all(command in one["Command"] for one in found)

        eventually(settled, _PATIENCE_SECONDS, lambda: f"{label}: no {count} containers run")

    def until_none(self, label: str) -> None:
        """Waits until there is no container with that label, in whatever state."""

        def gone() -> bool:
            return not self.api.containers(all=True, quiet=True, filters={"label": label})

        eventually(gone, _PATIENCE_SECONDS, lambda: f"{label}: containers stay")

    def remove_all(self, label: str) -> None:
        """Ends and removes every container with that label at once."""
        found = self.api.containers(all=True, quiet=True, filters={"label": label})

        def remove(container_id: str) -> None:
            with suppress(docker.errors.NotFound):
                self.api.remove_container(container_id, force=True)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(remove, [one["Id"] for one in found]))

    def command(self, *arguments: str) -> str:
        """The `docker` command against this engine, as an operator gives it; its standard output."""
        given = ["docker", "--host", self.host, *arguments]
        done = subprocess.run(given, check=True, capture_output=True, text=True, timeout=_CALL_SECONDS)
        return done.stdout


@contextmanager
def bench_engine() -> Iterator[BenchEngine]:
    """An engine of one's own, with the tests' image and nothing that runs; removed at the end."""
    # A test's own folder may leave no room for the name of a socket, which has 107 bytes at most.
    engine = Engine(Path(tempfile.mkdtemp(prefix="tu-", dir="/tmp")))
    try:
        try:
            engine.start()
        except EngineError as error:
            unavailable("docker", str(error))
        with closing(docker.APIClient(base_url=engine.host, version="auto", timeout=_CALL_SECONDS)) as api:
            yield BenchEngine(engine.host, api)
    finally:
        engine.destroy()


@contextmanager
def swarm(engine: BenchEngine) -> Iterator[None]:
    """Makes the engine a swarm of one node; at the end it leaves, and the bridge that a swarm makes goes as well."""
    had_bridge = _GATEWAY_BRIDGE in psutil.net_if_addrs()
    engine.command("swarm", "init", "--advertise-addr", "127.0.0.1")
    try:
        yield
    finally:
        engine.command("swarm", "leave", "--force")
        if not had_bridge:
            eventually(lambda: _without_bridge(engine), 30, lambda: f"{_GATEWAY_BRIDGE} stays")


def _without_bridge(engine: BenchEngine) -> bool:
    with suppress(docker.errors.APIError):
        engine.api.remove_network(_GATEWAY_BRIDGE)
    subprocess.run(["ip", "link", "delete", _GATEWAY_BRIDGE], check=False, capture_output=True)
    return _GATEWAY_BRIDGE not in psutil.net_if_addrs()
