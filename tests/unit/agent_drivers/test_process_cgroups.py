"""Which cgroups are found on machines of each kind, and what is written for a task's resources."""

import os
from pathlib import Path

import pytest

from agent.drivers import cgroup
from agent.drivers.cgroup import Cgroups, cgroup_tag, discover, read_hierarchies, weight_of_shares
from tests.unit.agent_drivers.process_world import ProcessWorld, wait_until
from trueup.models.job import Resources
from trueup.models.units import Bytes, Millicores

RESOURCES = Resources(cpu_millicores=Millicores(500), memory_bytes=Bytes(256 * 1024**2))


def a_proc(tmp_path: Path, places: str, mounts: str) -> Path:
    """A `/proc/self` with these cgroups and mounts."""
    tmp_path.joinpath("cgroup").write_text(places)
    tmp_path.joinpath("mountinfo").write_text(mounts.replace("ROOT", str(tmp_path)))
    return tmp_path


def test_v2(tmp_path: Path) -> None:
    """One tree, whose root says what it can limit."""
    tmp_path.joinpath("cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    proc = a_proc(
        tmp_path,
        "0::/system.slice/trueup.service\n",
        "30 23 0:26 / ROOT rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
    )
    (found,) = read_hierarchies(proc)
    assert (found.version, found.mount, found.own) == (2, tmp_path, tmp_path / "system.slice/trueup.service")
    assert found.controllers >= {"cpu", "memory", "pids"}


def test_v1_and_hybrid(tmp_path: Path) -> None:
    """A tree for each controller or two, and an empty v2 one beside them, which comes first."""
    proc = a_proc(
        tmp_path,
        "4:memory:/user\n3:cpu,cpuacct:/\n1:name=systemd:/user.slice\n0::/user.slice\n",
        "31 30 0:27 / ROOT/memory rw - cgroup cgroup rw,memory\n"
        "32 30 0:28 / ROOT/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "33 30 0:29 / ROOT/unified rw - cgroup2 cgroup2 rw\n"
        "34 30 0:30 / / rw - ext4 /dev/vda rw\n",
    )
    v2, cpu, memory = read_hierarchies(proc)
    assert (v2.version, v2.controllers) == (2, frozenset())
    assert {"cpu", "cpuacct"} <= cpu.controllers
    assert memory.own == tmp_path / "memory" / "user"


def test_container_that_sees_a_part(tmp_path: Path) -> None:
    """Where only a container's own part is mounted, its place is relative to that."""
    proc = a_proc(
        tmp_path,
        "4:memory:/docker/abc/x\n",
        "31 30 0:27 /docker/abc ROOT/mem\\040ory ro - cgroup cgroup rw,memory\n",
    )
    (found,) = read_hierarchies(proc)
    assert found.own == tmp_path / "mem ory" / "x"


def test_nothing_that_can_be_written(tmp_path: Path) -> None:
    """Read-only or absent trees are no error: there are no cgroups."""
    assert discover("tag", proc=tmp_path / "absent") == Cgroups()
    proc = a_proc(tmp_path, "0::/\n", "30 23 0:26 / /proc/sys rw - cgroup2 cgroup2 ro\n")
    assert discover("tag", proc=proc) == Cgroups()
    assert Cgroups().of_task("a.b.1", RESOURCES) == []
    assert Cgroups().of_shims() == []
    assert Cgroups().task_names() == []


def test_limits_of_v2(tmp_path: Path) -> None:
    """One folder with a hard memory limit, no swap, a share of the processor, a bound on processes."""
    for name in ("cgroup.subtree_control", "memory.swap.max"):
        tmp_path.joinpath(name).touch()
    cgroups = Cgroups(
        version="v2", tracking=tmp_path, limits=dict.fromkeys(("cpu", "memory", "pids"), tmp_path)
    )
    ((folder, settings),) = cgroups.of_task("a1.server.1", RESOURCES)
    assert folder == str(tmp_path / "a1.server.1")
    assert settings == {
        "cpu.weight": "20",
        "memory.max": str(256 * 1024**2),
        "memory.oom.group": "1",
        "memory.swap.max": "0",
        "pids.max": str(cgroup.PIDS_MAX),
    }


def test_limits_of_v1(tmp_path: Path) -> None:
    """A folder for each tree; without swap accounting only memory is limited."""
    memory, cpu = tmp_path / "memory", tmp_path / "cpu"
    for folder in (memory, cpu):
        folder.mkdir()
    memory.joinpath("memory.limit_in_bytes").touch()
    cgroups = Cgroups(version="hybrid", tracking=tmp_path, limits={"memory": memory, "cpu": cpu})
    assert cgroups.of_task("a1.server.1", RESOURCES) == [
        (str(tmp_path / "a1.server.1"), {}),
        (str(memory / "a1.server.1"), {"memory.limit_in_bytes": str(256 * 1024**2)}),
        (str(cpu / "a1.server.1"), {"cpu.shares": "512"}),
    ]


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262144, 10_000), (10**9, 10_000)])
def test_weights(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


def test_tag() -> None:
    """Two agents on one machine have cgroups of their own; one agent the same ones each time."""
    assert cgroup_tag(Path("/a")) == cgroup_tag(Path("/a")) != cgroup_tag(Path("/b"))


def test_real_limits(world: ProcessWorld) -> None:
    """All that this machine lets us limit stands in the cgroups of a running task; its shim is in others."""
    cgroups = world.driver._cgroups
    handle = world.start("sleep", "60", memory_bytes=64 * 1024**2)
    pid = str(world.pid(handle))
    for folder, settings in cgroups.of_task(f"{world.id('a1')}.server.1", world.launch().resources):
        assert pid in Path(folder, "cgroup.procs").read_text().split()
        for name, value in settings.items():
            assert Path(folder, name).read_text().strip() == value
    shim = str(world.run(handle).shim_pid)
    for shims in cgroups.of_shims():
        assert shim in shims.joinpath("cgroup.procs").read_text().split()


def test_fork_bomb_is_bounded(world: ProcessWorld) -> None:
    """A task cannot have more processes than its bound, and its tree can still be killed."""
    cgroups = world.driver._cgroups
    if not world.limits("pids"):
        return
    world.launch().task_dir.mkdir(parents=True)
    os.mkfifo(world.launch().task_dir / "go")
    handle = world.shell("read line < go; (while :; do sleep 60 & done); exec sleep 60")
    folder = cgroups.limits["pids"] / f"{world.id('a1')}.server.1"
    folder.joinpath("pids.max").write_text("20")
    world.launch().task_dir.joinpath("go").write_text("go\n")
    wait_until(lambda: "cannot fork" in world.log("server.stderr").lower())
    assert int(folder.joinpath("pids.current").read_text()) <= 20
    world.driver.kill(handle)
    world.ended(handle)


def test_folders_go_with_the_driver(world: ProcessWorld) -> None:
    """A driver that is closed and has no task leaves no cgroup behind."""
    handle = world.start("true")
    world.ended(handle)
    world.driver.remove(handle)
    cgroups = world.driver._cgroups
    world.driver.close()
    assert not any(folder.parent.exists() for folder in cgroups.of_shims())
    world.again()
