"""The planner on a large cluster: every one of 10,000 unlike nodes is scored for every group.

Half of the jobs have a constraint, a third a port.

Beside it, what any planner that looks at all nodes has to do at least: one best fit over numpy columns for each group,
one argmax and one update for each allocation, and nothing else (no constraints, ports, reasons, rollouts or records).
"""

import time

import numpy as np
import pytest

from reconciler.diff import diff
from reconciler.evaluate import job_state, record
from reconciler.planner import plan
from reconciler.state_copy import StateCopy
from tests.bench.measure import cpu_timed, figure, in_turns, note, sample, title
from tests.builders import NOON, CountingIds, a_job, a_node, a_state
from trueup.models.job import Constraint, Job, Port
from trueup.models.node import Node

NODES = 10_000
WANTED_SECONDS = {1_000: 1.0, 10: 4.0, 1: 12.0}
"""For 100,000 allocations in groups of that size."""
HUNDRED_THOUSAND = 100_000
ROUNDS = 3


@pytest.mark.parametrize(("group", "allocations"), [(1_000, 100_000), (10, 100_000), (1, 20_000)])
def test_placing_on_ten_thousand_unlike_nodes(group: int, allocations: int) -> None:
    title(f"{allocations} allocations in groups of {group} on {NODES} unlike nodes")
    nodes = tuple(_node(number) for number in range(NODES))
    jobs = tuple(_job(number, group) for number in range(allocations // group))
    spent: list[dict[str, float]] = []

    def ours() -> float:
        spent.append(
            _placed(nodes, tuple(_job(number, group) for number in range(allocations // group)), allocations)
        )
        return spent[-1]["plan"]

    plain, planned = in_turns(ROUNDS, lambda: cpu_timed(lambda: _plain(nodes, jobs)), ours)
    sample("best fit over columns alone, CPU", plain)
    for step in spent[0]:
        sample(f"{step}, CPU", [one[step] for one in spent])
    best = min(planned)
    note(
        f"to plan is {best / min(plain):.1f} times the columns alone, {best / allocations * 1e6:.0f} µs an allocation"
    )
    scaled = best * HUNDRED_THOUSAND / allocations
    figure(f"seconds of CPU to plan {HUNDRED_THOUSAND}, best of {ROUNDS}", scaled, WANTED_SECONDS[group], "s")


def test_growth() -> None:
    title(f"From a thousand allocations to a million, in groups of up to 1000 on {NODES} unlike nodes")
    nodes = tuple(_node(number) for number in range(NODES))
    amounts, taken = [1_000, 10_000, 100_000, 1_000_000], []
    for amount in amounts:
        jobs = tuple(_job(number, 1_000, cpu=0.01, memory=16) for number in range(amount // 1_000))
        spent = _placed(nodes, jobs, amount)
        taken.append(sum(spent.values()))
        note(f"{amount:8}: {taken[-1]:8.3f} s of CPU, {spent['plan']:8.3f} s of them to plan")
    slope = np.polyfit(np.log(amounts), np.log(taken), 1)[0]
    figure("slope of the logarithms", float(slope), 1.1, "")


def _node(number: int) -> Node:
    labels = {"rack": str(number % 50), "disk": "ssd" if number % 3 else "hdd"}
    return a_node(f"n{number:05d}", cpu=8 + number % 17, memory=f"{16 + number % 31}GiB", labels=labels)


def _job(number: int, count: int, *, cpu: float = 0.1, memory: int = 64) -> Job:
    constraint = Constraint(attribute="node.labels.disk", operator="=", value="ssd")
    return a_job(
        f"j{number}",
        count=count,
        cpu=cpu * (1 + number % 7),
        memory=f"{memory * (1 + number % 8)}MiB",
        constraints=(constraint,) if number % 2 else (),
        ports=(Port(name="http"),) if number % 3 == 0 else (),
    )


def _placed(nodes: tuple[Node, ...], jobs: tuple[Job, ...], allocations: int) -> dict[str, float]:
    """Seconds of CPU by step, over all jobs."""
    state, ids = a_state(nodes=nodes, jobs=jobs), CountingIds()
    target = StateCopy(state)
    spent = dict.fromkeys(("diff", "plan", "record"), 0.0)
    for job in jobs:
        begun = time.process_time()
        changes = diff(job_state(job.name, state), NOON)
        compared = time.process_time()
        outcome = plan(changes, state, NOON, ids)
        planned = time.process_time()
        record(outcome, state, target, NOON)
        spent["diff"] += compared - begun
        spent["plan"] += planned - compared
        spent["record"] += time.process_time() - planned
    assert len(state.allocations) == allocations
    return spent


def _plain(nodes: tuple[Node, ...], jobs: tuple[Job, ...]) -> None:
    cpu = np.array([float(node.resources.cpu_millicores) for node in nodes])
    memory = np.array([float(node.resources.memory_bytes) for node in nodes])
    used_cpu, used_memory = np.zeros(NODES), np.zeros(NODES)
    for job in jobs:
        (group,) = job.groups
        wanted = group.tasks[0].resources
        cpu_after, memory_after = used_cpu + wanted.cpu_millicores, used_memory + wanted.memory_bytes
        fits = (cpu_after <= cpu) & (memory_after <= memory)
        points = np.where(fits, np.minimum(cpu_after / cpu, memory_after / memory), -np.inf)
        for _ in range(group.count):
            row = int(points.argmax())
            used_cpu[row] += wanted.cpu_millicores
            used_memory[row] += wanted.memory_bytes
            points[row] = -1.0
