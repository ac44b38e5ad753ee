"""What a node's policy forbids a task, from the attributes its drivers tell of it. Pure.

The agent decides on the final request and refuses by itself; here, work is not sent where it would be refused. A node
that tells nothing (written by hand, or older) is taken to allow it.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from trueup.models.artifacts import ArtifactPolicy, refusal
from trueup.models.capabilities import EVERY_CONTAINER_HAS, bare
from trueup.models.job import Task
from trueup.models.node import DriverState
from trueup.models.reasons import Reason, forbidden, forbidden_artifact, forbidden_secret
from trueup.models.secret_rules import may_name, read
from trueup.models.ulimits import exceeds, soft_and_hard

_OWN_NETWORK: Final = frozenset({"", "default", "bridge"})
_ROOT: Final = "root"


def forbids(driver: DriverState, task: Task) -> Reason | None:
    """Why the policy behind *driver* does not let *task* run there; None if it does."""
    what = _process(driver, task) if task.driver == "process" else _docker(driver, task)
    if what is not None:
        return forbidden(task.driver, what)
    what = _artifacts(driver, task) if task.artifacts else None
    return None if what is None else forbidden_artifact(what)


def forbids_secret(jobs: str, job: str, name: str) -> Reason | None:
    """Why *job* may not name a secret for which the node tells these *jobs*; None if it may."""
    return None if may_name(read(jobs), job) else forbidden_secret(name, job)


def _process(driver: DriverState, task: Task) -> str | None:
    told = driver.attributes
    if "root" not in told:
        return None
    user = _canonical(task.user) or told.get("runs_as", "")
    if user == _ROOT and told["root"] != "true":
        return "tasks may not run as root"
    return _user(told, user) or _ulimits(told, task)


def _user(told: Mapping[str, str], user: str) -> str | None:
    """By name and number alike: a node tells both of each user it allows, as only it knows which is whose."""
    users = _listed(told.get("users", ""))
    allowed = users | {told.get("runs_as", ""), told.get("runs_as_uid", "")}
    return f"tasks may not run as {user}" if users and user not in allowed | {_ROOT} else None


def _canonical(user: str) -> str:
    """A number without leading zeros; that of root is its name, on every machine."""
    if not (user.isascii() and user.isdecimal()):
        return user
    return str(int(user)) if int(user) else _ROOT


def _ulimits(told: Mapping[str, str], task: Task) -> str | None:
    """An agent that is not root can give no more than it has itself."""
    for name, most in sorted(_amounts(told.get("ulimits", "")).items()):
        if name in task.config.ulimits and exceeds(soft_and_hard(task.config.ulimits[name])[1], most):
            return f"the limit {name} can be {most} at most"
    return None


def _amounts(text: str) -> dict[str, int]:
    pairs = (one.partition("=") for one in _listed(text))
    return {name: int(amount) for name, _, amount in pairs if amount.isdecimal()}


def _docker(driver: DriverState, task: Task) -> str | None:
    told, config = driver.attributes, task.config
    if config.privileged and told.get("privileged") == "false":
        return "privileged containers are not allowed"
    if "network_modes" in told and not config.network_mode.startswith("task:"):
        modes = _listed(told["network_modes"])
        mode = "bridge" if config.network_mode in _OWN_NETWORK else config.network_mode
        if mode not in modes:
            return f"network_mode {mode} is not allowed"
    if "capabilities" in told and (
        name := _missing_capability(_listed(told["capabilities"]), config.cap_add)
    ):
        return f"the capability {name} is not allowed"
    return _mounts(_listed(told["mounts"]), task) if "mounts" in told else None


def _artifacts(driver: DriverState, task: Task) -> str | None:
    told = driver.attributes
    if "artifact_paths" not in told:
        return None
    hosts = tuple(sorted(_listed(told["artifact_hosts"]))) if "artifact_hosts" in told else None
    policy = ArtifactPolicy(hosts=hosts, paths=tuple(sorted(_listed(told["artifact_paths"]))))
    # What a variable becomes is known on the node alone.
    sources = (one.source for one in task.artifacts if "${" not in one.source)
    return next((what for source in sources if (what := refusal(source, policy)) is not None), None)


def _mounts(allowed: frozenset[str], task: Task) -> str | None:
    for mount in task.config.mounts:
        source, kind = str(mount.get("source", "")), mount.get("type", "bind")
        if kind == "bind" and not _beneath(source, allowed):
            return f"the path {source} may not be mounted"
        if kind == "volume" and source and source not in allowed:
            return f"the engine's volume {source} may not be mounted"
    return None


def _missing_capability(allowed: frozenset[str], wanted: Sequence[str]) -> str | None:
    given = {bare(name) for name in allowed} | EVERY_CONTAINER_HAS
    return None if "ALL" in given else next((name for name in wanted if bare(name) not in given), None)


def _beneath(source: str, allowed: frozenset[str]) -> bool:
    path = PurePosixPath(source)
    return path.is_absolute() and any(
        path.is_relative_to(root) for root in allowed if PurePosixPath(root).is_absolute()
    )


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split(",")) - {""}
