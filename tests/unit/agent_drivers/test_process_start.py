"""What a process task is started with, and what is said when it cannot be."""

import os
import pwd
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.doors import DriverError
from agent.drivers.accounts import ProcessPolicy
from tests.unit.agent_drivers.process_world import PATH, ProcessWorld, descriptors_of, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def test_a_task_runs(either_world: ProcessWorld) -> None:
    """A started task is running, under a pid and since a time."""
    handle = either_world.start("sleep", "60")
    status = either_world.driver.status(handle)
    assert status.state == "running"
    assert status.started_at is not None
    assert Path(f"/proc/{status.pid}/cmdline").read_bytes() == b"sleep\x0060\0"


def test_environment_is_built_from_nothing(world: ProcessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task sees the variables it was given, whatever their letters, and none of the agent's."""
    monkeypatch.setenv("AGENTS_OWN", "secret")
    world.ended(world.start("env", environment={"GREETING": "grüß\nGott"}))
    assert sorted(world.log().splitlines()) == sorted(
        [
            f"PATH={PATH}",
            f"TRUEUP_ALLOC_ID={world.id('a1')}",
            "TRUEUP_TASK_NAME=server",
            "GREETING=grüß",
            "Gott",
        ]
    )


def test_only_standard_descriptors(world: ProcessWorld) -> None:
    """Standard input is empty, and nothing of agent, spawner or shim is inherited."""
    readable, writable = os.pipe()
    os.set_inheritable(writable, True)  # Not even what the agent lets its children have.
    try:
        world.ended(world.shell("cat; ls /proc/$$/fd; readlink /proc/$$/fd/0"))
    finally:
        os.close(readable)
        os.close(writable)
    assert world.log().split() == ["0", "1", "2", "/dev/null"]


def test_surroundings(world: ProcessWorld) -> None:
    """A task is a session of its own, in its own folder, with an ordinary umask and no signal ignored or blocked."""
    handle = world.shell(
        "pwd; umask; cat /proc/self/stat; grep -E '^Sig(Blk|Ign)' /proc/self/status; sleep 60"
    )
    folder, umask, stat, blocked, ignored = world.lines(5)
    assert folder == str(world.launch().task_dir)
    assert umask == "0022"
    assert stat.split()[5] == str(world.pid(handle))
    # Signals 32 and 33 are the C library's own: no program can set them, and a task has them as our parent had.
    masks = [int(line.split()[1], 16) & ~(0b11 << 31) for line in (blocked, ignored)]
    assert masks == [0, 0]


def test_working_directory(world: ProcessWorld, tmp_path: Path) -> None:
    """`cwd` is relative to the task's folder, or anywhere."""
    world.launch().task_dir.joinpath("local").mkdir(parents=True)
    world.ended(world.start("pwd", cwd="local"))
    world.ended(world.start("pwd", cwd=str(tmp_path), attempt=2))
    assert world.log().splitlines() == [str(world.launch().task_dir / "local"), str(tmp_path)]


@as_root
def test_user(world: ProcessWorld) -> None:
    """A task with a user has that user's ids, all of them, and cannot get others back."""
    nobody = pwd.getpwnam("nobody")
    world.ended(world.shell("grep -E '^(Uid|Gid|Groups)' /proc/self/status", user="nobody", cwd="/"))
    uid, gid, groups = (line.split()[1:] for line in world.log().splitlines())
    assert uid == [str(nobody.pw_uid)] * 4
    assert gid == [str(nobody.pw_gid)] * 4
    assert groups == [str(group) for group in sorted(os.getgrouplist("nobody", nobody.pw_gid))]


@as_root
def test_user_by_number(world: ProcessWorld) -> None:
    """A number needs no entry in the user database."""
    world.ended(world.start("id", "-u", user="54321", cwd="/"))
    assert world.log() == "54321\n"


@pytest.mark.parametrize(
    ("command", "fields", "message"),
    [
        (("no-such-program",), {}, 'cannot start "no-such-program": No such file or directory; install it'),
        (("/etc/passwd",), {}, 'cannot start "/etc/passwd": Permission denied; it, and every folder above'),
        (("true",), {"cwd": "/no/such/folder"}, "config.cwd has to exist on the node"),
        (("true", "x" * 200_000), {}, "arguments and environment together are too long"),
        ((), {}, "has no config.command"),
        (("true",), {"user": "no-such-user"}, 'this node has no user "no-such-user"'),
    ],
)
def test_start_that_cannot_work(
    world: ProcessWorld, command: tuple[str, ...], fields: dict[str, str], message: str
) -> None:
    """What keeps a task from starting is said at once, with what to do, and leaves nothing behind."""
    with pytest.raises(DriverError) as failure:
        world.start(*command, **fields)
    assert message in str(failure.value)
    assert not failure.value.temporary
    assert not world.driver.recover()
    assert not list((world.data / "agent" / "tasks").iterdir())


def test_program_without_a_first_line(world: ProcessWorld, tmp_path: Path) -> None:
    """A script that does not say what runs it is refused with the remedy."""
    script = tmp_path / "script"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    with pytest.raises(DriverError, match="needs a first line like #!/bin/sh"):
        world.start(str(script))


@as_root
def test_program_its_user_may_not_run(world: ProcessWorld, tmp_path: Path) -> None:
    """Whether a program can be executed is asked as the task's user."""
    private = tmp_path / "private"
    private.write_text("#!/bin/sh\n")
    private.chmod(0o700)
    with pytest.raises(DriverError, match="executable for the task's user"):
        world.start(str(private), user="nobody", cwd="/")


def test_failure_names_no_argument(world: ProcessWorld) -> None:
    """Arguments and variables may hold secrets: the message has neither."""
    with pytest.raises(DriverError) as failure:
        world.start("no-such-program", "--password=hunter2", environment={"KEY": "hunter2"})
    assert "hunter2" not in str(failure.value)


def test_start_can_be_tried_again_after_a_passing_failure(world: ProcessWorld) -> None:
    """A logs folder that cannot be used is a failure of the machine's: the same start works later."""
    logs = world.launch().logs_dir
    logs.parent.mkdir(parents=True)
    logs.symlink_to("/nowhere/else")
    with pytest.raises(DriverError, match="logs"):
        world.start("sleep", "60")
    logs.unlink()
    assert world.driver.status(world.start("sleep", "60")).state == "running"


def test_repeated_start_finds_the_one_that_runs(world: ProcessWorld) -> None:
    """The same launch twice is one task; a new attempt, another task or allocation are others."""
    first = world.shell("echo started; sleep 60")
    pid = world.pid(first)
    assert world.shell("echo started; sleep 60") == first
    assert world.pid(first) == pid
    others = [
        world.shell("sleep 60", attempt=2),
        world.shell("sleep 60", task="other"),
        world.shell("sleep 60", allocation="a2"),
    ]
    assert len({pid, *map(world.pid, others)}) == 4
    assert world.lines(1) == ["started"]


def test_repeated_start_finds_one_that_ended(world: ProcessWorld) -> None:
    """A launch that was done is not done again."""
    handle = world.shell("echo once; exit 3")
    world.ended(handle)
    assert world.shell("echo once; exit 3") == handle
    assert world.driver.status(handle).exit_code == 3
    assert world.log() == "once\n"


def test_many_at_once(world: ProcessWorld) -> None:
    """Starts from many threads, each of them twice, run every task once."""
    launches = [
        world.launch("sh", "-c", "echo up; sleep 60", allocation=f"a{number % 30}") for number in range(60)
    ]
    with ThreadPoolExecutor(8) as threads:
        handles = list(threads.map(world.driver.start, launches))
    assert len(set(handles)) == 30
    assert len({world.pid(handle) for handle in handles}) == 30
    assert all(world.lines(1, allocation=handle.allocation_id.split("-")[0]) == ["up"] for handle in handles)


def test_no_descriptor_leaks(world: ProcessWorld) -> None:
    """Agent and spawner hold no more descriptors after a hundred tasks than after one."""
    for attempt in range(1, 31):
        handle = world.start("true", attempt=attempt)
        world.ended(handle)
        world.driver.remove(handle)
        with pytest.raises(DriverError):
            world.start("no-such-program", task="broken")
        if attempt == 1:
            spawner = world.driver._spawner.pid
            before = descriptors_of("self"), descriptors_of(spawner)
    wait_until(lambda: descriptors_of("self") <= before[0] and descriptors_of(spawner) <= before[1])


@pytest.mark.parametrize(
    ("policy", "user", "message"),
    [
        (ProcessPolicy(), "", "start the agent with --enable-process"),
        pytest.param(ProcessPolicy(enabled=True), "", "list root under drivers.process.users", marks=as_root),
        pytest.param(ProcessPolicy(enabled=True), "root", "list root", marks=as_root),
        pytest.param(
            ProcessPolicy(enabled=True, users=["www-data"]),
            "nobody",
            'may not run as "nobody"',
            marks=as_root,
        ),
    ],
)
def test_policy(
    make_world: Callable[..., ProcessWorld], policy: ProcessPolicy, user: str, message: str
) -> None:
    """What the node does not allow is refused, and the message names the line to change."""
    world = make_world(policy=policy)
    with pytest.raises(DriverError, match=message):
        world.start("true", user=user, cwd="/")


@as_root
def test_users_of_a_policy_by_name_and_number(make_world: Callable[..., ProcessWorld]) -> None:
    """Whoever is listed in one form may be named in the other, and placement is told both."""
    world = make_world(policy=ProcessPolicy(enabled=True, users=["33", "nobody", "no-such-user"]))
    for number, user in enumerate(("www-data", "33", "65534", "nobody")):
        handle = world.start("true", user=user, cwd="/", allocation=f"a{number}")
        assert world.ended(handle).exit_code == 0
    with pytest.raises(DriverError, match="may not run as"):
        world.start("true", user="34", cwd="/", allocation="b")
    state = world.driver.fingerprint()
    assert state is not None
    assert state.attributes["users"] == "33,65534,no-such-user,nobody,www-data"
    assert state.attributes["runs_as_uid"] == "0"


def test_fingerprint(make_world: Callable[..., ProcessWorld], either_world: ProcessWorld) -> None:
    """A driver that is off is not offered; one without cgroups says what that means."""
    assert make_world(policy=ProcessPolicy()).driver.fingerprint() is None
    state = either_world.driver.fingerprint()
    assert state is not None
    assert state.healthy
    if state.attributes["cgroup"] == "none":
        assert state.attributes["limits"] == "none"
    assert ("not limited" in state.detail) == (state.attributes["limits"] == "none")
