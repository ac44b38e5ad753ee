"""Where work goes, why not, and how it moves: three agents of different size, region and label."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Json
from tests.e2e.plant import Plant

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("scheduling")]

NODES = {
    "node-1": ("--region", "eu", "--label", "disk=ssd", "--cpu", "4", "--memory", "4GiB"),
    "node-2": ("--region", "eu", "--label", "disk=hdd", "--cpu", "2", "--memory", "2GiB"),
    "node-3": ("--region", "us", "--label", "disk=hdd", "--cpu", "2", "--memory", "2GiB"),
}


# Nothing is held back, and the job of none keeps the tree from ever being an emptied one.
CLUSTER = """
kind: Cluster
name: cluster
hold: off
"""
ANCHOR = """
kind: Job
name: anchor
groups: [{count: 0, tasks: [{config: {command: [sleep, "1"]}}]}]
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """The three nodes, for all tests of this file: to start them takes longer than any of these."""
    made = Plant(tmp_path_factory.mktemp("scheduling"))
    try:
        made.start_server()
        for name, options in NODES.items():
            made.start_agent(name, *options)
        made.until_ready(*NODES)
        yield made
    finally:
        made.end()


@pytest.fixture
def plant(started: Plant) -> Iterator[Plant]:
    """The three nodes, on which nothing runs."""
    started.specs.write("anchor.yaml", ANCHOR)
    started.specs.write("cluster.yaml", CLUSTER)
    started.api.until(lambda: started.api.job("anchor"))
    yield started
    started.specs.write("cluster.yaml", CLUSTER)
    for file in started.specs.folder.glob("*.yaml"):
        if file.name not in {"anchor.yaml", "cluster.yaml"}:
            file.unlink()
    started.api.until(lambda: is_empty(started))


def is_empty(plant: Plant) -> bool:
    over = {"complete", "failed", "lost"}
    ended = all(one["client_status"] in over for one in plant.api.allocations(wanted=False))
    return ended and all(plant.node(name)["eligible"] for name in NODES) and not plant.api.allocations()


def job(name: str, fields: str = "", *, count: int = 1, resources: str = "{cpu: 0.1, memory: 16MiB}") -> str:
    """A service of sleepers; *fields* are lines of the job."""
    return f"""
kind: Job
name: {name}
update: {{min_healthy_time: 100ms, max_parallel: 0}}
{fields}
groups:
  - count: {count}
    tasks:
      - config: {{command: [sleep, "3600"]}}
        kill_timeout: 1s
        resources: {resources}
"""


def unplaced(plant: Plant, name: str, count: int = 1) -> Json:
    """The reasons for what of a job found no room, by how many nodes say so."""

    def reasons() -> Json | None:
        held = plant.api.job(name)["unplaced"]
        return held[0]["reasons"] if held and held[0]["count"] == count else None

    return plant.api.until(reasons)


def test_what_finds_no_room_says_why_and_is_placed_once_there_is_some(plant: Plant) -> None:
    plant.specs.write("big.yaml", job("big", resources="{cpu: 3.5, memory: 64MiB}"))
    plant.specs.write("fat.yaml", job("fat", resources="{cpu: 0.1, memory: 8GiB}"))
    plant.specs.write("more.yaml", job("more", count=2, resources="{cpu: 1.5, memory: 64MiB}"))
    plant.api.until_running("big", 1)
    plant.api.until_running("more", 2)
    assert plant.places("big") == {"big.big[0]": "node-1"}
    assert sorted(plant.places("more").values()) == ["node-2", "node-3"]

    assert unplaced(plant, "fat") == {"insufficient memory": 3}
    assert plant.api.job("fat")["health"] == "Missing"
    said = plant.command("explain", "fat")
    assert "insufficient memory" in said
    assert "Missing" in said
    assert "What would have to change" in said
    assert "lack" in said.partition("What would have to change")[2]

    plant.specs.write("late.yaml", job("late", resources="{cpu: 1.5, memory: 64MiB}"))
    assert unplaced(plant, "late") == {"insufficient cpu": 3}
    before = plant.api.running("big")
    plant.specs.remove("more.yaml")
    plant.api.until_running("late", 1)
    assert plant.api.running("big") == before


def test_constraints_regions_and_distinct_hosts(plant: Plant) -> None:
    ssd = 'constraints: [{attribute: "node.labels.disk", operator: "=", value: ssd}]'
    plant.specs.write("ssd.yaml", job("ssd", ssd, count=2))
    plant.specs.write("us.yaml", job("us", "regions: [us]", count=2))
    plant.specs.write("apart.yaml", job("apart", "constraints: [{operator: distinct_hosts}]", count=4))
    plant.specs.write("nowhere.yaml", job("nowhere", "regions: [asia]"))
    plant.api.until_running("ssd", 2)
    plant.api.until_running("us", 2)
    assert set(plant.places("ssd").values()) == {"node-1"}
    assert set(plant.places("us").values()) == {"node-3"}
    plant.api.until(lambda: len(plant.places("apart")) == 3)
    assert sorted(plant.places("apart").values()) == sorted(NODES)
    assert unplaced(plant, "apart") == {"constraint distinct_hosts": 3}
    assert unplaced(plant, "nowhere") == {"region is not asia": 3}
    assert "region is not asia" in plant.command("explain", "nowhere")
    # A constraint is changed in place: what no longer fits moves.
    hdd = 'constraints: [{attribute: "node.labels.disk", operator: "=", value: hdd}]'
    plant.specs.write("ssd.yaml", job("ssd", hdd, count=2))
    plant.api.until(
        lambda: set(plant.places("ssd").values()) <= {"node-2", "node-3"} and len(plant.places("ssd")) == 2
    )


@pytest.mark.parametrize("placement", ["binpack", "spread"])
def test_placement_packs_or_spreads(plant: Plant, placement: str) -> None:
    plant.specs.write("cluster.yaml", f"{CLUSTER}placement: {placement}\n")
    # Nodes of one size, so that nothing else decides; and jobs of one, as the twins of a group keep apart in any case.
    hdd = 'constraints: [{attribute: "node.labels.disk", operator: "=", value: hdd}]'
    jobs = ["a", "b", "c", "d"]
    for name in jobs:
        plant.specs.write(f"{name}.yaml", job(name, hdd))
        plant.api.until_running(name, 1)
    used = Counter(node for name in jobs for node in plant.places(name).values())
    assert sorted(used.values()) == ([4] if placement == "binpack" else [2, 2])


def test_the_higher_priority_gets_the_room(plant: Plant) -> None:
    """Both come in one revision, and only one fits."""
    plant.specs.write(
        "both.yaml",
        job("alow", "priority: 10", resources="{cpu: 3, memory: 64MiB}")
        + "---"
        + job("zhigh", "priority: 90", resources="{cpu: 3, memory: 64MiB}"),
    )
    plant.api.until_running("zhigh", 1)
    assert unplaced(plant, "alow") == {"insufficient cpu": 3}
    plant.specs.write("both.yaml", job("alow", "priority: 10", resources="{cpu: 3, memory: 64MiB}"))
    plant.api.until_running("alow", 1)


def test_a_system_job_runs_on_every_node_also_on_one_that_joins_later(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    try:
        system = job("watch", "type: system").replace("  - count: 1\n    tasks:", "  - tasks:")
        plant.specs.write("watch.yaml", system)
        plant.start("node-1", "node-2")
        before = until_on(plant, "watch", {"node-1", "node-2"})
        plant.start_agent("node-3")
        after = until_on(plant, "watch", {"node-1", "node-2", "node-3"})
        assert {node: after[node] for node in before} == before
    finally:
        plant.end()


def until_on(plant: Plant, name: str, nodes: set[str]) -> dict[str, int]:
    """The pid on each node, once a job runs on exactly these and is Healthy."""

    def found() -> dict[str, int] | None:
        held = [one for one in plant.api.allocations(name) if one["client_status"] == "running"]
        pids = {one["node"]: next(iter(one["tasks"].values()))["pid"] for one in held}
        healthy = plant.api.job(name)["health"] == "Healthy"
        return pids if healthy and len(held) == len(nodes) and set(pids) == nodes else None

    return plant.api.until(found)


def test_a_drain_moves_work_and_its_removal_makes_the_node_take_some_again(plant: Plant) -> None:
    eu = "regions: [eu]\nupdate: {min_healthy_time: 100ms, max_parallel: 1}"
    text = job("web", eu, count=3).replace("update: {min_healthy_time: 100ms, max_parallel: 0}\n", "", 1)
    plant.specs.write("web.yaml", text)
    before = plant.api.until_running("web", 3)
    places = plant.places("web")
    (full, _), *_ = Counter(places.values()).most_common()
    other = "node-2" if full == "node-1" else "node-1"
    plant.specs.write("nodes.yaml", f"kind: Node\nname: {full}\ndrain: {{deadline: 5m}}\n")
    plant.api.until(lambda: plant.places("web") == dict.fromkeys(places, other))
    after = plant.api.until_running("web", 3)
    stayed = [name for name, node in places.items() if node == other]
    assert {name: after[name] for name in stayed} == {name: before[name] for name in stayed}
    moved = [one for one in plant.api.allocations("web", wanted=False) if one["desired_status"] == "stop"]
    assert {(one["node"], one["reason"]) for one in moved} == {(full, "migrating")}
    held = plant.node(full)
    assert held["drain"] is not None
    assert not held["eligible"]

    plant.specs.remove("nodes.yaml")
    plant.api.until(lambda: plant.node(full)["eligible"])
    assert plant.node(full)["drain"] is None
    assert plant.api.running("web") == after
    plant.specs.write("more.yaml", job("more", "constraints: [{operator: distinct_hosts}]", count=3))
    plant.api.until_running("more", 3)


def test_an_ineligible_node_keeps_what_runs_and_gets_nothing_new(plant: Plant) -> None:
    us = "regions: [us]"
    plant.specs.write("web.yaml", job("web", us, count=1))
    before = plant.api.until_running("web", 1)
    plant.specs.write("node.yaml", "kind: Node\nname: node-3\neligible: false\n")
    plant.api.until(lambda: not plant.node("node-3")["eligible"])
    plant.specs.write("web.yaml", job("web", us, count=2))
    assert unplaced(plant, "web")["node is ineligible"] == 1
    assert plant.api.running("web") == before
    assert "node is ineligible" in plant.command("explain", "web")
    plant.specs.remove("node.yaml")
    after = plant.api.until_running("web", 2)
    assert after.items() >= before.items()
