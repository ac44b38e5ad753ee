"""What nodes are told of services: what their tasks name, only when it changed, and again until it arrived."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from agent.journal import ChangeSet, open_journal
from agent.service_lists import ServiceLists
from api.services import services_of
from metastore.membership import Membership
from metastore.service_telling import ServiceTelling
from metastore.store import SqlStore
from tests.builders import CountingIds, a_group, a_job, a_node, a_record, a_task, a_version, an_allocation
from tests.unit.metastore.talking import HandClock, Talker, place, stop
from trueup.models.agent_error import AgentUnreachable
from trueup.models.allocation import Allocation
from trueup.models.ids import AllocationId, NodeId
from trueup.models.job import Job, Port, Service, TaskFile
from trueup.models.node import Node
from trueup.models.service import ServiceNews

READER = NodeId("id-node-1")


class Nudged:
    """Notes who was nudged."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.is_away = False

    def nudge(self, node: Node) -> None:
        if self.is_away:
            raise AgentUnreachable("connection refused")
        self.names.append(node.name)


@pytest.fixture
def nudged() -> Nudged:
    return Nudged()


@pytest.fixture
def telling(store: SqlStore, clock: HandClock, nudged: Nudged) -> ServiceTelling:
    return ServiceTelling(store, nudged, clock, submit=lambda work: work())


def web(name: str = "web", *, service: str = "shop") -> Job:
    """A job that offers *service* on its port."""
    return a_job(
        name, groups=(a_group(ports=(Port(name="http"),), services=(Service(name=service, port="http"),)),)
    )


def proxy(*services: str, name: str = "proxy") -> Job:
    """A job whose task has the addresses of *services* in a file."""
    file = TaskFile(path="up.conf", services=services)
    return a_job(name, groups=(a_group(tasks=(a_task(files=(file,)),)),))


def offer(store: SqlStore, job: Job, number: int, **fields: Any) -> Allocation:
    """A healthy allocation of *job* on node-2."""
    with store.transaction() as tx:
        if NodeId("id-node-2") not in tx.state.nodes:
            tx.put_node(a_node("node-2", endpoint="http://10.0.0.2:7431"))
        allocation = an_allocation(
            job, a_node("node-2"), index=number, ports={"http": 20000 + number}, **fields
        )
        tx.put_version(a_version(job))
        tx.put_job(a_record(job))
        tx.put_allocation(allocation)
    return allocation


def reader(store: SqlStore, *services: str, name: str = "proxy") -> Allocation:
    """A proxy placed on node-1, which takes nudges."""
    with store.transaction() as tx:
        if READER not in tx.state.nodes:
            tx.put_node(a_node(endpoint="http://10.0.0.1:7431"))
    return place(store, proxy(*services, name=name))


def told(news: ServiceNews | None) -> dict[str, list[str]]:
    """The addresses by service."""
    assert news is not None
    return {name: [one.address for one in addresses] for name, addresses in news.lists.items()}


def changed(news: ServiceNews | None) -> dict[str, dict[str, list[str]]]:
    """The addresses by service and allocation."""
    assert news is not None
    return {
        name: {key: [one.address for one in addresses] for key, addresses in by_allocation.items()}
        for name, by_allocation in news.changes.items()
    }


def test_a_node_without_readers_is_told_nothing(store: SqlStore, telling: ServiceTelling) -> None:
    offer(store, web(), 0)
    assert telling.news(READER, "") is None


def test_a_node_is_told_the_healthy_addresses_of_what_its_tasks_name(
    store: SqlStore, telling: ServiceTelling
) -> None:
    offer(store, web(), 1)
    offer(store, web(), 0)
    offer(store, web(), 2, healthy=False)
    offer(store, web("db", service="db"), 3)
    reader(store, "shop")
    news = telling.news(READER, "")
    assert told(news) == {"shop": ["10.0.0.2:20000", "10.0.0.2:20001"]}
    assert news is not None
    assert news.since is None


def test_a_service_nobody_offers_is_told_as_empty(store: SqlStore, telling: ServiceTelling) -> None:
    reader(store, "shop")
    assert told(telling.news(READER, "")) == {"shop": []}


def test_what_the_agent_keeps_is_not_told_again(store: SqlStore, telling: ServiceTelling) -> None:
    offer(store, web(), 0)
    reader(store, "shop")
    news = telling.news(READER, "")
    assert news is not None
    assert telling.news(READER, news.version) is None
    # Also what changes no address of it.
    offer(store, web("db", service="db"), 3)
    assert telling.news(READER, news.version) is None


def test_only_lists_that_changed_are_told(store: SqlStore, telling: ServiceTelling) -> None:
    offer(store, web("db", service="db"), 3)
    reader(store, "shop", "db")
    first = telling.news(READER, "")
    assert first is not None
    offer(store, web(), 0)
    second = telling.news(READER, first.version)
    assert changed(second) == {"shop": {"web.app[0]@node-2": ["10.0.0.2:20000"]}}
    assert second is not None
    assert (second.since, second.lists) == (first.version, {})


def test_a_lost_answer_is_told_again(store: SqlStore, telling: ServiceTelling) -> None:
    reader(store, "shop", "db")
    first = telling.news(READER, "")
    assert first is not None
    offer(store, web(), 0)
    lost = telling.news(READER, first.version)
    assert lost is not None
    again = telling.news(READER, first.version)
    assert told(again) == {"db": [], "shop": ["10.0.0.2:20000"]}
    assert again is not None
    assert (again.version, again.since) == (lost.version, None)


def test_versions_mean_the_same_after_a_restart(
    store: SqlStore, telling: ServiceTelling, clock: HandClock, nudged: Nudged
) -> None:
    offer(store, web(), 0)
    reader(store, "shop")
    news = telling.news(READER, "")
    assert news is not None
    restarted = ServiceTelling(store, nudged, clock, submit=lambda work: work())
    assert restarted.news(READER, news.version) is None


def test_an_address_is_gone_once_its_allocation_is_told_to_stop(
    store: SqlStore, telling: ServiceTelling
) -> None:
    held = offer(store, web(), 0)
    reader(store, "shop")
    first = telling.news(READER, "")
    assert first is not None
    stop(store, held)
    assert store.state.allocations[held.id].client_status == "running"
    assert changed(telling.news(READER, first.version)) == {"shop": {held.id: []}}


def test_what_one_of_many_does_is_told_alone(store: SqlStore, telling: ServiceTelling) -> None:
    held = [offer(store, web(), number) for number in range(50)]
    reader(store, "shop")
    first = telling.news(READER, "")
    assert first is not None
    stop(store, held[7])
    stop(store, held[9])
    second = telling.news(READER, first.version)
    assert changed(second) == {"shop": {held[7].id: [], held[9].id: []}}


def test_whatever_gets_lost_the_agent_ends_up_with_what_is(
    store: SqlStore, telling: ServiceTelling, tmp_path: Path
) -> None:
    random = Random(7)
    journal = open_journal(tmp_path / "agent")
    agent = ServiceLists(journal)
    jobs = [web(name, service=name) for name in ("a", "b", "c")]
    for name in ("a", "b"):
        reader(store, name, name=f"reads-{name}")
    other = reader(store, "b", "c", name="reads-both")
    with store.transaction() as tx:
        tx.put_node(a_node(endpoint="http://10.0.0.1:7431"))
    for _ in range(400):
        match random.randrange(6):
            case 0:
                status = random.choice(("running", "complete"))
                with store.transaction() as tx:
                    tx.put_allocation(msgspec.structs.replace(other, client_status=status))
            case 1 | 2 | 3:
                offer(store, random.choice(jobs), random.randrange(5), healthy=random.choice((True, False)))
            case _:
                news = telling.news(READER, agent.version)
                if news is not None and random.random() < 0.6:
                    agent.take(news, ChangeSet())
                    expected = services_of(store.state)
                    for name in telling_names(store):
                        found = [one.address for one in agent.lists[name]]
                        assert found == [one.address for one in expected[name].addresses]
    journal.close()


def telling_names(store: SqlStore) -> set[str]:
    """What node-1 reads."""
    both = store.state.allocations[AllocationId("reads-both.app[0]@node-1")]
    return {"a", "b"} if both.is_terminal else {"a", "b", "c"}


def test_a_node_whose_last_reader_ended_is_told_to_forget(store: SqlStore, telling: ServiceTelling) -> None:
    held = reader(store, "shop")
    news = telling.news(READER, "")
    assert news is not None
    with store.transaction() as tx:
        tx.put_allocation(msgspec.structs.replace(held, client_status="complete"))
    assert telling.news(READER, news.version) == ServiceNews(version="")
    assert telling.news(READER, "") is None


def test_a_service_no_longer_read_leaves_the_whole_to_be_told(
    store: SqlStore, telling: ServiceTelling
) -> None:
    reader(store, "shop")
    other = reader(store, "db", name="other")
    first = telling.news(READER, "")
    assert first is not None
    with store.transaction() as tx:
        tx.drop_allocation(other.id)
    second = telling.news(READER, first.version)
    assert told(second) == {"shop": []}
    assert second is not None
    assert second.since is None


def test_readers_are_nudged_once_for_a_change(
    store: SqlStore, telling: ServiceTelling, nudged: Nudged
) -> None:
    reader(store, "shop")
    telling.step()
    assert nudged.names == ["node-1"]
    offer(store, web("db", service="db"), 3)
    telling.step()
    assert nudged.names == ["node-1"]
    offer(store, web(), 0)
    telling.step()
    telling.step()
    assert nudged.names == ["node-1", "node-1"]


def test_a_beat_that_came_first_spares_the_nudge(
    store: SqlStore, telling: ServiceTelling, nudged: Nudged
) -> None:
    reader(store, "shop")
    telling.news(READER, "")
    telling.step()
    assert nudged.names == []


def test_a_change_during_a_nudge_is_nudged_after_it(
    store: SqlStore, clock: HandClock, nudged: Nudged
) -> None:
    waiting: list[Callable[[], None]] = []
    telling = ServiceTelling(store, nudged, clock, submit=waiting.append)
    reader(store, "shop")
    telling.step()
    offer(store, web(), 0)
    assert telling.step() is not None
    assert len(waiting) == 1
    waiting.pop()()
    assert telling.step() is None
    assert len(waiting) == 1


def test_an_agent_that_takes_no_nudge_is_left_alone_and_beats_faster(
    store: SqlStore, telling: ServiceTelling, clock: HandClock, nudged: Nudged
) -> None:
    reader(store, "shop")
    assert telling.beat_seconds(READER, 3.3) == 3.3
    nudged.is_away = True
    telling.step()
    assert telling.beat_seconds(READER, 3.3) == 1.0
    nudged.is_away = False
    offer(store, web(), 0)
    telling.step()
    assert nudged.names == []
    clock.move(seconds=11)
    offer(store, web(), 1)
    telling.step()
    assert nudged.names == ["node-1"]
    assert telling.beat_seconds(READER, 3.3) == 3.3


def test_nothing_is_told_before_it_is_known_what_is_wanted(
    store: SqlStore, clock: HandClock, nudged: Nudged
) -> None:
    undecided = True
    telling = ServiceTelling(store, nudged, clock, undecided=lambda: undecided, submit=lambda work: work())
    reader(store, "shop")
    assert telling.step() is not None
    assert telling.news(READER, "") is None
    assert nudged.names == []
    undecided = False
    telling.step()
    assert nudged.names == ["node-1"]


def test_what_was_adopted_is_found_once_its_job_is_known(store: SqlStore, telling: ServiceTelling) -> None:
    job = web()
    reader(store, "shop")
    with store.transaction() as tx:
        tx.put_node(a_node("node-2", endpoint="http://10.0.0.2:7431"))
        tx.put_allocation(an_allocation(job, a_node("node-2"), version=7, ports={"http": 20000}))
    assert told(telling.news(READER, "")) == {"shop": []}
    with store.transaction() as tx:
        tx.put_version(a_version(job))
        tx.put_job(a_record(job))
    assert told(telling.news(READER, "")) == {"shop": ["10.0.0.2:20000"]}


def test_a_port_bound_elsewhere_is_dialled_there(store: SqlStore, telling: ServiceTelling) -> None:
    group = a_group(ports=(Port(name="http", bind="::1"),), services=(Service(name="shop", port="http"),))
    offer(store, a_job(groups=(group,)), 0)
    reader(store, "shop")
    assert told(telling.news(READER, "")) == {"shop": ["[::1]:20000"]}


def test_heartbeats_carry_the_news_until_the_agent_says_it_has_them(
    store: SqlStore, telling: ServiceTelling, clock: HandClock
) -> None:
    membership = Membership(store, clock, CountingIds(first=10**6), services=telling)
    talker = Talker(membership)
    talker.join()
    clock.move(seconds=60)
    held = reader(store, "shop")
    talker.hold(held)
    first = talker.beat()
    assert told(first.services) == {"shop": []}
    assert talker.beat().services == first.services
    assert first.services is not None
    index = store.state.index
    quiet = talker.beat(services=first.services.version)
    assert quiet.services is None
    assert store.state.index == index
