"""What a node says of the machine it is, and what it gives of it to tasks."""

import os
import platform
import shutil
from pathlib import Path

import psutil
import pytest

from agent.drivers.accounts import ProcessPolicy
from agent.drivers.cgroup import cgroup_tag, discover, version_of_machine
from agent.drivers.process import ProcessDriver
from agent.fingerprint import Identification, Reserve, attributes_of_machine, reserved_memory, resources_of

MIB = 1024**2
GIB = 1024**3
TOTAL = psutil.virtual_memory().total
CORES = psutil.cpu_count() or 1


def a_node(**fields: object) -> Identification:
    return Identification(name="n", region="eu", labels={}, volumes=(), **fields)  # type: ignore[arg-type]


def test_this_machine_whole(tmp_path: Path) -> None:
    """Processor, memory, disk, kernel, architecture, system, cgroups, as text; nothing that changes by itself."""
    found = attributes_of_machine(tmp_path)
    assert found.keys() >= {
        *("arch", "kernel.name", "kernel.version", "os.name", "os.version", "hostname", "user"),
        *("cpu.cores", "memory.bytes", "disk.bytes", "cgroup"),
    }
    assert all(found.values())
    assert found["cpu.cores"] == str(CORES)
    assert found["memory.bytes"] == str(TOTAL)
    assert found["disk.bytes"] == str(shutil.disk_usage(tmp_path).total)
    assert found["kernel.version"] == platform.release()
    assert found["arch"] in {"amd64", "arm64", platform.machine()}
    (tmp_path / "file").write_bytes(b"x" * MIB)
    assert attributes_of_machine(tmp_path) == found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make cgroups wherever there are some")
def test_machine_and_driver_say_the_same_of_cgroups(tmp_path: Path) -> None:
    """A hybrid machine is no v1 machine to one of them."""
    driver = ProcessDriver(tmp_path, lambda _: None, policy=ProcessPolicy(enabled=True, root=True))
    state = driver.fingerprint()
    driver.close()
    discover(cgroup_tag(tmp_path)).remove_unused()
    assert state is not None
    assert attributes_of_machine(tmp_path)["cgroup"] == state.attributes["cgroup"]


@pytest.mark.parametrize(
    ("mounts", "version"),
    [
        ("30 23 0:26 / /c rw - cgroup2 cgroup2 rw\n", "v2"),
        ("31 30 0:27 / /c/memory rw - cgroup cgroup rw,memory\n", "v1"),
        (
            "31 30 0:27 / /c/memory rw - cgroup cgroup rw,memory\n33 30 0:29 / /c/u rw - cgroup2 cgroup2 rw\n",
            "hybrid",
        ),
        ("31 30 0:27 / /c/systemd rw - cgroup cgroup rw,name=systemd\n", "none"),
        ("", "none"),
    ],
)
def test_the_form_of_cgroups(tmp_path: Path, mounts: str, version: str) -> None:
    """By what is mounted, whether or not it can be written."""
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "mountinfo").write_text(mounts)
    assert version_of_machine(proc=tmp_path) == version


def test_a_machine_without_proc(tmp_path: Path) -> None:
    """It has none."""
    assert version_of_machine(proc=tmp_path / "gone") == "none"


def test_what_tasks_get_unless_told() -> None:
    """All processors, and memory but for a twentieth, at most 512 MiB; whole MiB, as STATE.json has them."""
    found = resources_of(a_node())
    assert found.cpu_millicores == CORES * 1000
    assert found.memory_bytes == (TOTAL - min(TOTAL // 20, 512 * MIB) // MIB * MIB) // MIB * MIB


def test_what_tasks_get_as_told() -> None:
    """What is reserved is what they do not get; what they get is said as it is, without any reserve."""
    reserve = Reserve(cpu_millicores=250, memory_bytes=TOTAL - GIB // 2 - 100)
    found = resources_of(a_node(reserve=reserve))
    assert (found.cpu_millicores, found.memory_bytes) == (CORES * 1000 - 250, GIB // 2)
    found = resources_of(a_node(cpu_millicores=1500, memory_bytes=3 * GIB))
    assert (found.cpu_millicores, found.memory_bytes) == (1500, 3 * GIB)
    all_of_it = Reserve(cpu_millicores=CORES * 2000, memory_bytes=TOTAL * 2)
    found = resources_of(a_node(reserve=all_of_it))
    assert (found.cpu_millicores, found.memory_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("total", "told", "reserved"),
    [(512 * MIB, None, 25 * MIB), (4 * GIB, None, 204 * MIB), (256 * GIB, None, 512 * MIB), (4 * GIB, 0, 0)],
)
def test_reserved_memory(total: int, told: int | None, reserved: int) -> None:
    """A tiny machine stays of use, a large one loses nothing to speak of, and none is a choice."""
    assert reserved_memory(total, told) == reserved
