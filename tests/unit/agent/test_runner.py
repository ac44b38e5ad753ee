"""The runner with everything in memory: what runs follows what is assigned, whatever happens to the agent."""

import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.doors import ArtifactError, ArtifactsUnwanted, DriverError, TaskHandle, TaskStatus
from agent.instructions import Answer
from agent.runner import Runner
from tests.builders import a_group, a_task
from tests.unit.agent.fake_driver import Behaviour, FakeDriver
from tests.unit.agent.world import World, an_assignment
from trueup.models.ids import AllocationId
from trueup.models.job import Artifact, Check, Disconnect, Lifecycle, Port, Restart, TaskGroup
from trueup.models.node import DriverState
from trueup.models.units import Duration
from trueup.models.wire import holdings_digest


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "agent")
    world.settle()
    return world


def test_an_assignment_runs_and_is_told_as_healthy_after_its_time(world: World) -> None:
    world.assign(an_assignment())
    world.run(0.5)

    assert world.running() == [("a1", "server")]
    assert world.told().client_status == "running"
    assert world.told().healthy is None

    world.run(1)
    assert world.told().healthy is True
    assert world.told().tasks["server"].pid == 101


def test_a_repeated_assignment_starts_nothing_twice(world: World) -> None:
    for _ in range(3):
        world.assign(an_assignment())
        world.run(1)

    assert len(world.machine.started) == 1


def test_a_stop_signals_and_kills_only_what_does_not_listen(world: World) -> None:
    stubborn = Behaviour(ignores_signals=True)
    world.machine.behave = lambda launch: stubborn if launch.allocation_id == "a2" else Behaviour()
    world.assign(an_assignment("a1"), an_assignment("a2"))
    world.run(2)
    world.stop("a1", "a2")

    world.run(4.9)
    assert world.running() == [("a2", "server")]
    world.run(0.2)
    assert world.running() == []
    assert world.machine.signals == [
        ("a1", "server", "SIGTERM"),
        ("a2", "server", "SIGTERM"),
        ("a2", "server", "SIGKILL"),
    ]
    assert world.told("a2").client_status == "complete"
    assert world.told("a2").reason == "not needed"


def test_shutdown_delay_comes_before_the_signal(world: World) -> None:
    world.assign(an_assignment(group=a_group(shutdown_delay=Duration(seconds=3))))
    world.run(1)
    world.stop("a1")

    world.run(2.9)
    assert world.machine.signals == []
    world.run(0.2)
    assert world.running() == []


def test_a_stop_before_its_start_is_never_undone(world: World) -> None:
    world.stop("a1")
    world.run(0.1)
    world.assign(an_assignment())
    world.run(5)

    assert world.machine.started == []
    assert world.told().client_status == "complete"

    world.crash()
    world.start_agent()
    world.assign(an_assignment())
    world.run(5)
    assert world.machine.started == []


def test_a_failed_task_restarts_after_its_delay_and_then_the_allocation_fails(world: World) -> None:
    world.machine.behave = lambda _launch: Behaviour(run_for=timedelta(seconds=1), exit_code=3)
    restart = Restart(attempts=1, interval=Duration(minutes=10), delay=Duration(seconds=5))
    world.assign(an_assignment(group=a_group(restart=restart)))

    world.run(5.9)
    assert len(world.machine.started) == 1
    world.run(0.2)
    assert len(world.machine.started) == 2
    world.run(2)
    assert world.told().client_status == "failed"
    assert world.told().healthy is False
    assert world.told().tasks["server"].restarts == 1
    assert world.told().tasks["server"].exit_code == 3


@pytest.mark.parametrize(("exit_code", "status"), [(0, "complete"), (1, "failed")])
def test_a_batch_ends_by_its_exit_code(world: World, exit_code: int, status: str) -> None:
    world.machine.behave = lambda _launch: Behaviour(run_for=timedelta(seconds=1), exit_code=exit_code)
    world.assign(an_assignment(job_type="batch", group=a_group(restart=Restart(attempts=0))))
    world.run(3)

    assert world.told().client_status == status
    assert world.told().healthy is (exit_code == 0)


def test_what_evicts_others_starts_once_all_of_them_have_ended(world: World) -> None:
    world.machine.behave = lambda _launch: Behaviour(ends_after=timedelta(seconds=2))
    for name in ("a", "b"):
        world.assign(an_assignment(name))
    world.settle()
    world.assign(an_assignment("new", preempts=(AllocationId("a"), AllocationId("b"))))
    world.stop("a")
    world.run(3)
    assert world.running() == [("b", "server")]
    world.stop("b")
    world.run(3)
    assert world.running() == [("new", "server")]


def test_a_replacement_starts_once_what_it_replaces_has_ended(world: World) -> None:
    world.machine.behave = lambda _launch: Behaviour(ends_after=timedelta(seconds=2))
    world.assign(an_assignment("old"))
    world.run(1)
    world.assign(an_assignment("new", replaces=AllocationId("old")))
    world.run(1)
    assert world.running() == [("old", "server")]

    world.stop("old")
    world.run(1.9)
    assert world.running() == [("old", "server")]
    world.run(0.2)
    assert world.running() == [("new", "server")]


def test_a_replacement_of_a_replacement_waits_for_the_first_one_too(world: World) -> None:
    """The one between never started, so its end says nothing about the room."""
    world.machine.behave = lambda _launch: Behaviour(ends_after=timedelta(seconds=2))
    world.assign(an_assignment("first"))
    world.run(1)
    world.assign(an_assignment("second", replaces=AllocationId("first")))
    world.stop("first", "second")
    world.assign(an_assignment("third", replaces=AllocationId("second")))
    world.run(1)
    assert world.running() == [("first", "server")]

    world.run(1.5)
    assert world.running() == [("third", "server")]


def test_an_in_place_update_touches_no_task_and_changes_the_digest(world: World) -> None:
    world.assign(an_assignment())
    world.run(2)
    before = world.task()
    world.assign(an_assignment(version=2, group=a_group(tasks=(a_task(kill_timeout=Duration(seconds=1)),))))
    world.run(4)

    assert world.task() == before
    assert len(world.machine.started) == 1
    [key] = world.agent.reports.sheet().keys
    assert key.version == 2
    assert world.control_plane.beats[-1].holdings_digest == holdings_digest([key])

    world.assign(an_assignment(version=1))
    world.run(1)
    assert world.held().job_version == 2


def test_a_wake_is_about_its_allocation_and_no_other(world: World) -> None:
    world.assign(*(an_assignment(f"a{number}") for number in range(20)))
    world.run(5)
    world.reached.clear()

    world.machine.kill_task(AllocationId("a7"), "server")
    world.settle()
    assert world.reached.count("before status") == 1
    assert world.task("a7").state == "pending"


def test_an_end_between_the_look_of_a_start_and_its_answer_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_by_the_start = FakeDriver.status

    def status(driver: FakeDriver, handle: TaskHandle) -> TaskStatus:
        seen = seen_by_the_start(driver, handle)
        world.machine.kill_task(handle.allocation_id, handle.task)
        return seen

    monkeypatch.setattr(FakeDriver, "status", status)
    world.assign(an_assignment(job_type="batch", group=a_group(restart=Restart(attempts=0))))
    world.run(1)

    assert world.held().client_status == "failed"


def test_an_end_between_the_answer_of_a_start_and_its_step_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_answer = Runner._answered

    def answered(
        runner: Runner, allocation_id: AllocationId, task: str, answer: Answer | None, *, was_busy: bool
    ) -> None:
        take_answer(runner, allocation_id, task, answer, was_busy=was_busy)
        world.machine.kill_task(allocation_id, task)

    monkeypatch.setattr(Runner, "_answered", answered)
    world.assign(an_assignment(job_type="batch", group=a_group(restart=Restart(attempts=0))))
    world.run(1)

    assert world.held().client_status == "failed"


def test_idle_tasks_cost_nothing(world: World) -> None:
    """No look at any driver and no write, however long nothing happens."""
    world.assign(*(an_assignment(f"a{number}") for number in range(50)))
    world.run(10)
    world.reached.clear()

    world.run(600)
    assert world.reached == []


def test_a_start_that_fails_for_a_passing_reason_is_repeated_as_the_same_attempt(world: World) -> None:
    errors = [DriverError("engine is away", temporary=True)] * 2
    world.machine.behave = lambda _launch: Behaviour(fails=errors.pop() if errors else None)
    world.assign(an_assignment())
    world.run(10)

    assert world.machine.started == [("a1", "server", 1)]
    assert world.told().tasks["server"].restarts == 0


def test_a_start_that_fails_for_good_uses_the_restart_policy(world: World) -> None:
    world.machine.behave = lambda _launch: Behaviour(fails=DriverError("no such program"))
    restart = Restart(attempts=1, interval=Duration(minutes=10), delay=Duration(seconds=5))
    world.assign(an_assignment(group=a_group(restart=restart)))
    world.run(10)

    assert world.told().client_status == "failed"
    kinds = [event.message for event in world.told().tasks["server"].events if event.type == "Driver failure"]
    assert kinds == ["no such program", "no such program"]


def a_fetching_group(restart: Restart | None = None) -> TaskGroup:
    artifact = Artifact(source="https://me:${secret:db}@example.org/a.tgz?x=1", checksum="sha256:0")
    task = a_task(artifacts=(artifact,))
    return a_group(tasks=(task,), restart=restart or Restart())


def events_of(world: World) -> list[tuple[str, str]]:
    return [(event.type, event.message) for event in world.told().tasks["server"].events]


def test_artifacts_are_in_place_before_a_task_starts(world: World) -> None:
    world.secrets.values["db"] = "hunter2"
    world.assign(an_assignment(group=a_fetching_group()))
    world.run(1)

    ((wanted,),) = world.artifacts.provided
    assert wanted.source == "https://me:hunter2@example.org/a.tgz?x=1"
    assert world.running() == [("a1", "server")]
    # Its folder is made before, its files are written after.
    assert [files for _, _, files in world.folders.prepared] == [(), ()]
    assert events_of(world) == [("Downloading artifacts", "https://example.org/a.tgz"), ("Started", "")]


def test_a_download_that_fails_for_a_passing_reason_is_repeated_and_told_once(world: World) -> None:
    world.secrets.values["db"] = "hunter2"
    world.artifacts.fails = [ArtifactError("its server is away", temporary=True) for _ in range(6)]
    world.assign(an_assignment(group=a_fetching_group()))
    world.run(10)
    assert world.machine.started == []
    world.run(60)

    assert world.machine.started == [("a1", "server", 1)]
    assert world.told().tasks["server"].restarts == 0
    assert [kind for kind, _ in events_of(world)] == ["Downloading artifacts", "Artifact failure", "Started"]


def test_a_download_that_fails_for_good_uses_the_restart_policy(world: World) -> None:
    world.secrets.values["db"] = "hunter2"
    world.artifacts.fails = [ArtifactError("wrong checksum"), ArtifactError("wrong checksum")]
    restart = Restart(attempts=1, interval=Duration(minutes=10), delay=Duration(seconds=5))
    world.assign(an_assignment(group=a_fetching_group(restart)))
    world.run(10)

    assert world.told().client_status == "failed"
    assert world.machine.started == []
    assert ("Artifact failure", "wrong checksum") in events_of(world)


def test_artifacts_nobody_wants_any_more_are_no_failure_of_the_task(world: World) -> None:
    world.secrets.values["db"] = "hunter2"
    world.artifacts.fails = [ArtifactsUnwanted()]
    world.assign(an_assignment(group=a_fetching_group(Restart(attempts=0))))
    world.run(5)

    assert world.running() == [("a1", "server")]
    assert world.told().tasks["server"].restarts == 0


def test_the_end_of_an_allocation_cleans_up_what_is_kept_of_artifacts(world: World) -> None:
    world.assign(an_assignment())
    world.run(1)
    world.stop("a1")
    world.run(1)
    world.agent.runner.forget([AllocationId("a1")])
    world.settle()
    assert world.artifacts.cleaned_up == 1


def test_a_missing_secret_fails_the_start_and_names_it(world: World) -> None:
    task = a_task(env={"PASSWORD": "${secret:db}"})
    world.assign(an_assignment(group=a_group(tasks=(task,), restart=Restart(attempts=0))))
    world.run(1)

    assert world.machine.started == []
    assert "db" in world.told().tasks["server"].events[0].message


def test_prestart_ends_before_main_tasks_and_poststop_comes_last(world: World) -> None:
    world.machine.behave = lambda launch: Behaviour(
        run_for=timedelta(seconds=1) if launch.task in {"init", "clean"} else None
    )
    tasks = (
        a_task("init", lifecycle=Lifecycle(hook="prestart")),
        a_task("server"),
        a_task("proxy", lifecycle=Lifecycle(hook="prestart", sidecar=True)),
        a_task("clean", lifecycle=Lifecycle(hook="poststop")),
    )
    world.assign(an_assignment(group=a_group(tasks=tasks)))
    world.run(0.5)
    assert world.running() == [("a1", "init"), ("a1", "proxy")]
    world.run(1)
    assert world.running() == [("a1", "proxy"), ("a1", "server")]

    world.stop("a1")
    world.run(0.5)
    assert world.running() == [("a1", "clean")]
    world.run(1)
    assert world.running() == []
    assert world.told().client_status == "complete"


def a_checked_group(**fields: object) -> object:
    check = Check(type="http", port="http", path="/health", interval=Duration(seconds=1), **fields)  # type: ignore[arg-type]
    return a_group(tasks=(a_task(checks=(check,)),), ports=(Port(name="http"),))


def test_a_failing_check_keeps_an_allocation_from_being_healthy_until_it_passes(world: World) -> None:
    world.prober.why_not = "connection refused"
    world.assign(an_assignment(group=a_checked_group(), ports={"http": 20001}))  # type: ignore[arg-type]
    world.run(5)
    assert world.told().healthy is None
    assert [event.type for event in world.told().tasks["server"].events] == [
        "Started",
        "Check not passed yet",
    ]
    assert {(probe.host, probe.port, probe.path) for probe in world.prober.probes} == {
        ("127.0.0.1", 20001, "/health")
    }

    world.prober.why_not = None
    world.run(1.1)
    assert world.told().healthy is True

    world.prober.why_not = "status 500"
    world.run(1.1)
    assert world.told().healthy is False
    assert world.running() == [("a1", "server")]


def test_a_check_that_fails_restart_after_times_restarts_the_task(world: World) -> None:
    world.assign(an_assignment(group=a_checked_group(restart_after=2), ports={"http": 20001}))  # type: ignore[arg-type]
    world.run(3)
    world.prober.why_not = "status 500"
    world.run(3)
    assert world.machine.signals == [("a1", "server", "SIGTERM")]

    world.prober.why_not = None
    world.run(16)
    assert world.running() == [("a1", "server")]
    assert world.told().tasks["server"].restarts == 1


def test_exec_checks_run_in_the_task(world: World) -> None:
    check = Check(type="exec", command=("false",), interval=Duration(seconds=1))
    world.assign(an_assignment(group=a_group(tasks=(a_task(checks=(check,)),))))
    world.run(2)

    assert world.told().tasks["server"].events[-1].message == "exec: false ended with 1: not well"


def test_max_run_duration_ends_a_batch_as_failed(world: World) -> None:
    task = a_task(max_run_duration=Duration(seconds=10))
    world.assign(an_assignment(job_type="batch", group=a_group(tasks=(task,))))
    world.run(9)
    assert world.running() == [("a1", "server")]
    world.run(2)
    assert world.told().client_status == "failed"
    why = world.told().tasks["server"].events[-1].message
    assert why == "it ran longer than max_run_duration (10s): by signal 15"


def test_stop_after_ends_what_has_no_contact_and_survives_the_agent(world: World) -> None:
    group = a_group(disconnect=Disconnect(stop_after=Duration(minutes=1)))
    world.settle()
    world.assign(an_assignment("a1", group=group), an_assignment("a2"))
    world.run(30)
    world.control_plane.reachable = False
    world.run(40)
    world.crash()
    world.start_agent()
    world.run(10)
    assert world.running() == [("a1", "server"), ("a2", "server")]

    world.run(20)
    assert world.running() == [("a2", "server")]

    world.control_plane.reachable = True
    world.run(10)
    [ended, _] = world.agent.reports.holdings()
    assert ended.client_status == "lost"


def test_a_jump_of_the_wall_clock_ends_and_starts_nothing(world: World) -> None:
    world.machine.behave = lambda launch: Behaviour(
        run_for=timedelta(seconds=1) if launch.attempt == 1 else None, exit_code=1
    )
    world.assign(an_assignment(group=a_group(tasks=(a_task(max_run_duration=Duration(hours=2)),))))
    world.run(2)
    world.clock.wall += timedelta(days=1)
    world.run(10)
    assert len(world.machine.started) == 1
    world.run(10)
    assert len(world.machine.started) == 2
    assert world.running() == [("a1", "server")]


def test_what_ended_is_forgotten_when_told_to_and_then_its_files_go(world: World) -> None:
    world.assign(an_assignment())
    world.run(1)
    world.agent.runner.forget([AllocationId("a1")])
    world.run(1)
    assert world.held().client_status == "running"

    world.stop("a1")
    world.run(1)
    world.agent.runner.forget([AllocationId("a1")])
    world.run(1)
    assert world.agent.runner.allocations() == []
    assert world.folders.removed == ["a1"]
    assert world.agent.reports.holdings() == ()


def test_all_tasks_can_be_ended_for_now_and_start_again_with_the_next_agent(world: World) -> None:
    world.assign(an_assignment("a1"), an_assignment("a2", job_type="batch"))
    world.run(2)
    assert world.agent.stop_all(5) == []
    assert world.running() == []

    world.crash()
    world.start_agent()
    world.run(2)
    assert world.running() == [("a1", "server"), ("a2", "server")]
    assert world.told("a1").tasks["server"].restarts == 0


def test_tasks_are_ended_for_now_also_where_only_the_driver_knows_of_them(world: World) -> None:
    """The journal was lost: `trueup down` still ends what runs."""
    world.assign(an_assignment("a1"))
    world.run(2)
    world.crash()
    (world.data / "agent.db").unlink()
    world.start_agent()
    world.agent.runner.halt()
    world.run(15)

    assert world.running() == []
    assert world.agent.runner.is_quiet


def test_a_driver_that_stays_away_is_named_once_and_keeps_no_end_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that was named and is not there: it is asked every few seconds, and a last time at the end."""

    def recover(_driver: FakeDriver) -> Sequence[TaskHandle]:
        asked.append(world.clock.monotonic())
        raise DriverError("engine is away", temporary=True)

    asked: list[float] = []
    monkeypatch.setattr(FakeDriver, "recover", recover)
    with capture_logs() as said:
        world.crash()
        world.start_agent()
        world.run(21)
        before, begin = len(asked), world.clock.monotonic()
        assert world.agent.stop_all(60) == []
    assert before > 2
    assert asked[before:] == [begin]
    assert [line["why"] for line in said if line["event"] == "driver does not say what runs"] == [
        "engine is away"
    ]


def test_an_orphan_whose_allocation_is_wanted_is_adopted(world: World) -> None:
    world.assign(an_assignment("a1"))
    world.run(2)
    before = world.task()
    world.crash()
    (world.data / "agent.db").unlink()
    world.start_agent()
    world.run(20)
    world.assign(an_assignment("a1"))
    world.run(5)

    assert world.machine.started == [("a1", "server", 1)]
    assert world.task().pid == before.pid
    assert world.task().started_at == before.started_at


def test_an_assignment_that_comes_before_the_drivers_were_heard_starts_nothing_twice(world: World) -> None:
    """The journal was lost, and what is to be started may run, whatever its attempt."""
    world.assign(an_assignment("a1", group=a_group(restart=Restart(delay=Duration(milliseconds=1)))))
    world.run(2)
    world.machine.kill_task(AllocationId("a1"), "server")
    world.run(2)
    before = world.task()
    world.crash()
    (world.data / "agent.db").unlink()
    world.start_agent()
    world.assign(an_assignment("a1"))
    world.run(5)
    assert world.task().pid == before.pid
    assert len(world.machine.started) == 2


def test_an_orphan_that_is_to_stop_is_not_waited_with(world: World) -> None:
    """Its replacement may run elsewhere already."""
    world.assign(an_assignment("a1"))
    world.run(2)
    world.crash()
    (world.data / "agent.db").unlink()
    world.start_agent()
    world.run(2)
    assert world.running() == [("a1", "server")]
    world.stop("a1", reason="lost")
    world.run(2)
    assert world.running() == []


def test_an_orphan_that_nobody_wants_is_ended_a_minute_after_the_control_plane_was_heard(
    world: World,
) -> None:
    world.assign(an_assignment("a1"))
    world.run(2)
    world.crash()
    (world.data / "agent.db").unlink()
    world.control_plane.reachable = False
    world.start_agent()
    world.run(120)
    assert world.running() == [("a1", "server")]

    world.control_plane.adopting = world.control_plane.reachable = True
    world.run(60)
    assert world.running() == [("a1", "server")]

    world.control_plane.adopting = False
    world.run(60)
    assert world.running() == []


def test_nothing_starts_after_the_agents_restart_before_the_control_plane_was_heard(world: World) -> None:
    world.assign(an_assignment("a1"), an_assignment("a2"))
    world.run(2)
    world.crash()
    world.machine.kill_task(AllocationId("a1"), "server")
    world.control_plane.reachable = False
    world.start_agent()
    world.run(60)
    assert world.running() == [("a2", "server")]
    assert world.task("a1").state == "pending"

    world.control_plane.reachable = True
    world.run(10)
    assert world.running() == [("a1", "server"), ("a2", "server")]


def test_after_a_reboot_what_is_wanted_starts_in_place_and_that_is_no_restart(world: World) -> None:
    world.assign(an_assignment("a1", group=a_group(restart=Restart(attempts=0))))
    world.run(2)
    world.crash()
    world.machine.reboot()
    world.start_agent()
    world.run(5)

    assert world.running() == [("a1", "server")]
    assert world.told().tasks["server"].restarts == 0
    assert world.told().client_status == "running"


class FullDisk:
    """Stands for the journal's own writing on a disk that has no room."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._world, self._monkeypatch = world, monkeypatch

    def fill(self) -> None:
        def full(_changes: object) -> None:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        self._monkeypatch.setattr(self._world._journal, "_write_whole", full)

    def empty(self) -> None:
        self._monkeypatch.undo()


@pytest.fixture
def disk(world: World, monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(world, monkeypatch)


def test_on_a_full_disk_what_runs_goes_on_stops_are_carried_out_and_starts_wait(
    world: World, disk: FullDisk
) -> None:
    world.assign(an_assignment("a1"), an_assignment("a2"))
    world.run(2)
    disk.fill()
    world.assign(an_assignment("a3"))
    world.stop("a1")
    beats = len(world.control_plane.beats)
    world.run(30)

    assert world.running() == [("a2", "server")]
    assert world.told("a1").client_status == "complete"
    assert world.told("a3").client_status == "pending"
    assert [(event.type, event.message) for event in world.told("a3").tasks["server"].events] == [
        ("Waiting", "the disk of the agent's data folder is full")
    ]
    assert len(world.control_plane.beats) - beats >= 9
    assert world.control_plane.beats[-1].drivers["process"] == DriverState(
        healthy=False, detail="the disk of the agent's data folder is full"
    )

    disk.empty()
    world.run(5)
    assert world.running() == [("a2", "server"), ("a3", "server")]
    assert world.control_plane.beats[-1].drivers["process"] == DriverState()

    world.crash()
    world.start_agent()
    world.run(5)
    assert world.running() == [("a2", "server"), ("a3", "server")]
    assert world.held("a1").client_status == "complete"
    assert len(world.machine.started) == 3


def test_a_task_that_ignores_signals_is_killed_on_a_full_disk_too(world: World, disk: FullDisk) -> None:
    world.machine.behave = lambda _launch: Behaviour(ignores_signals=True)
    world.assign(an_assignment())
    world.run(2)
    disk.fill()
    world.stop("a1")
    world.run(10)
    assert [signal for _, _, signal in world.machine.signals] == ["SIGTERM", "SIGKILL"]
    assert world.told().client_status == "complete"


def test_what_ended_by_itself_on_a_full_disk_starts_again_once_there_is_room(
    world: World, disk: FullDisk
) -> None:
    world.assign(an_assignment())
    world.run(2)
    disk.fill()
    world.machine.kill_task(AllocationId("a1"), "server")
    world.run(60)
    assert world.running() == []
    assert events_of(world)[-1] == ("Waiting", "the disk of the agent's data folder is full")

    disk.empty()
    world.run(2)
    assert world.running() == [("a1", "server")]


def test_what_came_and_went_while_the_disk_was_full_leaves_nothing(world: World, disk: FullDisk) -> None:
    disk.fill()
    world.assign(an_assignment())
    world.run(2)
    world.stop("a1")
    world.run(2)
    world.agent.runner.forget([AllocationId("a1")])
    world.run(2)
    disk.empty()
    world.run(5)
    assert world.agent.runner._journal.held() == []
    assert world.machine.started == []


def test_a_push_is_called_written_only_once_it_is(world: World, disk: FullDisk) -> None:
    disk.fill()
    written: list[str] = []
    world.assign(an_assignment())
    world.agent.runner.when_written(lambda: written.append("yes"))
    world.run(2)
    assert written == []
    disk.empty()
    world.run(2)
    assert written == ["yes"]


def test_folders_that_nothing_knows_are_removed_and_never_those_of_what_runs(world: World) -> None:
    """The journal was lost: what is wanted again, and what runs without a record, keeps its folders."""
    world.machine.behave = lambda _launch: Behaviour(ignores_signals=True)
    world.assign(*(an_assignment(name) for name in ("done", "runs", "wanted")))
    world.run(2)
    world.machine.signal((AllocationId("done"), "server", 1), "SIGKILL")
    world.crash()
    del world.machine.tasks[AllocationId("done"), "server", 1]
    (world.data / "agent.db").unlink()
    world.start_agent()
    world.assign(an_assignment("wanted"))
    world.run(59)
    assert world.folders.removed == []
    world.run(5)
    assert world.folders.removed == ["done"]
    assert world.running() == [("runs", "server"), ("wanted", "server")]


def test_no_folder_is_removed_while_the_control_plane_adopts(world: World) -> None:
    """What it wants here is not known yet."""
    world.assign(an_assignment("a1"))
    world.run(2)
    world.crash()
    world.machine.reboot()
    (world.data / "agent.db").unlink()
    world.control_plane.adopting = True
    world.start_agent()
    world.run(300)
    assert world.folders.removed == []


def test_no_folder_is_removed_while_a_driver_does_not_say_what_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tasks may live."""

    def recover(_driver: FakeDriver) -> Sequence[TaskHandle]:
        raise DriverError("engine is away", temporary=True)

    world.assign(an_assignment("a1"))
    world.run(2)
    world.crash()
    (world.data / "agent.db").unlink()
    monkeypatch.setattr(FakeDriver, "recover", recover)
    world.start_agent()
    world.run(300)
    assert world.folders.removed == []
