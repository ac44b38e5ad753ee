"""Starts of the docker driver beside the bare engine API, with the same network, the same threads and the same form.

At least 0.85 of its rate, on a bridge of the engine and on the host's network. The bare side makes two calls for each
container, create and start, as its own program would; the driver's also has labels, a folder that is mounted, limits,
and its output followed into files.
"""

import statistics
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.drivers.docker_driver import DockerDriver
from agent.drivers.docker_engine import EngineAddress
from agent.drivers.docker_owner import CLUSTER, Owner
from agent.drivers.docker_policy import DockerPolicy
from tests.bench.engines import BenchEngine, bench_engine
from tests.bench.measure import at_least, in_turns, note, sample, timed, title
from tests.docker_engine import IMAGE
from tests.unit.agent_drivers.docker_world import a_launch

pytestmark = pytest.mark.docker

COUNT = 16
THREADS = 8
ROUNDS = 7
LIMIT = 0.85
COMMAND = ("sleep", "3600")
BARE = "trueup.bench"


@pytest.fixture(scope="module")
def engine() -> Iterator[BenchEngine]:
    with bench_engine() as made:
        yield made


@pytest.mark.parametrize("network", ["bridge", "host"])
def test_starts_of_containers(tmp_path: Path, engine: BenchEngine, network: str) -> None:
    title(f"{COUNT} containers by {THREADS} threads, network {network}, beside the bare engine API")
    cluster = uuid.uuid4().hex
    driver = DockerDriver(
        EngineAddress(host=engine.host, chosen=True),
        lambda _: None,
        owner=Owner(cluster=cluster, node="bench"),
        policy=DockerPolicy(network_modes=("bridge", "host")),
    )

    def by_driver() -> None:
        launch = a_launch(tmp_path, *COMMAND, allocation_id=uuid.uuid4().hex, network_mode=network)
        driver.start(launch)

    def bare() -> None:
        request = {
            "Image": IMAGE,
            "Cmd": list(COMMAND),
            "Labels": {BARE: cluster},
            "HostConfig": {"NetworkMode": network, "Init": True},
        }
        made = engine.api.create_container_from_config(request)  # type: ignore[no-untyped-call]
        engine.api.start(made["Id"])

    with ThreadPoolExecutor(THREADS) as threads:

        def measured(start: Callable[[], None], label: str) -> Callable[[], float]:
            def work() -> float:
                seconds = timed(
                    lambda: [done.result() for done in [threads.submit(start) for _ in range(COUNT)]]
                )
                engine.until_running(label, COUNT)
                engine.remove_all(label)
                return seconds

            return work

        reference, ours = in_turns(
            ROUNDS, measured(bare, f"{BARE}={cluster}"), measured(by_driver, f"{CLUSTER}={cluster}")
        )
    driver.close()
    sample("create and start by the bare API", reference)
    sample("docker driver", ours)
    rates = [COUNT / statistics.median(seconds) for seconds in (reference, ours)]
    note(f"{rates[1]:.1f} starts/s, bare API {rates[0]:.1f}")
    at_least("of the rate of the bare API", rates[1] / rates[0], LIMIT, "x")
