"""What a revision is said to end is what is gone once all of it has happened, whatever it changes.

Drains are left out here: what finds no room depends on who is moved first, so theirs is an estimate (the stories of
holds look at it).
"""

from random import Random

import pytest

from reconciler import register
from reconciler.ending import Loss, ended_by
from tests.builders import a_desired, a_job, a_node, a_state
from tests.pure_cluster import PureCluster
from trueup.models.allocation import Allocation
from trueup.models.job import Constraint, Job, JobType
from trueup.models.template import NodePolicy

SSD = Constraint(attribute="node.labels.disk", operator="=", value="ssd")
TYPES: tuple[JobType, ...] = ("service", "service", "batch", "system")


def any_job(name: str, type_: JobType, random: Random) -> Job:
    return a_job(
        name,
        type=type_,
        count=random.choice([0, 1, 2, 3]),
        cpu=random.choice([0.3, 0.6]),
        constraints=(SSD,) if random.random() < 0.25 else (),
        suspended=random.random() < 0.15,
        env={"MODE": random.choice("ab")},
    )


def known_as(held: Allocation, types: dict[str, JobType]) -> tuple[str, str]:
    """The name, and the node where a name is unique on its node only."""
    return held.name, held.node if types[held.job] == "system" else ""


@pytest.mark.parametrize("seed", range(80))
def test_what_is_said_to_end_is_what_ends(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed)
    nodes = tuple(
        a_node(name, cpu=random.choice([1, 2, 4]), labels={"disk": "ssd"} if random.random() < 0.6 else {})
        for name in "abcd"
    )
    types = {name: random.choice(TYPES) for name in ("one", "two", "three")}
    cluster = PureCluster(a_state(nodes=nodes))
    said: set[tuple[str, str]] = set()

    def not_held(loss: Loss) -> None:
        said.clear()
        said.update(known_as(held, types) for held in ended_by(loss))

    def runs() -> set[tuple[str, str]]:
        return {
            known_as(held, types)
            for held in cluster.state.allocations.values()
            if held.is_wanted and not held.is_terminal
        }

    monkeypatch.setattr(register, "held_for", not_held)
    cluster.apply(a_desired(*(any_job(name, type_, random) for name, type_ in types.items()), revision="r1"))
    cluster.settle()
    before = runs()
    wanted = [any_job(name, type_, random) for name, type_ in types.items() if random.random() < 0.8]
    policies = {
        name: NodePolicy(name=name, labels={"disk": random.choice(["ssd", "hdd"])})
        for name in "abcd"
        if random.random() < 0.3
    }
    cluster.apply(a_desired(*wanted, revision="r2", nodes=policies))
    cluster.settle()
    assert said == before - runs()
