"""How well work is packed: what share of the cores is given out when the first request finds no room, and how many
nodes carry anything once half of them are given out.

Beside it, on the same requests and nodes: best fit with Nomad's score (what is left of cpu and memory, as powers of
ten), and for the nodes used the fewest that have half of the cores and the memory that goes with them. Requests come
from `workload.csv` (`group`, `cpu_cores`, `memory_mib`, in order of arrival) and `nodes.csv` (`name`, `cpu_cores`,
`memory_mib`) in the folder `PACKING_DATA`, and from a generator, so that nothing is tuned to one trace. Nothing ends.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from reconciler.evaluate import evaluate, record
from reconciler.state_copy import StateCopy
from tests.bench.measure import at_least, figure, title
from tests.builders import NOON, CountingIds, a_job, a_node, a_state
from trueup.models.job import Job


class Machine(NamedTuple):
    cores: float
    memory_mib: int


class Request(NamedTuple):
    group: str
    cores: float
    memory_mib: int


class Packed(NamedTuple):
    """The share of cores given out at the first rejection, and the nodes in use when it was half."""

    share: float
    nodes_at_half: int


def _traces() -> Iterator[tuple[str, Sequence[Machine], Sequence[Request]]]:
    folder = os.environ.get("PACKING_DATA")
    if folder:
        yield Path(folder).name, _machines(Path(folder)), _requests(Path(folder))
    yield "made up: flavours on equal nodes", [Machine(16, 65_536)] * 120, _made_up(1)
    yield "made up: flavours on unlike nodes", _unlike(), _made_up(2)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in groups"])
def test_packing(together: bool) -> None:
    for name, machines, requests in _traces():
        title(
            f"{name}: {len(requests)} requests on {len(machines)} nodes, {'in groups' if together else 'one by one'}"
        )
        best_fit = _best_fit(machines, requests)
        ours = _ours(machines, _jobs(requests, together=together))
        at_least(
            "cores given out at the first rejection, beside best fit", ours.share / best_fit.share, 1.0, "x"
        )
        at_least("the same, of all cores", ours.share, 0.97, "")
        bound = _fewest_for_half(machines, requests)
        figure(
            f"nodes used for half of the cores, beside the fewest ({bound})",
            ours.nodes_at_half / bound,
            1.5,
            "x",
        )
        figure(f"the same by best fit ({best_fit.nodes_at_half})", best_fit.nodes_at_half / bound, 1.5, "x")


def _ours(machines: Sequence[Machine], jobs: Sequence[Job]) -> Packed:
    nodes = tuple(
        a_node(f"n{number:04}", cpu=one.cores, memory=f"{one.memory_mib}MiB")
        for number, one in enumerate(machines)
    )
    state, ids = a_state(nodes=nodes, jobs=tuple(jobs)), CountingIds()
    target, whole, given, half = StateCopy(state), sum(one.cores for one in machines), 0.0, 0
    for job in jobs:
        outcome = evaluate(job.name, state, NOON, ids)
        record(outcome, state, target, NOON)
        each = job.groups[0].tasks[0].resources.cpu_millicores / 1000
        given += each * len(outcome.placements)
        if not half and given >= whole / 2:
            half = sum(1 for node in nodes if state.usage(node.id).allocations)
        if outcome.unplaced:
            break
    return Packed(given / whole, half)


def _jobs(requests: Sequence[Request], *, together: bool) -> Sequence[Job]:
    """A job for each request, or for all that came next to each other, want the same and belong together."""
    runs: list[tuple[Request, int]] = []
    for one in requests:
        if together and runs and runs[-1][0] == one:
            runs[-1] = (one, runs[-1][1] + 1)
        else:
            runs.append((one, 1))
    return [
        a_job(
            f"j{number}",
            count=count,
            cpu=one.cores,
            memory=f"{one.memory_mib}MiB",
        )
        for number, (one, count) in enumerate(runs)
    ]


def _best_fit(machines: Sequence[Machine], requests: Sequence[Request]) -> Packed:
    cores, memory = (np.array(column, dtype=np.float64) for column in zip(*machines, strict=True))
    free_cores, free_memory, used = cores.copy(), memory.copy(), np.zeros(len(cores), dtype=np.bool_)
    given, half = 0.0, 0
    for one in requests:
        fits = (free_cores >= one.cores) & (free_memory >= one.memory_mib)
        if not fits.any():
            break
        left = 10 ** ((free_cores - one.cores) / cores) + 10 ** ((free_memory - one.memory_mib) / memory)
        row = int(np.where(fits, left, np.inf).argmin())
        free_cores[row] -= one.cores
        free_memory[row] -= one.memory_mib
        used[row] = True
        given += one.cores
        if not half and given >= cores.sum() / 2:
            half = int(used.sum())
    return Packed(given / float(cores.sum()), half)


def _fewest_for_half(machines: Sequence[Machine], requests: Sequence[Request]) -> int:
    half, memory = sum(one.cores for one in machines) / 2, 0.0
    cores = 0.0
    for one in requests:
        if cores >= half:
            break
        cores, memory = cores + one.cores, memory + one.memory_mib
    return max(
        _fewest([one.cores for one in machines], half), _fewest([one.memory_mib for one in machines], memory)
    )


def _fewest(amounts: Sequence[float], wanted: float) -> int:
    """How many of the largest amounts make what is wanted."""
    together = np.cumsum(sorted(amounts, reverse=True))
    return min(int(np.searchsorted(together, wanted)) + 1, len(amounts))


def _machines(folder: Path) -> Sequence[Machine]:
    with (folder / "nodes.csv").open() as rows:
        return [Machine(float(row["cpu_cores"]), int(row["memory_mib"])) for row in csv.DictReader(rows)]


def _requests(folder: Path) -> Sequence[Request]:
    with (folder / "workload.csv").open() as rows:
        return [
            Request(row["group"], float(row["cpu_cores"]), int(float(row["memory_mib"])))
            for row in csv.DictReader(rows)
        ]


def _unlike() -> Sequence[Machine]:
    draw = np.random.default_rng(1)
    sizes = draw.choice([8, 16, 32, 48, 64, 96], 160).tolist()
    ratios = draw.choice([2, 4, 8], 160).tolist()
    return [Machine(cores, cores * ratio * 1024) for cores, ratio in zip(sizes, ratios, strict=True)]


def _made_up(seed: int) -> Sequence[Request]:
    """Sizes as clouds sell them, more small ones than large ones, in groups of one to forty."""
    draw = np.random.default_rng(seed)
    found: list[Request] = []
    while len(found) < 20_000:
        cores = int(draw.choice([1, 2, 4, 8], p=[0.5, 0.3, 0.15, 0.05]))
        memory = cores * int(draw.choice([1, 2, 4, 8], p=[0.2, 0.4, 0.3, 0.1])) * 1024
        found += [Request(str(len(found)), cores, memory)] * int(draw.integers(1, 41))
    return found
