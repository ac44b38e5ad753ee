"""The state in memory is what a reload of the file gives, whatever was written, failed or dropped before."""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metastore.errors import NameConflict
from metastore.store import SqlStore
from metastore.transaction import StoreTransaction
from tests.builders import NOON, CountingIds, a_job, a_node, a_record, a_version, an_allocation
from tests.unit.metastore.talking import HandClock
from trueup.models.allocation import DeploymentState, wanted_key
from trueup.models.deployment import Deployment, DeploymentGroup
from trueup.models.fit import usage_of
from trueup.models.ids import AllocationId, DeploymentId, NodeId, RevisionId
from trueup.models.template import ClusterSettings

Action = Callable[[StoreTransaction], None]
NODES = [a_node(f"node-{number}") for number in range(2)]
JOBS = [a_job("web", count=3), a_job("logs", type="system"), a_job("sums", type="batch")]


@dataclass(frozen=True)
class Step:
    """One transaction: what it does, and whether it fails at the end."""

    actions: tuple[Action, ...]
    fails: bool


def _allocation(number: int, job: int, node: int, index: int, status: str, desired: str) -> Action:
    allocation = an_allocation(
        JOBS[job],
        NODES[node],
        index=index,
        id=f"a{number}" if job == number % 3 else f"a{job}{number}",
        client_status=status,
        desired_status=desired,
        ports={"http": 20_000 + number},
        deployment=DeploymentState(id=DeploymentId("d"), canary=True) if number == 3 else None,
    )
    return lambda tx: tx.put_allocation(allocation)


def _job(number: int, version: int) -> Action:
    def put(tx: StoreTransaction) -> None:
        tx.put_version(a_version(JOBS[number], version=version))
        tx.put_job(a_record(JOBS[number], version=version))

    return put


def _deployment(number: int, status: Any) -> Action:
    deployment = Deployment(
        id=DeploymentId(f"d{number}"),
        job="web",
        job_version=1,
        status=status,
        groups={"app": DeploymentGroup(desired_total=number)},
        created_at=NOON,
        modified_at=NOON,
    )
    return lambda tx: tx.put_deployment(deployment)


small = st.integers(0, 4)
ACTIONS = st.one_of(
    st.builds(
        _allocation,
        small,
        st.integers(0, 2),
        st.integers(0, 1),
        st.integers(0, 2),
        st.sampled_from(["pending", "running", "complete", "failed", "lost", "unknown"]),
        st.sampled_from(["run", "stop"]),
    ),
    small.map(lambda number: lambda tx: tx.drop_allocation(AllocationId(f"a{number}"))),
    st.builds(_job, st.integers(0, 2), st.integers(1, 3)),
    st.integers(0, 2).map(lambda number: lambda tx: tx.drop_job(JOBS[number].name)),
    st.integers(1, 3).map(lambda version: lambda tx: tx.drop_version("web", version)),
    st.integers(0, 1).map(lambda number: lambda tx: tx.put_node(NODES[number])),
    st.integers(0, 1).map(lambda number: lambda tx: tx.drop_node(NODES[number].id)),
    st.builds(_deployment, st.integers(0, 2), st.sampled_from(["running", "successful"])),
    st.integers(0, 2).map(lambda number: lambda tx: tx.drop_deployment(DeploymentId(f"d{number}"))),
    st.sampled_from([ClusterSettings(), ClusterSettings(placement="spread")]).map(
        lambda settings: lambda tx: tx.put_settings(settings)
    ),
    small.map(lambda number: lambda tx: tx.set_revision(RevisionId(f"r{number}"), None)),
    small.map(lambda number: lambda tx: tx.push(NodeId("n"), AllocationId(f"a{number}"), "start")),
    small.map(lambda number: lambda tx: tx.put_node_secret(NODES[0].id, f"secret-{number}")),
)
STEPS = st.lists(
    st.builds(Step, st.lists(ACTIONS, max_size=5).map(tuple), st.sampled_from([False, False, True])),
    max_size=8,
)


def _take(store: SqlStore, step: Step) -> None:
    with suppress(ZeroDivisionError, NameConflict), store.transaction() as tx:
        for act in step.actions:
            act(tx)
        _ = 1 // (not step.fails)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was just made: copying it is faster than making one for each example."""
    folder = tmp_path_factory.mktemp("fresh")
    SqlStore.open(folder, HandClock(), CountingIds()).close()
    return folder


@settings(max_examples=40)
@given(steps=STEPS)
def test_the_state_equals_a_reload(fresh: Path, steps: list[Step]) -> None:
    """After each transaction, and its totals and indexes equal a recount; no name is wanted twice."""
    with tempfile.TemporaryDirectory(prefix="tu-") as name:
        shutil.copytree(fresh, name, dirs_exist_ok=True)
        store = SqlStore.open(Path(name), HandClock(), CountingIds())
        try:
            for step in steps:
                before = store.state.index
                _take(store, step)
                assert store.state.index in {before, before + 1}
                reader = SqlStore.read_only(Path(name))
                reader.close()
                assert reader.state == store.state
            with store.transaction() as tx:
                assert tx.state == store.state
            _check(store)
            secret, pushes = store.node_secret(NODES[0].id), store.outbox()
        finally:
            store.close()
        again = SqlStore.open(Path(name), HandClock(), CountingIds())
        again.close()
        assert (again.node_secret(NODES[0].id), again.outbox()) == (secret, pushes)


def _check(store: SqlStore) -> None:
    state = store.state
    for node in NODES:
        assert usage_of(state.allocations_on_node(node.id)) == state.usage(node.id)
    keys = [
        key
        for held in state.allocations.values()
        if (key := wanted_key(held, per_node=held.job == "logs")) is not None and held.job in state.jobs
    ]
    assert len(keys) == len(set(keys))
