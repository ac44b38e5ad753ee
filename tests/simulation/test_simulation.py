"""Everything fails at once, from a seed; afterwards the cluster is what the newest commit wants, and nothing else.

`pytest tests/simulation --seed 17` replays one seed, `--seeds 20000` tries more of them.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.service_files import service_files
from metastore.store import SqlStore
from tests.builders import CountingIds
from tests.simulation.world import Simulation
from tests.unit.agent.world import VirtualClock
from trueup.models.addresses import offers_of
from trueup.models.job import Job
from trueup.models.state import ClusterState


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, made once."""
    folder = tmp_path_factory.mktemp("pristine") / "server"
    SqlStore.open(folder, VirtualClock(), CountingIds(first=10**7)).close()
    return folder


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder in memory where there is one: what a simulation writes need not survive this machine."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def test_a_seed(seed: int, disk: Path, pristine: Path) -> None:
    simulation = Simulation(seed, disk, pristine)
    try:
        bad_times(simulation)
        comes_to_rest(simulation)
    finally:
        simulation.close()


def bad_times(simulation: Simulation) -> None:
    """A minute and a half of commits, crashes, reboots, cut cables, lost and late messages, and an absent remote."""
    random, network = simulation.random, simulation.network
    network.trouble = random.choice([0.0, 0.1, 0.4])
    simulation.crashes.chance = random.choice([0.0, 0.01, 0.05])

    for _ in range(random.randint(3, 8)):
        simulation.run(random.uniform(1, 30))
        for chance, fault in FAULTS:
            if random.random() < chance:
                fault(simulation)


def server_dies_or_starts(simulation: Simulation) -> None:
    if simulation.server is None:
        simulation.start_server()
    elif simulation.random.random() < 0.3:
        simulation.kill_server()


def agent_dies_or_starts(simulation: Simulation) -> None:
    node = simulation.random.choice(simulation.nodes)
    if node.agent is None:
        simulation.start_agent(node)
    elif simulation.random.random() < 0.3:
        simulation.kill_agent(node)


def cable(simulation: Simulation) -> None:
    """Pulled or put back."""
    simulation.network.cut ^= {simulation.random.choice(simulation.nodes).name}


def remote(simulation: Simulation) -> None:
    """Goes away or comes back."""
    simulation.source.away = not simulation.source.away


def task_is_killed(simulation: Simulation) -> None:
    machine = simulation.random.choice(simulation.nodes).machine
    if machine.running():
        key = simulation.random.choice(machine.running())
        machine.kill_task(key[0], key[1])


def reboot(simulation: Simulation) -> None:
    simulation.reboot(simulation.random.choice(simulation.nodes))


def commit(simulation: Simulation) -> None:
    simulation.source.commit()


FAULTS = (
    (0.6, commit),
    (0.4, server_dies_or_starts),
    (0.6, agent_dies_or_starts),
    (0.3, cable),
    (0.2, remote),
    (0.3, task_is_killed),
    (0.1, reboot),
)


def comes_to_rest(simulation: Simulation) -> None:
    """All faults end; after some minutes what runs is what is wanted, on every machine, by every name."""
    simulation.network.trouble, simulation.crashes.chance = 0.0, 0.0
    simulation.network.cut.clear()
    simulation.source.away = False
    if simulation.server is None:
        simulation.start_server()
    for node in simulation.nodes:
        if node.agent is None:
            simulation.start_agent(node)
    simulation.run(600)
    server = simulation.server
    assert server is not None
    state = server.store.state
    wanted = {
        held.id: held.node for held in state.allocations.values() if held.is_wanted and not held.is_terminal
    }
    assert simulation.running() == wanted, simulation.told("what runs is not what is wanted")
    for name, job in simulation.source.jobs.items():
        held = [one for one in state.allocations_of_job(name) if one.is_wanted]
        running = sorted(one.name for one in held if one.client_status == "running")
        if job.type == "batch":
            assert len(held) >= count(job), simulation.told(f"{name}: {held}")
            assert not running, simulation.told(f"{name} still runs")
        elif job.type == "system":
            # One that failed too often stays failed on its node, by the contract.
            failed = [one.name for one in held if one.client_status == "failed"]
            nodes = len(simulation.nodes)
            assert len(running) + len(failed) == nodes, simulation.told(f"{name}: {running}, {failed}")
        else:
            assert len(running) == count(job), simulation.told(f"{name}: {running}: {state.jobs[name]}")
    for name in state.jobs:
        if name not in simulation.source.jobs:
            left = [
                one.name for one in state.allocations_of_job(name) if one.is_wanted and not one.is_terminal
            ]
            assert not left, simulation.told(f"{name} is removed, and {left} are wanted")
    know_the_addresses(simulation, state)


def know_the_addresses(simulation: Simulation, state: ClusterState) -> None:
    """Each task that runs was told what its files from services have to say."""
    offers = [offer for held in state.allocations.values() for offer in offers_of(state, held)]
    for node in simulation.nodes:
        assert node.journal is not None
        for assignment, record in node.journal.held():
            for task in assignment.group.tasks:
                held = record.tasks[task.name]
                if held.phase == "running":
                    names = [name for file in task.files for name in file.services]
                    known = {name: tuple(address for of, address in offers if of == name) for name in names}
                    expected = service_files(task, known).digests
                    what = f"{assignment.allocation.name} on {node.name}: {held.files}, {known}"
                    assert held.files == expected, simulation.told(what)


def count(job: Job) -> int:
    return job.groups[0].count
