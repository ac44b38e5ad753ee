"""Containers from one commit beside Docker Swarm's `docker service` on the same engine: starts, update, removal.

Both sides run the same program with an init, the same image and a limit of memory, and are counted from the command
of the user, `git commit` or `docker service`, to what the engine itself then says of the containers.
"""

import itertools
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.engines import BenchEngine, bench_engine, swarm
from tests.bench.measure import Work, figure, in_turns, sample, timed, title
from tests.docker_engine import IMAGE
from tests.e2e.cluster import Up
from tests.unit.sources_io.repository import Repo

pytestmark = pytest.mark.docker

STARTED, UPDATED, REMOVED = 50, 20, 100
ROUNDS = 3
BRIDGE_LIMIT, HOST_LIMIT, UPDATE_LIMIT, REMOVE_LIMIT = 0.45, 0.25, 0.6, 0.6
MEMORY = "16MiB"
_JOB = """\
kind: Job
name: {name}
update: {{min_healthy_time: 0s, max_parallel: {parallel}}}
groups:
  - count: {count}
    tasks:
      - driver: docker
        config: {{image: "{image}", args: {command}, network_mode: {network}}}
        resources: {{cpu: 0.001, memory: {memory}}}
        kill_timeout: 1s
"""
_ALL_AT_ONCE = 0


class Ours:
    """`trueup up` on the engine, following a repository; each job is a service of the other side."""

    def __init__(self, folder: Path, engine: BenchEngine) -> None:
        self._engine = engine
        self._repo = Repo(folder / "repo")
        # A revision without any of the jobs before it would be held.
        self._repo.commit(
            {
                "stays.yaml": "kind: Job\nname: stays\ngroups: [{count: 0, tasks: [{config: {command: [sleep]}}]}]\n"
            }
        )
        policy = folder / "agent.yaml"
        policy.write_text("drivers: {docker: {network_modes: [bridge, host]}}\n")
        git = ("--git", str(self._repo.path), "--config", str(policy))
        self.up = Up(folder, *git, "--cpu", "64", "--memory", "64GiB")
        self.up.start()

    def put(self, name: str, command: list[str], count: int, network: str, *, parallel: int) -> None:
        text = _JOB.format(
            name=name,
            command=command,
            count=count,
            network=network,
            parallel=parallel,
            image=IMAGE,
            memory=MEMORY,
        )
        self._repo.commit({f"{name}.yaml": text})
        self._engine.until_running(f"trueup.job={name}", count, command=command[-1])

    def remove(self, name: str) -> None:
        self._repo.commit({f"{name}.yaml": None})
        self._engine.until_none(f"trueup.job={name}")


class Swarm:
    """The services of the engine, a swarm of one node."""

    def __init__(self, engine: BenchEngine) -> None:
        self._engine = engine

    def put(self, name: str, command: list[str], count: int, network: str) -> None:
        chosen = ("--network", "host") if network == "host" else ()
        options = ("--detach", "--quiet", "--no-resolve-image", "--init", "--stop-grace-period", "1s")
        limits = ("--limit-memory", str(16 * 1024**2))
        given = ("--name", name, "--replicas", str(count), *chosen, IMAGE, *command)
        self._engine.command("service", "create", *options, *limits, *given)
        self._engine.until_running(_service(name), count, command=command[-1])

    def update(self, name: str, command: list[str], count: int, *, parallel: int) -> None:
        options = (
            "--detach",
            "--quiet",
            "--no-resolve-image",
            "--update-delay",
            "0s",
            "--update-monitor",
            "0s",
        )
        given = ("--update-parallelism", str(parallel), "--args", " ".join(command), name)
        self._engine.command("service", "update", *options, *given)
        self._engine.until_running(_service(name), count, command=command[-1])

    def remove(self, name: str) -> None:
        self._engine.command("service", "rm", name)
        self._engine.until_none(_service(name))


@pytest.fixture(scope="module")
def engine() -> Iterator[BenchEngine]:
    with bench_engine() as made, swarm(made):
        yield made


@pytest.fixture
def ours(tmp_path: Path, engine: BenchEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ours]:
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    made = Ours(tmp_path, engine)
    try:
        yield made
    finally:
        made.up.end()


@pytest.fixture
def theirs(engine: BenchEngine) -> Swarm:
    return Swarm(engine)


@pytest.mark.parametrize(("network", "limit"), [("bridge", BRIDGE_LIMIT), ("host", HOST_LIMIT)])
def test_starts(ours: Ours, theirs: Swarm, network: str, limit: float) -> None:
    title(f"{STARTED} containers running, network {network}, beside `docker service create`")
    names = _names()

    def created(put: Callable[[str], None], remove: Callable[[str], None]) -> Work:
        def work() -> float:
            name = next(names)
            seconds = timed(lambda: put(name))
            remove(name)
            return seconds

        return work

    sleep = ["sleep", "3600"]
    _compare(
        created(lambda name: theirs.put(name, sleep, STARTED, network), theirs.remove),
        created(lambda name: ours.put(name, sleep, STARTED, network, parallel=_ALL_AT_ONCE), ours.remove),
        limit,
    )


def test_update(ours: Ours, theirs: Swarm) -> None:
    title(f"A rolling update of {UPDATED} by 5, beside `docker service update`")
    releases = itertools.count(3601)
    ours.put("web", ["sleep", "3600"], UPDATED, "bridge", parallel=5)
    theirs.put("web", ["sleep", "3600"], UPDATED, "bridge")

    def next_command() -> list[str]:
        return ["sleep", str(next(releases))]

    _compare(
        lambda: timed(lambda: theirs.update("web", next_command(), UPDATED, parallel=5)),
        lambda: timed(lambda: ours.put("web", next_command(), UPDATED, "bridge", parallel=5)),
        UPDATE_LIMIT,
        rounds=3,
    )
    theirs.remove("web")


def test_removal(ours: Ours, theirs: Swarm) -> None:
    """Of tasks that ignore SIGTERM, so that both have to wait for the second of grace, and to kill."""
    title(f"Removal of {REMOVED} that ignore SIGTERM, a grace of 1 s, beside `docker service rm`")
    names = _names()
    stubborn = ["sh", "-c", "trap : TERM; while :; do sleep 3600; done"]

    def removed(put: Callable[[str], None], remove: Callable[[str], None]) -> Work:
        def work() -> float:
            name = next(names)
            put(name)
            return timed(lambda: remove(name))

        return work

    _compare(
        removed(lambda name: theirs.put(name, stubborn, REMOVED, "host"), theirs.remove),
        removed(lambda name: ours.put(name, stubborn, REMOVED, "host", parallel=_ALL_AT_ONCE), ours.remove),
        REMOVE_LIMIT,
    )


def _compare(theirs: Work, ours: Work, limit: float, *, rounds: int = ROUNDS) -> None:
    reference, measured = in_turns(rounds, theirs, ours)
    sample("docker service", reference)
    sample("trueup", measured)
    figure("times docker service", statistics.median(measured) / statistics.median(reference), limit, "x")


def _service(name: str) -> str:
    return f"com.docker.swarm.service.name={name}"


def _names() -> Iterator[str]:
    return (f"many-{number}" for number in itertools.count())
