"""Which node takes a placement, and the reasons of those that do not."""

from typing import Any

import pytest

from reconciler.evaluate import evaluate
from reconciler.feasibility import check
from reconciler.planner import Plan
from tests.builders import NOON, CountingIds, a_group, a_job, a_node, a_state, a_task, an_allocation
from trueup.models.allocation import TaskState
from trueup.models.fit import DYNAMIC_PORTS
from trueup.models.job import (
    Affinity,
    Artifact,
    Constraint,
    Job,
    Port,
    SecretValue,
    Spread,
    Task,
    TaskConfig,
    TaskFile,
    Volume,
)
from trueup.models.node import DriverState, Node
from trueup.models.template import ClusterSettings, NodePolicy


def planned(job: Job, *nodes: Node, settings: ClusterSettings | None = None) -> Plan:
    state = a_state(nodes=nodes, jobs=(job,))
    state.settings = settings or ClusterSettings()
    return evaluate(job.name, state, NOON, CountingIds())


def where(outcome: Plan) -> list[str]:
    return [one.allocation.node for one in outcome.placements]


def why(outcome: Plan) -> dict[str, int]:
    return outcome.unplaced[0].reasons


def test_binpack_fills_a_node_before_it_takes_the_next() -> None:
    """The fuller node wins; equals go by name. A group's twins keep apart while they can."""
    nodes = (a_node("a"), a_node("b"))
    state = a_state(nodes=nodes, jobs=(a_job("filler"), a_job()))
    state.put_allocation(an_allocation(a_job("filler", cpu=1, memory="2GiB"), nodes[1]))
    outcome = evaluate("web", state, NOON, CountingIds())
    assert where(outcome) == ["b"]


def test_binpack_takes_the_larger_of_idle_nodes() -> None:
    """Of the same proportions: so that fewer nodes are in use."""
    nodes = (a_node("a", cpu=4, memory="16GiB"), a_node("b", cpu=16, memory="64GiB"))
    job = a_job(cpu=0.5, memory="2GiB")
    assert where(evaluate("web", a_state(nodes=nodes, jobs=(job,)), NOON, CountingIds())) == ["b"]


def test_spread_takes_the_emptiest() -> None:
    nodes = (a_node("a"), a_node("b"))
    state = a_state(nodes=nodes, jobs=(a_job("filler"), a_job()))
    state.settings = ClusterSettings(placement="spread")
    state.put_allocation(an_allocation(a_job("filler", cpu=1, memory="2GiB"), nodes[0]))
    assert where(evaluate("web", state, NOON, CountingIds())) == ["b"]


def test_a_groups_twins_keep_apart_while_they_can() -> None:
    assert sorted(where(planned(a_job(count=3), a_node("a"), a_node("b"), a_node("c")))) == ["a", "b", "c"]


def test_what_finds_no_room_says_why_for_each_node() -> None:
    small, narrow = a_node("small", memory="32MiB"), a_node("narrow", cpu=0.05)
    outcome = planned(a_job(count=2), small, narrow)
    assert why(outcome) == {"insufficient cpu": 1, "insufficient memory": 1}
    assert outcome.unplaced[0].count == 2


def test_a_node_with_one_dynamic_port_left_takes_one() -> None:
    """However little else it has to do: the next is refused there for want of a port."""
    node, filler, job = a_node(cpu=64), a_job("filler"), a_job(count=2, ports=(Port(name="http"),))
    state = a_state(nodes=(node,), jobs=(filler, job))
    taken = {f"p{port}": port for port in DYNAMIC_PORTS[:-1]}
    state.put_allocation(an_allocation(filler, node, ports=taken))
    outcome = evaluate("web", state, NOON, CountingIds())
    assert [one.allocation.ports for one in outcome.placements] == [{"http": DYNAMIC_PORTS[-1]}]
    assert (outcome.unplaced[0].count, why(outcome)) == (1, {"insufficient dynamic ports": 1})


def test_as_many_are_placed_as_there_is_room_for() -> None:
    outcome = planned(a_job(count=5, cpu=1), a_node("a", cpu=2))
    assert len(outcome.placements) == 2
    assert (outcome.unplaced[0].count, why(outcome)) == (3, {"insufficient cpu": 1})


def test_a_cluster_without_nodes_says_so() -> None:
    assert why(planned(a_job())) == {"no node is registered": 1}


@pytest.mark.parametrize(
    ("job", "node", "reason"),
    [
        (a_job(regions=("north",)), a_node(region="south"), "region is not north"),
        (a_job(), a_node(drivers={}), "driver process is missing"),
        (
            a_job(),
            a_node(drivers={"process": DriverState(healthy=False, detail="switched off")}),
            "driver process is unhealthy: switched off",
        ),
        (a_job(), a_node(eligible=False), "node is ineligible"),
        (a_job(), a_node(status="down"), "node is not ready"),
        (
            a_job(groups=(a_group(volumes=(Volume(name="data", source="shop-data"),)),)),
            a_node(),
            "host volume shop-data is missing",
        ),
        (
            a_job(groups=(a_group(tasks=(a_task(env={"KEY": SecretValue(secret="key")}),)),)),
            a_node(),
            "secret key is missing",
        ),
        (
            a_job(constraints=(Constraint(attribute="node.labels.disk", operator="=", value="ssd"),)),
            a_node(labels={"disk": "hdd"}),
            "constraint node.labels.disk = ssd",
        ),
    ],
)
def test_a_node_that_may_not_run_it_says_why(job: Job, node: Node, reason: str) -> None:
    assert why(planned(job, node)) == {reason: 1}


@pytest.mark.parametrize(
    ("operator", "value", "label", "meets"),
    [
        ("=", "ssd", "ssd", True),
        ("!=", "ssd", "hdd", True),
        ("<", "10", "9", True),
        (">", "10", "9", False),
        ("regexp", "^s", "ssd", True),
        ("version", ">= 5.10, < 6", "5.15.2", True),
        ("version", "~> 5.10", "6.1", False),
        ("set_contains", "a,b", "a,b,c", True),
        ("set_contains_any", "x,c", "a,b,c", True),
        ("is_set", "", "ssd", True),
        ("is_not_set", "", "ssd", False),
    ],
)
def test_operators(operator: str, value: str, label: str, *, meets: bool) -> None:
    constraint = Constraint(attribute="node.labels.x", operator=operator, value=value)  # type: ignore[arg-type]
    outcome = planned(a_job(constraints=(constraint,)), a_node(labels={"x": label}))
    assert bool(outcome.placements) is meets


@pytest.mark.parametrize(
    "task",
    [
        a_task(env={"URL": "postgres://app:${secret:key}@db"}),
        a_task(config=TaskConfig(command=("serve", "--key=${secret:key}"))),
        a_task(files=(TaskFile(path="local/conf", content="key = ${secret:key}"),)),
        a_task(files=(TaskFile(path="local/key", secret="key"),)),
        a_task(artifacts=(Artifact(source="https://x:${secret:key}@y/z", checksum="sha256:0"),)),
        a_task(driver="docker", config=TaskConfig(image="x", auth={"password": {"secret": "key"}})),
    ],
)
def test_a_secret_counts_wherever_it_is_named(task: Task) -> None:
    job = a_job(groups=(a_group(tasks=(task,)),))
    assert why(planned(job, a_node())) == {"secret key is missing": 1}
    assert planned(job, a_node(secrets=("key",))).placements


def test_constraints_of_job_group_and_task_must_all_hold() -> None:
    def label(name: str) -> Constraint:
        return Constraint(attribute=f"node.labels.{name}", operator="is_set")

    group = a_group(constraints=(label("group"),), tasks=(a_task(constraints=(label("task"),)),))
    job = a_job(groups=(group,), constraints=(label("job"),))
    full = {"job": "1", "group": "1", "task": "1"}
    assert planned(job, a_node(labels=full)).placements
    for missing in full:
        labels = {name: value for name, value in full.items() if name != missing}
        assert not planned(job, a_node(labels=labels)).placements


def test_distinct_hosts() -> None:
    job = a_job(count=3, constraints=(Constraint(attribute="", operator="distinct_hosts"),))
    outcome = planned(job, a_node("a"), a_node("b"))
    assert sorted(where(outcome)) == ["a", "b"]
    assert outcome.unplaced[0].count == 1


def test_distinct_property() -> None:
    constraint = Constraint(attribute="node.labels.rack", operator="distinct_property", value="1")
    nodes = [a_node(name, labels={"rack": name[0]}) for name in ("a1", "a2", "b1")]
    outcome = planned(a_job(count=3, constraints=(constraint,)), *nodes)
    assert len(outcome.placements) == 2
    assert {node[0] for node in where(outcome)} == {"a", "b"}


def test_affinity_attracts_and_repels() -> None:
    nodes = (a_node("a", labels={"disk": "hdd"}), a_node("b", labels={"disk": "ssd"}))
    likes = Affinity(attribute="node.labels.disk", operator="=", value="ssd", weight=50)
    assert where(planned(a_job(affinities=(likes,)), *nodes)) == ["b"]
    avoids = Affinity(attribute="node.labels.disk", operator="=", value="hdd", weight=-50)
    assert where(planned(a_job(affinities=(avoids,)), *nodes)) == ["b"]


def test_spread_over_racks_is_even() -> None:
    nodes = [a_node(f"n{number}", labels={"rack": str(number % 3)}) for number in range(6)]
    spread = Spread(attribute="node.labels.rack")
    outcome = planned(a_job(count=6, spreads=(spread,)), *nodes)
    racks = [{node.name: node.labels["rack"] for node in nodes}[name] for name in where(outcome)]
    assert sorted(racks) == ["0", "0", "1", "1", "2", "2"]


def test_spread_keeps_to_its_targets() -> None:
    nodes = [a_node(f"n{number}", labels={"dc": "east" if number < 2 else "west"}) for number in range(4)]
    spread = Spread(attribute="node.labels.dc", targets={"east": 75, "west": 25})
    outcome = planned(a_job(count=4, spreads=(spread,)), *nodes)
    assert sum(name in {"n0", "n1"} for name in where(outcome)) == 3


def test_a_static_port_is_given_out_once_a_node() -> None:
    job = a_job(count=3, ports=(Port(name="http", port=8080),))
    outcome = planned(job, a_node("a"), a_node("b"))
    assert sorted(where(outcome)) == ["a", "b"]
    assert why(outcome) == {"port 8080 is taken": 2}


def test_dynamic_ports_are_distinct_on_a_node() -> None:
    outcome = planned(a_job(count=20, cpu=0.01, ports=(Port(name="http"),)), a_node())
    ports = [one.allocation.ports["http"] for one in outcome.placements]
    assert len(set(ports)) == 20
    assert all(20_000 <= port < 32_000 for port in ports)


def test_undeclared_nodes_get_no_work_when_only_declared_ones_may() -> None:
    settings = ClusterSettings(nodes="declared")
    assert planned(a_job(), a_node(), settings=settings).unplaced
    assert planned(a_job(), a_node(declared=True), settings=settings).placements
    assert NodePolicy(name="node-1").eligible


def test_ties_go_to_the_first_name_whatever_the_order_of_nodes() -> None:
    assert where(planned(a_job(), a_node("b"), a_node("a"))) == ["a"]


def test_a_free_port_goes_by_the_allocation_so_that_a_replacement_gets_another() -> None:
    """Whoever listens there may be no task of ours: another cluster on the machine, or any program."""
    job = a_job(ports=(Port(name="http"),))
    state = a_state(nodes=(a_node("a"),), jobs=(job,))
    ids = CountingIds()
    ports = {
        one.allocation.ports["http"]
        for _ in range(3)
        for one in evaluate(job.name, state, NOON, ids).placements
    }
    assert len(ports) == 3


def with_volume(**fields: Any) -> Job:
    return a_job(groups=(a_group(volumes=(Volume(name="data", source="shop-data", **fields),)),))


def lost_on_a(job: Job, **fields: Any) -> Plan:
    """One that ran on node a, whose volume node b offers too, and was lost."""
    nodes = (a_node("a", volumes=("shop-data",), **fields), a_node("b", volumes=("shop-data",)))
    state = a_state(nodes=nodes, jobs=(job,))
    tasks = {"server": TaskState(state="dead")}
    state.put_allocation(an_allocation(job, nodes[0], client_status="lost", tasks=tasks))
    return evaluate("web", state, NOON, CountingIds())


def test_a_written_volume_keeps_its_name_on_its_node() -> None:
    assert where(lost_on_a(with_volume())) == ["a"]
    assert why(lost_on_a(with_volume(), status="down")) == {
        "node is not ready": 1,
        "host volume shop-data is on a": 1,
    }


def test_what_is_only_read_or_not_sticky_or_given_up_goes_anywhere() -> None:
    assert where(lost_on_a(with_volume(read_only=True), status="down")) == ["b"]
    assert where(lost_on_a(with_volume(sticky=False), status="down")) == ["b"]
    assert where(lost_on_a(with_volume(), status="down", lost=True)) == ["b"]


def told(driver: str, **attributes: str) -> Node:
    return a_node(drivers={driver: DriverState(attributes=attributes)})


def a_container(**config: Any) -> Task:
    return a_task(driver="docker", config=TaskConfig(image="busybox", **config))


@pytest.mark.parametrize(
    ("task", "node", "reason"),
    [
        (a_task(), told("process", root="false", runs_as="root"), "process: tasks may not run as root"),
        (
            a_task(user="root"),
            told("process", root="false", runs_as="ann"),
            "process: tasks may not run as root",
        ),
        (
            a_task(user="bob"),
            told("process", root="true", runs_as="root", users="ann"),
            "process: tasks may not run as bob",
        ),
        (
            a_task(user="0"),
            told("process", root="false", runs_as="ann"),
            "process: tasks may not run as root",
        ),
        (
            a_task(user="34"),
            told("process", root="true", runs_as="root", runs_as_uid="0", users="33,www-data"),
            "process: tasks may not run as 34",
        ),
        (
            a_task(config=TaskConfig(command=("x",), ulimits={"nofile": {"soft": 9, "hard": -1}})),
            told("process", root="true", ulimits="nofile=4096,nproc=-1"),
            "process: the limit nofile can be 4096 at most",
        ),
        (
            a_container(privileged=True),
            told("docker", privileged="false"),
            "docker: privileged containers are not allowed",
        ),
        (
            a_container(network_mode="host"),
            told("docker", network_modes="bridge,none"),
            "docker: network_mode host is not allowed",
        ),
        (
            a_container(mounts=({"source": "/etc", "target": "/x"},)),
            told("docker", mounts="/srv"),
            "docker: the path /etc may not be mounted",
        ),
    ],
)
def test_work_is_not_sent_where_policy_would_refuse_it(task: Task, node: Node, reason: str) -> None:
    assert why(planned(a_job(groups=(a_group(tasks=(task,)),)), node)) == {f"policy of driver {reason}": 1}


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"secrets.db": ""}, "policy of secrets: job web may not name db"),
        ({"secrets.db": "api,webs"}, "policy of secrets: job web may not name db"),
        ({"secrets.other": "api"}, ""),
        ({"secrets.db": "api,web"}, ""),
        ({"secrets.db": "*"}, ""),
        ({}, ""),
    ],
)
def test_a_secret_that_the_job_may_not_name(attributes: dict[str, str], reason: str) -> None:
    """Placement keeps to each node's own rules; a node without a rule for it lets every job name it."""
    job = a_job(groups=(a_group(tasks=(a_task(env={"P": "x${secret:db}"}),)),))
    node = a_node(secrets=("db",), attributes=attributes)
    if reason:
        assert why(planned(job, node)) == {reason: 1}
    else:
        assert planned(job, node).placements
    assert check(node, job, job.groups[0], ClusterSettings()) == (reason or None)


@pytest.mark.parametrize(
    "task",
    [
        a_task(env={"A": SecretValue(age="x")}),
        a_task(files=(TaskFile(path="a", age="x"),)),
        a_container(auth={"password": {"age": "x"}}),
    ],
)
def test_what_is_encrypted_with_age_goes_where_there_is_a_key(task: Task) -> None:
    """Only the node can say whether its key is the right one."""
    job = a_job(groups=(a_group(tasks=(task,)),))
    assert why(planned(job, a_node())) == {"constraint node.attributes.age.recipient is_set": 1}
    assert planned(job, a_node(attributes={"age.recipient": "age1x"})).placements


def fetching(*sources: str) -> Task:
    return a_task(artifacts=tuple(Artifact(source=source, checksum="sha256:0") for source in sources))


@pytest.mark.parametrize(
    ("told_of_artifacts", "source", "reason"),
    [
        ({"artifact_paths": ""}, "http://x/y", "artifacts over http are not allowed"),
        ({"artifact_paths": ""}, "file:///srv/y", "file: artifacts are not allowed"),
        (
            {"artifact_paths": "", "artifact_hosts": "a.org,b.org"},
            "https://me:secret@c.org/y",
            "artifacts from the host c.org are not allowed",
        ),
        (
            {"artifact_paths": "", "artifact_hosts": ""},
            "https://x/y",
            "artifacts from the host x are not allowed",
        ),
        ({"artifact_paths": "/srv"}, "file:///etc/y", "artifacts from the path /etc/y are not allowed"),
    ],
)
def test_work_is_not_sent_where_its_artifacts_would_be_refused(
    told_of_artifacts: dict[str, str], source: str, reason: str
) -> None:
    job = a_job(groups=(a_group(tasks=(fetching("https://${HOST_IP}/x", source),)),))
    assert why(planned(job, told("process", **told_of_artifacts))) == {f"policy of artifacts: {reason}": 1}


@pytest.mark.parametrize(
    ("task", "node"),
    [
        (fetching("http://x/y", "file:///y"), a_node()),
        (fetching("https://x/y", "http://${HOST_IP}/y"), told("process", artifact_paths="")),
        (fetching("http://a.org/y"), told("process", artifact_paths="", artifact_hosts="a.org,b.org")),
        (fetching("file:///srv/y"), told("process", artifact_paths="/opt,/srv")),
        (a_task(), told("process", root="true", runs_as="root")),
        (a_task(), told("process", root="false", runs_as="ann", users="bob")),
        (a_task(user="bob"), told("process", root="false", runs_as="root")),
        (a_task(user="033"), told("process", root="false", runs_as="root", users="33,www-data")),
        (a_task(user="1000"), told("process", root="false", runs_as="ann", runs_as_uid="1000", users="bob")),
        (
            a_task(config=TaskConfig(command=("x",), ulimits={"nofile": 4096, "core": -1})),
            told("process", root="true", ulimits="nofile=4096"),
        ),
        (a_task(user="root"), a_node()),
        (a_container(), told("docker", privileged="false", network_modes="bridge,none", mounts="")),
        (a_container(network_mode="task:db"), told("docker", network_modes="bridge")),
        (a_container(mounts=({"source": "/srv/a", "target": "/x"},)), told("docker", mounts="/srv")),
        (a_container(mounts=({"type": "tmpfs", "target": "/x"},)), told("docker", mounts="")),
    ],
)
def test_what_policy_allows_is_placed(task: Task, node: Node) -> None:
    assert planned(a_job(groups=(a_group(tasks=(task,)),)), node).placements
