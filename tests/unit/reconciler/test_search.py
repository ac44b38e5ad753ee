"""The columns say of every node what is said of each alone: who may run a group, and who suits it best."""

from collections import Counter
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reconciler.columns import FREE_CPU
from reconciler.evaluate import evaluate
from reconciler.feasibility import check
from reconciler.gates import Gates, refused
from reconciler.kept import Kept
from reconciler.node_table import NodeTable, table_of
from reconciler.ranking import Ranking
from reconciler.scoring import Score
from tests.builders import NOON, CountingIds, a_group, a_job, a_node, a_state, a_task, an_allocation
from trueup.models.fit import demand_of, fits
from trueup.models.job import Affinity, Constraint, Job, Spread, Volume
from trueup.models.node import DriverState, Node
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings

LABELS = st.dictionaries(st.sampled_from(["rack", "disk"]), st.sampled_from(["a", "b", "10", "9"]))
CONSTRAINTS = st.sampled_from(
    [
        Constraint(attribute="node.labels.rack", operator="=", value="a"),
        Constraint(attribute="node.labels.rack", operator="is_set"),
        Constraint(attribute="node.labels.rack", operator="<", value="10"),
        Constraint(attribute="node.labels.disk", operator="!=", value="b"),
        Constraint(attribute="node.region", operator="regexp", value="^n"),
    ]
)
AFFINITIES = st.sampled_from(
    [
        Affinity(attribute="node.labels.disk", value="a", weight=50),
        Affinity(attribute="node.labels.disk", value="b", weight=-30),
    ]
)
SPREADS = st.sampled_from(
    [
        Spread(attribute="node.labels.rack"),
        Spread(attribute="node.labels.disk", weight=20, targets={"a": 70}),
    ]
)


@st.composite
def nodes(draw: st.DrawFn, name: str) -> Node:
    drivers = st.sampled_from(
        [{"process": DriverState()}, {}, {"process": DriverState(healthy=False, detail="off")}]
    )
    fields: dict[str, Any] = {
        "cpu": draw(st.sampled_from([0.05, 1, 4])),
        "memory": draw(st.sampled_from(["64MiB", "4GiB"])),
        "region": draw(st.sampled_from(["north", "south"])),
        "status": draw(st.sampled_from(["ready", "ready", "ready", "down"])),
        "eligible": draw(st.sampled_from([True, True, False])),
        "drivers": draw(st.one_of(st.just({"process": DriverState()}), drivers)),
        "volumes": draw(st.sampled_from([(), ("data",)])),
        "secrets": draw(st.sampled_from([(), ("key",)])),
    }
    return a_node(name, labels=draw(LABELS), **fields)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    env = draw(st.sampled_from([{}, {"KEY": "${secret:key}"}]))
    volumes = draw(st.sampled_from([(), (Volume(name="d", source="data", sticky=False),)]))
    return a_job(
        groups=(a_group(count=draw(st.integers(1, 4)), tasks=(a_task(env=env),), volumes=volumes),),
        regions=draw(st.sampled_from([(), ("north",)])),
        constraints=tuple(draw(st.lists(CONSTRAINTS, max_size=2, unique=True))),
        affinities=tuple(draw(st.lists(AFFINITIES, max_size=2, unique=True))),
        spreads=tuple(draw(st.lists(SPREADS, max_size=2, unique_by=lambda one: one.attribute))),
    )


@st.composite
def clusters(draw: st.DrawFn) -> tuple[ClusterState, Job]:
    job = draw(jobs())
    found = tuple(draw(nodes(f"n{number}")) for number in range(draw(st.integers(1, 6))))
    state = a_state(nodes=found, jobs=(job, a_job("other", cpu=0.5)))
    state.settings = ClusterSettings(placement=draw(st.sampled_from(["binpack", "spread"])))
    for index in range(draw(st.integers(0, 4))):
        state.put_allocation(
            an_allocation(a_job("other", cpu=0.5), draw(st.sampled_from(found)), index=index)
        )
    return state, job


@given(clusters())
def test_who_may_run_a_group_is_who_passes_every_filter(world: tuple[ClusterState, Job]) -> None:
    state, job = world
    table = table_of(state)
    gates = table.gates(job, job.groups[0], state.settings)
    reasons = [check(node, job, job.groups[0], state.settings) for node in table.nodes]
    assert list(table.passing(gates).mask) == [reason is None for reason in reasons]
    among = np.ones(len(table.nodes), dtype=np.bool_)
    assert dict(refused(gates, among)) == Counter(reason for reason in reasons if reason is not None)
    assert list(among) == [reason is None for reason in reasons]


@given(clusters())
def test_every_placement_goes_to_the_best_of_all_nodes(world: tuple[ClusterState, Job]) -> None:
    """Each node is asked alone here, anew each time: feasible, with room, scored; ties go to the first name."""
    state, job = world
    group, demand = job.groups[0], demand_of(job.groups[0])
    table = table_of(state)
    used = {node.id: state.usage(node.id).copy() for node in table.nodes}
    held: dict[int, int] = {}
    able = [row for row, node in enumerate(table.nodes) if check(node, job, group, state.settings) is None]
    outcome = evaluate("web", state, NOON, CountingIds())
    for placement in [*outcome.placements, None]:
        bar = table.passing(table.gates(job, group, state.settings)).bar
        score = Score(table, job, group, table.packing(demand, bar, state.settings.placement))
        if score.spreading is not None:
            score.spreading.begin(table.passing(table.gates(job, group, state.settings)).mask, held)
        ranked = []
        for row in able:
            node = table.nodes[row]
            if fits(node, used[node.id], demand) is None:
                total = score.of_one(row, used[node.id], held.get(row, 0))
                ranked.append((-total - score.of_spreads_on(row), node.name, row))
        if placement is None:
            assert not ranked or len(outcome.placements) == group.count
            return
        best = min(ranked)
        assert (placement.score, placement.allocation.node) == (score.shown(-best[0]), best[1])
        used[placement.allocation.node_id].add(placement.allocation)
        held[best[2]] = held.get(best[2], 0) + 1


@given(
    st.lists(st.sampled_from([-np.inf, 0.0, 0.25, 0.5, 1.0]), max_size=40),
    st.lists(st.tuples(st.integers(0, 39), st.sampled_from([-np.inf, 0.0, 0.3, 0.5, 2.0])), max_size=12),
)
def test_a_ranking_knows_the_best_row_whatever_changes(
    points: list[float], changes: list[tuple[int, float]]
) -> None:
    ranking = Ranking(np.array(points))
    now = list(points)
    for row, value in [(0, now[0] if now else 0.0), *changes]:
        if row < len(now):
            now[row] = value
            ranking.put(row, value)
        best = max(((held, -index) for index, held in enumerate(now) if held > -np.inf), default=None)
        assert ranking.best() == (None if best is None else (best[0], -best[1]))


def test_the_table_follows_the_state() -> None:
    node, job = a_node("a"), a_job(cpu=1)
    state = a_state(nodes=(node,), jobs=(job,))
    table = table_of(state)
    held = an_allocation(job, node)
    state.put_allocation(held)
    assert table_of(state) is table
    assert list(table.columns.matrix[FREE_CPU]) == [node.resources.cpu_millicores - 1000.0]
    state.drop_allocation(held.id)
    assert list(table_of(state).columns.matrix[FREE_CPU]) == [node.resources.cpu_millicores]
    state.nodes[a_node("b").id] = a_node("b")
    assert table_of(state) is not table
    assert [one.name for one in table_of(state).nodes] == ["a", "b"]


@given(st.data())
def test_a_table_that_followed_its_nodes_says_what_a_new_one_does(data: st.DataObject) -> None:
    """Also for what was asked before they changed; only other resources or other nodes make a new table."""
    state, job = data.draw(clusters())
    group = job.groups[0]
    constraint = Constraint(attribute="node.labels.rack", operator="is_set")
    for _ in range(2):
        table = table_of(state)
        table.gates(job, group, state.settings)
        table.values("node.labels.rack")
        evaluate("web", state, NOON, CountingIds())
        for node in data.draw(st.lists(st.sampled_from(table.nodes), max_size=2)):
            now = data.draw(nodes(node.name))
            same_size = data.draw(st.booleans())
            state.nodes[node.id] = (
                msgspec.structs.replace(now, resources=node.resources) if same_size else now
            )
        followed, new = table_of(state), NodeTable(state)
        sizes = [node.resources for node in table.nodes]
        assert (followed is table) == (sizes == [node.resources for node in new.nodes])
        assert followed.nodes == new.nodes
        assert list(followed.meets(constraint)) == list(new.meets(constraint))
        (codes, names), (codes_now, names_now) = (one.values("node.labels.rack") for one in (followed, new))
        assert (list(codes), names) == (list(codes_now), names_now)
        told = []
        for one in (followed, new):
            among = np.ones(len(one.nodes), dtype=np.bool_)
            told.append((sorted(refused(one.gates(job, group, state.settings), among)), list(among)))
        assert told[0] == told[1]
        plans = [evaluate("web", one, NOON, CountingIds()) for one in (state, state.copy())]
        assert plans[0].placements == plans[1].placements
        assert plans[0].unplaced == plans[1].unplaced


def test_a_node_that_changes_leaves_what_is_known_of_the_others() -> None:
    """Its status costs one question for each filter: who passes the others is worked out no second time."""
    state = a_state(nodes=(a_node("a"), a_node("b", labels={"disk": "ssd"})), jobs=(a_job(),))
    table, job = table_of(state), a_job(constraints=(Constraint(attribute="node.labels.disk", value="ssd"),))
    accepts, *others = table.gates(job, job.groups[0], state.settings)
    state.nodes[a_node("a").id] = a_node("a", eligible=False)
    assert table_of(state) is table
    now = table.gates(job, job.groups[0], state.settings)
    assert [one is other for one, other in zip(now[1:], others, strict=True)] == [True] * len(others)
    assert (list(accepts.passes), list(now[0].passes)) == ([True, True], [False, True])


def test_a_copy_of_the_state_has_a_table_of_its_own() -> None:
    node, job = a_node("a"), a_job(cpu=1)
    state = a_state(nodes=(node,), jobs=(job,))
    table = table_of(state)
    other = state.copy()
    other.put_allocation(an_allocation(job, node))
    assert isinstance(table_of(other), NodeTable)
    assert table_of(other) is not table
    assert list(table_of(state).columns.matrix[FREE_CPU]) == [node.resources.cpu_millicores]


def test_more_demands_and_constraints_than_are_kept_are_placed_as_well() -> None:
    """Each job is pinned to a node of its own, with a demand of its own; all are asked for twice, in either order."""
    nodes = tuple(a_node(f"n{number}", labels={"own": str(number)}) for number in range(8))
    jobs = tuple(
        a_job(
            f"j{number}",
            cpu=0.1 + number / 10,
            constraints=(Constraint(attribute="node.labels.own", value=str(number)),),
        )
        for number in range(8)
    )
    state = a_state(nodes=nodes, jobs=jobs)
    table = table_of(state)
    table._gates, table._passing, table._packings = Gates(3), Kept(2), Kept(2)
    for number in (*range(8), *reversed(range(8))):
        (placement,) = evaluate(f"j{number}", state, NOON, CountingIds()).placements
        assert placement.allocation.node == f"n{number}"


def test_what_was_not_asked_for_longest_is_not_kept() -> None:
    kept: Kept[list[int]] = Kept(2)
    first = kept.of("a", lambda: [1])
    kept.of("b", lambda: [2])
    assert kept.of("a", lambda: [3]) is first
    kept.of("c", lambda: [4])
    assert kept.of("a", lambda: [5]) is first
    assert kept.of("b", lambda: [6]) == [6]
