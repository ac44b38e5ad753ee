"""Disks of a few MiB of their own, which can be filled and broken: real mounts, which root alone can make."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.require import unavailable


@contextmanager
def a_small_disk(folder: Path, size: str) -> Iterator[Path]:
    """*folder*, made, as a disk of its own of *size* (`16m`)."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        unavailable("mount", "only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def a_real_disk(folder: Path, size: str) -> Iterator[Path]:
    """*folder*, made, as an ext4 disk of its own of *size* (`64M`), on an image beside it."""
    folder.mkdir()
    image = folder.with_suffix(".img")
    with image.open("wb") as made:
        made.truncate(int(size.removesuffix("M")) * 1024**2)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        unavailable("mount", "only root can mount a disk, which takes a loop device and mkfs.ext4")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def break_disk(disk: Path) -> None:
    """What ext4 does by itself after an error of the device: from now on nothing of it can be written.

    What it has not written yet would be lost, and partly unreadable: that is another fault.
    """
    subprocess.run(["sync", "--file-system", str(disk)], check=True)
    subprocess.run(["mount", "-o", "remount,abort", str(disk)], check=True)


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """Whoever writes to it waits until it is over, in uninterruptible sleep: no signal ends them, SIGKILL neither."""
    subprocess.run(["fsfreeze", "--freeze", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(disk)], check=True)


def free_bytes(disk: Path) -> int:
    """What is free of it."""
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def fill(disk: Path, leave_bytes: int) -> Path:
    """Fills it with one file until *leave_bytes* are free."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as opened:
        while (left := free_bytes(disk) - leave_bytes) > 0:
            opened.write(b"x" * min(left, 2**16))
    return filler
