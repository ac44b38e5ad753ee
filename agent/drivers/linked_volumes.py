"""The volumes of a process task: links in its folder to the node's own folders, since it sees the node as it is.

What `read_only` says of a volume a link cannot keep: whether the task may write there, the folder's rights say.
"""

import os
from pathlib import Path

from agent.doors import Account, DriverError, TaskLaunch
from agent.drivers.accounts import Identity
from agent.task_tree import OPEN_FOLDER, TaskTree


def link_volumes(launch: TaskLaunch, identity: Identity) -> None:
    """Puts a link for each volume into the task's folder, in the place of the one of an earlier start.

    One at an absolute path, as specs of earlier releases have it, is left to be what it is on the node. DriverError
    where the node's folder is missing or something else is in the link's place.
    """
    wanted = [(source, place) for source, place, _ in launch.mounts if not place.startswith("/")]
    if not wanted:
        return
    owner = Account(name=identity.name, home="", uid=identity.uid, gid=identity.gid)
    folder = os.open(launch.task_dir, OPEN_FOLDER)
    try:
        tree = TaskTree(folder, owner)
        for source, place in wanted:
            _link(tree, source, place)
    finally:
        os.close(folder)


def _link(tree: TaskTree, source: str, place: str) -> None:
    parts = [part for part in place.split("/") if part not in {"", "."}]
    if not parts or ".." in parts:
        raise DriverError(f"volumes: {place!r} must be a path beneath the task's folder, without ..")
    if not Path(source).is_dir():
        raise DriverError(
            f"volumes: the node's folder {source} is missing; make it, or mount it", temporary=True
        )
    try:
        tree.link(parts, source)
    except OSError as error:
        raise DriverError(
            f"volumes: cannot put a link at {place} in the task's folder: {error.strerror}; is there something else?"
        ) from None
