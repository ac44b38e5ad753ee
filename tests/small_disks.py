"""Disks of a few MiB of their own, which can be filled and made read-only: real mounts, which root alone can make."""

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


def remount(disk: Path, *, read_only: bool) -> None:
    """Takes away that it can be written, as a kernel does after errors, or gives it back."""
    subprocess.run(["mount", "-o", f"remount,{'ro' if read_only else 'rw'}", str(disk)], check=True)
