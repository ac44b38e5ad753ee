"""Files made of the addresses of services: kept as the control plane says, and the task told as its file asks."""

from pathlib import Path

import pytest

from agent.doors import FolderError
from agent.service_files import content_of, renewal, service_files
from tests.builders import a_group, a_task
from tests.unit.agent.fake_driver import Behaviour
from tests.unit.agent.world import World, an_assignment
from trueup.models.ids import AllocationId
from trueup.models.job import Restart, TaskFile, TaskGroup
from trueup.models.service import ServiceAddress, ServiceNews
from trueup.models.units import Duration


def an_address(number: int = 0, *, host: str = "10.0.0.2", **labels: str) -> ServiceAddress:
    return ServiceAddress(
        host=host,
        port=20000 + number,
        job="web",
        group="app",
        allocation=f"web.app[{number}]",
        allocation_id=AllocationId(f"w{number}"),
        node="node-2",
        labels=labels,
    )


def news(version: str, since: str | None = None, **lists: tuple[ServiceAddress, ...]) -> ServiceNews:
    return ServiceNews(version=version, since=since, lists=lists)


def proxies(on_change: str = "SIGHUP", **fields: object) -> TaskGroup:
    """A group of one task with the addresses of `shop` in a file."""
    file = TaskFile(path="local/up.conf", services=("shop",), each="server ${ADDR};", on_change=on_change)
    return a_group(tasks=(a_task(files=(file,)),), **fields)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "agent")
    world.machine.behave = lambda _launch: Behaviour(ignores_signals=True)
    world.settle()
    return world


def tell(world: World, told: ServiceNews) -> None:
    world.control_plane.answers.append(world.control_plane.answer(services=told))
    world.agent.heartbeat.nudge()


def written(world: World) -> list[str]:
    """What the file said each time it was written."""
    return [file.content for _, _, files in world.folders.prepared for file in files]


# What a file says.


def test_without_each_a_line_is_the_address() -> None:
    file = TaskFile(path="a", services=("shop",))
    assert content_of(file, {"shop": (an_address(0), an_address(1))}) == "10.0.0.2:20000\n10.0.0.2:20001\n"
    assert content_of(file, {"shop": ()}) == ""


def test_a_line_may_say_everything_of_its_address() -> None:
    each = (
        "${NAME} ${ADDR} ${HOST} ${PORT} ${ALLOC_NAME} ${ALLOC_ID} ${NODE_NAME} ${LABEL_team} ${LABEL_none}|"
    )
    file = TaskFile(path="a", services=("shop",), each=each)
    address = an_address(host="fd00::1", team="red")
    assert content_of(file, {"shop": (address,)}) == (
        "shop [fd00::1]:20000 fd00::1 20000 web.app[0] w0 node-2 red |\n"
    )


def test_what_is_no_variable_of_an_address_stays_as_written() -> None:
    file = TaskFile(path="a", services=("shop",), each="$host ${JOB_NAME} $${ADDR} ${")
    assert content_of(file, {"shop": (an_address(),)}) == "$host ${JOB_NAME} ${ADDR} ${\n"


def test_lines_are_in_the_order_of_services_and_of_allocations() -> None:
    file = TaskFile(path="a", services=("shop", "db"), each="${NAME} ${ALLOC_NAME}")
    lists = {"db": (an_address(3),), "shop": (an_address(2), an_address(1))}
    assert content_of(file, lists) == "shop web.app[1]\nshop web.app[2]\ndb web.app[3]\n"


def test_a_change_is_what_the_file_says() -> None:
    task = proxies().tasks[0]
    before = service_files(task, {"shop": (an_address(),)})
    relabelled = service_files(task, {"shop": (an_address(team="red"),)})
    assert renewal(task, before.digests, relabelled) is None
    gone = renewal(task, before.digests, service_files(task, {"shop": ()}))
    assert gone is not None
    assert (list(gone.files), gone.signals, gone.restart) == (["local/up.conf"], ("SIGHUP",), False)


def test_reactions_of_several_files_come_together() -> None:
    files = tuple(
        TaskFile(path=path, services=(name,), on_change=reaction)
        for path, name, reaction in [
            ("a", "shop", "SIGHUP"),
            ("b", "shop", "SIGHUP"),
            ("c", "db", "restart"),
            ("d", "shop", "none"),
        ]
    )
    task = a_task(files=files)
    before = service_files(task, {"shop": (), "db": ()})
    shop = renewal(task, before.digests, service_files(task, {"shop": (an_address(),), "db": ()}))
    assert shop is not None
    assert (sorted(shop.files), shop.signals, shop.restart) == (["a", "b", "d"], ("SIGHUP",), False)
    db = renewal(task, before.digests, service_files(task, {"shop": (), "db": (an_address(),)}))
    assert db is not None
    assert (sorted(db.files), db.signals, db.restart) == (["c"], (), True)


# Waiting for the first list.


def test_a_task_waits_until_its_list_is_known_and_says_so(world: World) -> None:
    world.assign(an_assignment(group=proxies()))
    world.run(5)
    assert world.running() == []
    assert [event.type for event in world.task().events] == ["Waiting"]
    assert world.told().tasks["server"].events[-1].message == "to be told the healthy addresses of shop"

    tell(world, news("v1", db=()))
    world.run(1)
    assert world.running() == []
    tell(world, news("v2", shop=()))
    world.run(1)
    assert world.running() == [("a1", "server")]
    assert written(world) == [""]


def test_tasks_without_such_files_do_not_wait(world: World) -> None:
    world.assign(an_assignment())
    world.run(1)
    assert world.running() == [("a1", "server")]


def test_a_task_that_waits_is_stopped_without_a_start(world: World) -> None:
    world.assign(an_assignment(group=proxies()))
    world.run(1)
    world.stop("a1")
    world.run(1)
    assert world.told().client_status == "complete"
    assert world.machine.started == []


# Changes.


def start(world: World, group: TaskGroup) -> None:
    tell(world, news("v1", shop=(an_address(0),)))
    world.run(0.2)
    world.assign(an_assignment(group=group))
    world.run(2)
    assert written(world) == ["server 10.0.0.2:20000;\n"]
    assert world.machine.signals == []


def test_a_change_is_written_and_signalled_once(world: World) -> None:
    start(world, proxies())
    tell(world, news("v2", "v1", shop=(an_address(0), an_address(1))))
    world.run(5)
    assert written(world)[1:] == ["server 10.0.0.2:20000;\nserver 10.0.0.2:20001;\n"]
    assert world.machine.signals == [("a1", "server", "SIGHUP")]
    assert world.control_plane.beats[-1].services == "v2"
    assert len(world.machine.started) == 1


def test_a_change_with_no_reaction_is_only_written(world: World) -> None:
    start(world, proxies("none"))
    tell(world, news("v2", "v1", shop=()))
    world.run(5)
    assert written(world)[1:] == [""]
    assert world.machine.signals == []


def test_a_change_may_restart_and_is_no_restart_attempt(world: World) -> None:
    world.machine.behave = lambda _launch: Behaviour()
    start(world, proxies("restart", restart=Restart(attempts=0)))
    for number in range(2, 5):
        tell(world, news(f"v{number}", f"v{number - 1}", shop=(an_address(number),)))
        world.run(3)
    assert len(world.machine.started) == 4
    assert world.machine.overlaps == []
    assert written(world)[-1] == "server 10.0.0.2:20004;\n"
    assert world.running() == [("a1", "server")]
    assert world.task().restarts == 0
    assert world.told().healthy is True


def test_a_batch_task_that_is_restarted_so_runs_again(world: World) -> None:
    world.machine.behave = lambda _launch: Behaviour()
    tell(world, news("v1", shop=()))
    world.run(0.2)
    world.assign(an_assignment(group=proxies("restart"), job_type="batch"))
    world.run(2)
    tell(world, news("v2", "v1", shop=(an_address(),)))
    world.run(2)
    assert world.running() == [("a1", "server")]


def test_what_changes_nothing_in_the_file_does_nothing(world: World) -> None:
    start(world, proxies())
    tell(world, news("v2", "v1", shop=(an_address(0, team="red"),), db=(an_address(3),)))
    world.run(3)
    assert len(written(world)) == 1
    assert world.machine.signals == []
    assert world.control_plane.beats[-1].services == "v2"


def test_a_task_is_not_signalled_before_it_can_listen(world: World) -> None:
    tell(world, news("v1", shop=()))
    world.run(0.2)
    world.assign(an_assignment(group=proxies()))
    world.run(0.1)
    assert world.running() == [("a1", "server")]
    tell(world, news("v2", "v1", shop=(an_address(),)))
    world.run(0.7)
    assert world.machine.signals == []
    world.run(0.5)
    assert world.machine.signals == [("a1", "server", "SIGHUP")]


def test_many_changes_are_few_signals_and_the_last_one_counts(world: World) -> None:
    start(world, proxies())
    for number in range(2, 22):
        tell(world, news(f"v{number}", f"v{number - 1}", shop=(an_address(number),)))
        world.run(0.05)
    world.run(1)
    assert written(world)[-1] == "server 10.0.0.2:20021;\n"
    assert 2 <= len(world.machine.signals) <= 6


def test_a_task_that_winds_down_is_still_told(world: World) -> None:
    start(world, proxies("restart", shutdown_delay=Duration(seconds=5)))
    world.stop("a1")
    world.run(1)
    tell(world, news("v2", "v1", shop=()))
    world.run(1)
    assert written(world)[1:] == [""]
    assert len(world.machine.started) == 1
    assert world.machine.signals == []


def test_a_task_that_starts_again_by_itself_finds_the_newest(world: World) -> None:
    start(world, proxies("none"))
    tell(world, news("v2", "v1", shop=()))
    world.run(1)
    world.machine.kill_task(AllocationId("a1"), "server")
    world.run(30)
    assert len(world.machine.started) == 2
    assert written(world)[-1] == ""


def test_a_file_that_cannot_be_written_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    start(world, proxies())

    def full(*_arguments: object) -> None:
        raise FolderError("disk full")

    with monkeypatch.context() as context:
        context.setattr(world.folders, "prepare", full)
        tell(world, news("v2", "v1", shop=()))
        world.run(5)
        assert world.machine.signals == []
        assert world.task().events[-1].message == "disk full"
    world.run(3)
    assert written(world)[-1] == ""
    assert world.machine.signals == [("a1", "server", "SIGHUP")]


# What is kept.


def test_lists_outlive_the_agent_and_the_control_planes_absence(world: World) -> None:
    start(world, proxies())
    world.crash()
    world.control_plane.reachable = False
    world.start_agent()
    world.run(5)
    # Nothing changed: nothing is written, nobody is signalled.
    assert len(written(world)) == 1
    assert world.machine.signals == []

    world.machine.kill_task(AllocationId("a1"), "server")
    world.control_plane.reachable = True
    world.run(30)
    assert world.control_plane.beats[-1].services == "v1"
    assert written(world)[1:] == ["server 10.0.0.2:20000;\n"]
    assert world.running() == [("a1", "server")]


def test_a_change_that_was_taken_in_and_not_acted_on_is_after_a_crash(world: World) -> None:
    start(world, proxies())
    world.control_plane.reachable = False
    world.agent.runner.tell_services(news("v2", "v1", shop=()))
    world.kill_at = 1  # After the commit that has the list, before what it asks for.
    with pytest.raises(BaseException, match="after commit"):
        world.run(1)
    assert len(written(world)) == 1
    world.crash()
    world.start_agent()
    world.run(2)
    assert written(world)[1:] == [""]
    assert world.machine.signals == [("a1", "server", "SIGHUP")]


def test_a_change_of_one_allocation_leaves_the_others(world: World) -> None:
    start(world, proxies("none"))
    moved = an_address(0, host="10.0.0.3")
    now: dict[AllocationId, tuple[ServiceAddress, ...]] = {
        AllocationId("w1"): (an_address(1),),
        AllocationId("w0"): (moved,),
    }
    tell(world, ServiceNews(version="v2", since="v1", changes={"shop": now}))
    world.run(2)
    assert written(world)[-1] == "server 10.0.0.3:20000;\nserver 10.0.0.2:20001;\n"
    tell(world, ServiceNews(version="v3", since="v2", changes={"shop": {AllocationId("w0"): ()}}))
    world.run(2)
    assert written(world)[-1] == "server 10.0.0.2:20001;\n"


def test_changes_to_what_was_never_taken_in_are_left(world: World) -> None:
    start(world, proxies())
    tell(world, news("v3", "v2", shop=()))
    world.run(2)
    assert len(written(world)) == 1
    assert world.control_plane.beats[-1].services == "v1"


def test_a_list_that_is_still_needed_is_not_dropped(world: World) -> None:
    start(world, proxies())
    tell(world, news("", None))
    world.run(2)
    assert len(written(world)) == 1
    world.stop("a1")
    world.run(7)
    tell(world, news("v2", None, db=()))
    world.run(1)
    assert list(world.agent.runner._services.lists) == ["db"]


def test_an_adopting_control_plane_takes_no_address_away(world: World) -> None:
    start(world, proxies())
    world.control_plane.adopting = True
    tell(world, news("v2", None, shop=()))
    world.run(2)
    assert len(written(world)) == 1
    assert world.control_plane.beats[-1].services == "v1"


def test_an_update_in_place_keeps_what_was_told(world: World) -> None:
    start(world, proxies())
    world.assign(an_assignment(group=proxies(shutdown_delay=Duration(seconds=9)), version=2))
    world.run(2)
    tell(world, news("v2", "v1", shop=()))
    world.run(2)
    assert written(world)[1:] == [""]
    assert world.machine.signals == [("a1", "server", "SIGHUP")]


def test_a_nudge_makes_the_next_beat_due_now(world: World) -> None:
    world.run(1)
    before = len(world.control_plane.beats)
    world.agent.heartbeat.nudge()
    world.agent.heartbeat.nudge()
    world.run(0.1)
    assert len(world.control_plane.beats) == before + 1


def test_a_mode_is_kept(world: World) -> None:
    group = proxies()
    [file] = group.tasks[0].files
    tell(world, news("v1", shop=()))
    world.run(0.2)
    group = a_group(tasks=(a_task(files=(_with_mode(file, "0640"),)),))
    world.assign(an_assignment(group=group))
    world.run(1)
    [(_, _, [content])] = world.folders.prepared
    assert content.mode == 0o640


def _with_mode(file: TaskFile, mode: str) -> TaskFile:
    return TaskFile(path=file.path, services=file.services, each=file.each, mode=mode)
