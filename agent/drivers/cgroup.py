"""Which cgroups this machine lets us make, and those of one task: where it is tracked and what limits it.

Linux has two forms. v2 is one tree with `cgroup.kill`; v1 is a tree for each controller; a hybrid machine limits in
v1 trees and can still track in an empty v2 one. Without any, tasks run unlimited and are ended by their shim alone.
The processor is shared by weight, not capped: an idle machine is given to whoever wants it. Memory is a hard limit.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from trueup.models.job import Resources

CgroupVersion = Literal["v1", "v2", "hybrid", "none"]
_VERSIONS: Final[Mapping[frozenset[int], CgroupVersion]] = {
    frozenset(): "none",
    frozenset({1}): "v1",
    frozenset({2}): "v2",
    frozenset({1, 2}): "hybrid",
}
TaskCgroup = tuple[str, dict[str, str]]

CONTROLLERS: Final = ("cpu", "memory", "pids")
PIDS_MAX: Final = 4096
"""Processes and threads of one task: far above honest use, far below what takes a machine down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One mounted tree. *own* is the agent's place in it, *controllers* what it can limit."""

    version: Literal[1, 2]
    mount: Path
    own: Path
    controllers: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroups:
    """What can be used. *tracking* is the folder tasks' cgroups are made in, *limits* such a folder by controller."""

    version: CgroupVersion = "none"
    tracking: Path | None = None
    limits: Mapping[str, Path] = field(default_factory=dict)

    def of_task(self, name: str, resources: Resources) -> list[TaskCgroup]:
        """The cgroups of one task with their settings, the tracking one first. Folders that coincide are one."""
        if self.tracking is None:
            return []
        found: dict[Path, dict[str, str]] = {self.tracking / name: {}}
        for controller, folder in self.limits.items():
            settings = found.setdefault(folder / name, {})
            settings |= _limit(controller, folder, resources)
        return [(str(folder), settings) for folder, settings in found.items()]

    def folders_of(self, name: str) -> list[str]:
        """The cgroups of a task by its name, there or not."""
        folders = [self.tracking] if self.tracking is not None else []
        return [str(folder / name) for folder in dict.fromkeys([*folders, *self.limits.values()])]

    def of_shims(self) -> list[Path]:
        """Where spawner and shims live: out of the agent's own cgroups, so that ending its unit ends no task."""
        folders = [self.tracking] if self.tracking is not None else []
        folders += [folder for folder in self.limits.values() if folder not in folders]
        return [folder / "shims" for folder in dict.fromkeys(folders)]

    def remove_unused(self) -> None:
        """Removes the folders themselves, where no task and no shim is in them. `discover` makes them again."""
        for shims in self.of_shims():
            with contextlib.suppress(OSError):
                shims.rmdir()
            with contextlib.suppress(OSError):
                shims.parent.rmdir()

    def task_names(self) -> list[str]:
        """Names of all task cgroups there are, whoever remembers them."""
        if self.tracking is None:
            return []
        try:
            return sorted(entry.name for entry in self.tracking.iterdir() if entry.name.count(".") == 2)
        except OSError:
            return []


def cgroup_tag(data: Path) -> str:
    """The name of an agent's cgroups: the same when its data folder was lost, another for each agent on a machine."""
    return f"trueup-{hashlib.sha256(os.fsencode(data.absolute())).hexdigest()[:12]}"


def discover(tag: str, *, proc: Path = Path("/proc/self")) -> Cgroups:
    """Finds what this process may use and makes the folders *tag* in it. Never fails: less is found."""
    try:
        hierarchies = read_hierarchies(proc)
    except OSError:
        return Cgroups()
    usable = {hierarchy: base for hierarchy in hierarchies if (base := _claim_base(hierarchy, tag))}
    limits: dict[str, Path] = {}
    for hierarchy, base in usable.items():
        controllers = _enabled(hierarchy, base)
        limits |= {name: base for name in CONTROLLERS if name in controllers and name not in limits}
    tracking = _tracking(usable, limits)
    if tracking is None:
        return Cgroups()
    return Cgroups(version=_version(usable), tracking=tracking, limits=limits)


def version_of_machine(*, proc: Path = Path("/proc/self")) -> CgroupVersion:
    """Which form this machine has, whether or not this process may make cgroups there (`discover` says that)."""
    try:
        return _version(one for one in read_hierarchies(proc) if _is_of_use(one))
    except OSError:
        return "none"


def read_hierarchies(proc: Path) -> list[Hierarchy]:
    """The mounted trees and this process's place in each, v2 first."""
    places = {}
    for line in proc.joinpath("cgroup").read_text("utf-8").splitlines():
        _, controllers, place = line.split(":", 2)
        places[controllers] = place
    found = []
    for line in proc.joinpath("mountinfo").read_text("utf-8").splitlines():
        about, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        root, mount = about.split(" ")[3:5]
        if kind == "cgroup2":
            found.append(_hierarchy(2, mount, root, places.get("", "/"), ()))
        elif kind == "cgroup":
            names = options.split(",")
            own = next(
                (place for held, place in places.items() if held and set(held.split(",")) <= set(names)), "/"
            )
            found.append(_hierarchy(1, mount, root, own, names))
    return sorted(found, key=lambda hierarchy: (-hierarchy.version, hierarchy.mount))


def _hierarchy(
    version: Literal[1, 2], mount: str, root: str, place: str, options: Iterable[str]
) -> Hierarchy:
    folder = Path(mount.encode().decode("unicode_escape"))
    controllers = frozenset(options)
    if version == 2:
        try:
            controllers = frozenset(folder.joinpath("cgroup.controllers").read_text("ascii").split())
        except OSError:
            controllers = frozenset()
    below = place.removeprefix(root.rstrip("/")).lstrip("/")
    return Hierarchy(version=version, mount=folder, own=folder / below, controllers=controllers)


def _claim_base(hierarchy: Hierarchy, tag: str) -> Path | None:
    """A folder of ours in a tree: for root at its top, since a unit's own cgroup ends with the unit."""
    if not _is_of_use(hierarchy):
        return None
    candidates = [hierarchy.own / tag]
    if os.geteuid() == 0:
        candidates.insert(0, hierarchy.mount / tag)
    for base in candidates:
        try:
            base.mkdir(mode=0o755, exist_ok=True)
        except OSError:
            continue
        if os.access(base / "cgroup.procs", os.W_OK):
            return base
    return None


def _is_of_use(hierarchy: Hierarchy) -> bool:
    """Whether it can limit, or track at least."""
    return hierarchy.version == 2 or not hierarchy.controllers.isdisjoint(CONTROLLERS)


def _enabled(hierarchy: Hierarchy, base: Path) -> frozenset[str]:
    """Controllers that can limit beneath *base*; in v2 they are handed down first, one by one."""
    if hierarchy.version == 1:
        return hierarchy.controllers
    for folder in (base.parent, base):
        for name in CONTROLLERS:
            if name in hierarchy.controllers:
                _hand_down(folder, name)
    try:
        return frozenset(base.joinpath("cgroup.subtree_control").read_text("ascii").split())
    except OSError:
        return frozenset()


def _hand_down(folder: Path, controller: str) -> None:
    try:
        folder.joinpath("cgroup.subtree_control").write_text(f"+{controller}", "ascii")
    except OSError:
        return


def _tracking(usable: Mapping[Hierarchy, Path], limits: Mapping[str, Path]) -> Path | None:
    for hierarchy, base in usable.items():
        if hierarchy.version == 2:
            return base
    candidates = [limits[name] for name in ("pids", "memory", "cpu") if name in limits]
    candidates += usable.values()
    return candidates[0] if candidates else None


def _version(usable: Iterable[Hierarchy]) -> CgroupVersion:
    versions = frozenset(hierarchy.version for hierarchy in usable)
    return _VERSIONS[versions]


def _limit(controller: str, folder: Path, resources: Resources) -> dict[str, str]:
    v2 = _has(folder, "cgroup.subtree_control")
    if controller == "memory":
        return _memory(folder, resources.memory_bytes, v2=v2)
    if controller == "pids":
        return {"pids.max": str(PIDS_MAX)}
    shares = max(2, resources.cpu_millicores * 1024 // 1000)
    return {"cpu.weight": str(weight_of_shares(shares))} if v2 else {"cpu.shares": str(min(shares, 262144))}


def _memory(folder: Path, memory_bytes: int, *, v2: bool) -> dict[str, str]:
    if memory_bytes <= 0:
        return {}
    if not v2:
        names: Sequence[str] = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        return {name: str(memory_bytes) for name in names if _has(folder, name)}
    settings = {"memory.max": str(memory_bytes), "memory.oom.group": "1"}
    if _has(folder, "memory.swap.max"):
        settings["memory.swap.max"] = "0"
    return settings


@functools.cache
def _has(folder: Path, name: str) -> bool:
    return folder.joinpath(name).exists()


def weight_of_shares(shares: int) -> int:
    """The v2 weight (1 to 10,000) of v1 shares (2 to 262,144), as runc converts them."""
    return max(1, min(10_000, 1 + (shares - 2) * 9999 // 262142))
