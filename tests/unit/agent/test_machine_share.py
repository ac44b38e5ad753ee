"""What tasks can use of the machine: all of it, or what a container's cgroups leave them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from agent import machine_share

MIB = 1024**2
TOTAL = psutil.virtual_memory().total
CORES = psutil.cpu_count() or 1


def a_proc(folder: Path, mounts: str, place: str = "0::/\n") -> Path:
    """A `/proc/self` of a process that sees these trees beneath *folder*."""
    (folder / "cgroup").write_text(place)
    (folder / "mountinfo").write_text(mounts.replace("ROOT", str(folder)))
    return folder


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


V2 = "30 23 0:26 / ROOT/c rw - cgroup2 cgroup2 rw\n"
V1 = (
    "31 30 0:27 / ROOT/memory rw - cgroup cgroup rw,memory\n32 30 0:28 / ROOT/cpu rw - cgroup cgroup rw,cpu\n"
)


def test_v2_with_limits(tmp_path: Path) -> None:
    write(tmp_path / "c", memory__max=str(64 * MIB), cpu__max="25000 100000")
    proc = a_proc(tmp_path, V2)
    assert (machine_share.memory_bytes(proc=proc), machine_share.cpu_millicores(proc=proc)) == (64 * MIB, 250)


def test_v1_with_limits(tmp_path: Path) -> None:
    write(tmp_path / "memory", memory__limit_in_bytes=str(64 * MIB))
    write(tmp_path / "cpu", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    proc = a_proc(tmp_path, V1)
    assert (machine_share.memory_bytes(proc=proc), machine_share.cpu_millicores(proc=proc)) == (64 * MIB, 500)


@pytest.mark.parametrize("mounts", [V2, V1, ""])
def test_without_limits(tmp_path: Path, mounts: str) -> None:
    """The words of both forms for none, and no cgroups at all: what the machine has, as far as one may run there."""
    write(tmp_path / "c", memory__max="max", cpu__max="max 100000")
    write(tmp_path / "memory", memory__limit_in_bytes=str(2**63 - 4096))
    write(tmp_path / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    proc = a_proc(tmp_path, mounts)
    assert machine_share.memory_bytes(proc=proc) == TOTAL
    assert machine_share.cpu_millicores(proc=proc) == len(os.sched_getaffinity(0)) * 1000


def test_the_agents_own_limits(tmp_path: Path) -> None:
    """Root makes its tasks' cgroups outside of its own; for another user what is above holds too."""
    proc = a_proc(tmp_path, V2, "0::/unit/agent\n")
    write(tmp_path / "c", memory__max=str(TOTAL - MIB))
    write(tmp_path / "c/unit", memory__max=str(64 * MIB))
    write(tmp_path / "c/unit/agent", memory__max="max")
    assert machine_share.memory_bytes(proc=proc) == (64 * MIB if os.geteuid() else TOTAL - MIB)


@pytest.mark.xdist_group("cgroups")
def test_in_a_container(tmp_path: Path) -> None:
    """Real cgroups and a real cgroup namespace, as engines make them: the top of what is seen has the limit."""
    script = """
        set -e
        cd "$1"
        if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
            group=/sys/fs/cgroup/$2
            echo +memory > /sys/fs/cgroup/cgroup.subtree_control
            file=memory.max kind=cgroup2 top=/sys/fs/cgroup options=rw
        else
            group=/sys/fs/cgroup/memory/$2
            file=memory.limit_in_bytes kind=cgroup top=/sys/fs/cgroup/memory options=memory
        fi
        mkdir "$group"
        trap 'rmdir "$group"' EXIT
        echo 536870912 > "$group/$file"
        sh -c 'echo $$ > "$1/cgroup.procs"; exec unshare --cgroup --mount sh -c "
            umount -l $2; mount -t $3 -o $4 none $2; exec $5 -c \\"
import json; from agent import machine_share; print(json.dumps(machine_share.memory_bytes()))\\""' \\
            inner "$group" "$top" "$kind" "$options" "$3"
    """
    home = Path(machine_share.__file__).parents[1]
    done = subprocess.run(
        ["sh", "-c", script, "outer", str(home), f"trueup-test-{os.getpid()}", sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        # No reason to skip: there are machines where no cgroup can be written, and CI may be one.
        assert any(
            why in done.stderr for why in ("Permission denied", "Read-only", "not permitted", "nonexistent")
        )
        return
    assert json.loads(done.stdout) == 512 * MIB
