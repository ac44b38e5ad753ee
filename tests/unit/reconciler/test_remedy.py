"""What would have to change, in lines: what is nearest first, and the rest counted."""

from reconciler.evaluate import evaluate, record
from reconciler.remedy import remedies
from reconciler.state_copy import StateCopy
from tests.builders import NOON, CountingIds, a_job, a_node, a_state, an_allocation
from trueup.models.job import Constraint, Job, Port
from trueup.models.node import Node
from trueup.models.state import ClusterState


def tried(state: ClusterState, name: str) -> ClusterState:
    record(evaluate(name, state, NOON, CountingIds()), state, StateCopy(state), NOON)
    return state


def asked(job: Job, *nodes: Node) -> list[str]:
    return remedies(tried(a_state(nodes=nodes, jobs=(job,)), job.name), job.name)


def test_a_shortfall_is_counted_by_its_size_the_least_first() -> None:
    nodes = [a_node(f"n{number}", cpu=1, memory="8GiB") for number in range(3)]
    far = a_node("far", cpu=0.5, memory="1GiB")
    assert asked(a_job(cpu=1.2, memory="2GiB"), *nodes, far) == [
        "3 nodes lack 0.2 cpu",
        "1 node lacks 0.7 cpu and 1GiB memory",
    ]


def test_many_shortfalls_are_told_together() -> None:
    nodes = [a_node(f"n{number}", cpu=0.1 * (number + 1), memory="8GiB") for number in range(6)]
    assert asked(a_job(cpu=1, memory="2GiB"), *nodes) == [
        "1 node lacks 0.4 cpu",
        "1 node lacks 0.5 cpu",
        "1 node lacks 0.6 cpu",
        "3 nodes lack more",
    ]


def test_a_constraint_says_what_the_nodes_have_instead() -> None:
    job = a_job(constraints=(Constraint(attribute="node.labels.disk", value="ssd"),))
    nodes = [a_node(f"n{number}", labels={"disk": "hdd"}) for number in range(4)]
    assert asked(job, *nodes, a_node("bare")) == [
        "constraint node.labels.disk = ssd: 4 nodes have hdd, 1 node has none"
    ]


def test_a_taken_port_names_its_holder() -> None:
    port = (Port(name="http", port=8080),)
    held, wanted, node = a_job("held", ports=port), a_job("wanted", ports=port), a_node("node-1")
    state = a_state(nodes=(node,), jobs=(held, wanted))
    state.put_allocation(an_allocation(held, node, ports={"http": 8080}))
    assert remedies(tried(state, "wanted"), "wanted") == ["port 8080 of node-1 is held by held.app[0]"]
    state.put_allocation(
        an_allocation(held, node, ports={"http": 8080}, desired_status="stop", reason="not needed")
    )
    assert remedies(state, "wanted") == ["port 8080 of node-1 is held by held.app[0], which is stopping"]


def test_what_is_placed_needs_nothing() -> None:
    assert asked(a_job(), a_node()) == []
