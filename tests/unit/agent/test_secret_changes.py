"""Values of secrets that change while tasks run: who is told, how, when, and what is kept of them."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.secret_changes import SeenSecret, reactions, secret_renewal
from agent.value_digests import open_value_digests, throwaway_digests
from tests.builders import NOON, a_group, a_task
from tests.unit.agent.fake_driver import Behaviour
from tests.unit.agent.world import World, an_assignment
from trueup.models.ids import AllocationId
from trueup.models.job import Artifact, Restart, SecretValue, Task, TaskConfig, TaskFile
from trueup.models.units import Duration

A1 = AllocationId("a1")


def a_user(**fields: Any) -> Task:
    """A task that has the secret `db` in its environment, `tls` in one file and both in another."""
    files = (
        TaskFile(path="tls.key", secret="tls", on_change=fields.pop("on_change", "none")),
        TaskFile(path="app.conf", content="${secret:db} ${secret:tls}"),
        TaskFile(path="plain", content="x"),
    )
    return a_task(env={"DB": SecretValue(secret="db")}, files=files, splay=Duration(), **fields)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "agent")
    world.secrets.values |= {"db": "marker-db-1", "tls": "marker-tls-1"}
    world.machine.behave = lambda _launch: Behaviour(ignores_signals=True)
    world.settle()
    return world


def begin(world: World, *tasks: Task, **fields: Any) -> None:
    world.assign(an_assignment(group=a_group(tasks=tasks, **fields)))
    world.run(3)
    world.folders.prepared.clear()
    assert world.machine.signals == []


def change(world: World, seconds: float = 8, **values: str) -> None:
    world.secrets.values |= values
    world.run(seconds)


def written(world: World) -> list[tuple[str, str]]:
    return [(file.path, file.content) for _, _, files in world.folders.prepared for file in files]


# What follows.


def test_a_file_has_a_reaction_of_its_own_and_all_else_that_of_the_task() -> None:
    assert reactions(a_user()) == {}
    assert reactions(a_user(on_change="SIGHUP")) == {"tls": ("SIGHUP",)}
    assert reactions(a_user(on_secret_change="restart")) == {"db": ("restart",), "tls": ("restart",)}
    both = a_user(on_change="SIGHUP", on_secret_change="restart")
    assert reactions(both) == {"db": ("restart",), "tls": ("SIGHUP", "restart")}


def test_what_is_named_in_config_counts_and_what_artifacts_are_fetched_with_does_not() -> None:
    task = a_task(
        config=TaskConfig(image="x", auth={"password": {"secret": "registry"}}),
        artifacts=(Artifact(source="https://x:${secret:fetch}@y/z", checksum="sha256:0"),),
        on_secret_change="restart",
    )
    assert reactions(task) == {"registry": ("restart",)}


def test_allocations_react_within_the_splay_each_at_a_time_of_its_own() -> None:
    """The same time however often the agent starts, counted from when it saw the change."""
    task = a_task(env={"A": SecretValue(secret="db")}, on_secret_change="restart", splay=Duration(minutes=1))
    seen = {"db": SeenSecret(digest="k:2", since=NOON)}
    delays = set()
    for number in range(100):
        found = [secret_renewal(task, {"db": "k:1"}, seen, AllocationId(f"a{number}")) for _ in range(2)]
        assert found[0] == found[1]
        assert found[0] is not None
        delays.add(found[0].at - NOON)
    assert len(delays) == 100
    assert timedelta() <= min(delays) < timedelta(seconds=10)
    assert timedelta(seconds=50) < max(delays) < timedelta(minutes=1)


def test_a_value_that_changed_restarts_the_task_with_it(world: World) -> None:
    """That is no restart attempt, and the event names the secret and no value."""
    world.machine.behave = lambda _launch: Behaviour()
    begin(world, a_user(on_secret_change="restart"), restart=Restart(attempts=0))
    change(world, db="marker-db-2")
    assert len(world.machine.started) == 2
    assert ("app.conf", "marker-db-2 marker-tls-1") in written(world)
    assert world.task().restarts == 0
    assert any(event.message == "with SIGTERM: secret db changed" for event in world.task().events)
    change(world, 20)
    assert len(world.machine.started) == 2


def test_a_value_that_changed_is_written_and_signalled(world: World) -> None:
    """Every file that has it, and none that has not."""
    begin(world, a_user(on_change="SIGHUP"))
    change(world, tls="marker-tls-2", db="marker-db-2")
    assert written(world) == [("tls.key", "marker-tls-2"), ("app.conf", "marker-db-2 marker-tls-2")]
    assert world.machine.signals == [("a1", "server", "SIGHUP")]
    change(world, 20)
    assert len(world.machine.signals) == 1
    assert len(world.machine.started) == 1


def test_nothing_is_done_where_nothing_is_asked(world: World) -> None:
    begin(world, a_user())
    change(world, 60, db="marker-db-2", tls="marker-tls-2")
    assert written(world) == []
    assert len(world.machine.started) == 1


def test_a_value_that_cannot_be_read_has_not_changed(world: World) -> None:
    """Nor has one that is there again."""
    begin(world, a_user(on_secret_change="restart"))
    held = dict(world.secrets.values)
    world.secrets.values.clear()
    world.run(20)
    change(world, 20, **held)
    assert len(world.machine.started) == 1
    assert world.machine.signals == []


# What is kept.


def test_a_change_while_the_agent_was_away(world: World) -> None:
    """It is seen by the next; what did not change is not taken for a change."""
    begin(world, a_user(on_secret_change="SIGHUP"))
    world.crash()
    world.start_agent()
    world.run(20)
    assert world.machine.signals == []
    world.crash()
    world.secrets.values["db"] = "marker-db-2"
    world.start_agent()
    world.run(20)
    assert world.machine.signals == [("a1", "server", "SIGHUP")]
    world.crash()
    world.start_agent()
    world.run(20)
    assert len(world.machine.signals) == 1


def test_a_lost_key_restarts_nothing(world: World) -> None:
    """With another one nothing can be compared: what is there counts as told, and the next change is seen."""
    begin(world, a_user(on_secret_change="SIGHUP"))
    world.crash()
    (world.data / "digest.key").unlink()
    world.start_agent()
    world.run(20)
    assert world.machine.signals == []
    change(world, db="marker-db-2")
    assert world.machine.signals == [("a1", "server", "SIGHUP")]


def test_asked_for_while_it_runs(world: World) -> None:
    """A change in place: no task is touched, and from then on values are watched."""
    begin(world, a_user())
    world.assign(an_assignment(group=a_group(tasks=(a_user(on_secret_change="SIGHUP"),)), version=2))
    world.run(20)
    assert world.machine.signals == []
    change(world, db="marker-db-2")
    assert world.machine.signals == [("a1", "server", "SIGHUP")]
    assert len(world.machine.started) == 1


def test_no_value_and_no_plain_digest_is_on_disk(world: World) -> None:
    begin(world, a_user(on_secret_change="restart"))
    change(world, db="marker-db-2")
    for file in world.data.rglob("*"):
        assert not file.is_file() or b"marker" not in file.read_bytes()
    key = world.data / "digest.key"
    assert key.stat().st_mode & 0o777 == 0o600
    digest = open_value_digests(world.data).of("marker-db-2")
    assert open_value_digests(world.data).of("marker-db-2") == digest
    assert throwaway_digests().of("marker-db-2").split(":")[0] != digest.split(":")[0]
    assert throwaway_digests().of("marker-db-2").split(":")[1] != digest.split(":")[1]
