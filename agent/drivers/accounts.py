"""Who a process task may run as, and the ids that makes it."""

import os
import pwd
from collections.abc import Collection
from dataclasses import dataclass

from agent.doors import DriverError


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPolicy:
    """What this node allows the process driver. Default tight: off, and no task runs as root.

    *users* are those tasks may name, by name or number, empty: every one but root. The agent's own user is always
    allowed unless it is root; *root* allows that one.
    """

    enabled: bool = False
    root: bool = False
    users: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The ids of a user. *switch*: the task's differ from the agent's, and have to be taken on."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    switch: bool


def identity_of(user: str, policy: ProcessPolicy) -> Identity:
    """The ids a task of *user* gets (empty: the agent's user). DriverError if there is none or policy says no."""
    found = _look_up(user) if user else _own()
    if found.uid == 0 and not policy.root:
        raise DriverError(
            "tasks may not run as root on this node: give the task a `user`, "
            "or list root under drivers.process.users in the agent's configuration"
        )
    if found.switch and policy.users and found.uid not in _uids(policy.users):
        raise DriverError(
            f'tasks may not run as "{user}" on this node: '
            "list it under drivers.process.users in the agent's configuration"
        )
    if found.switch and os.geteuid() != 0:
        raise DriverError(f'the agent does not run as root, so it cannot start a task as "{user}"')
    return found


def known_as(users: Collection[str]) -> frozenset[str]:
    """The users that a policy lists by name and by number, so that whoever compares texts finds either."""
    uids = _uids(users)
    return frozenset({*users, *map(str, uids), *map(name_of, uids)})


def _uids(users: Collection[str]) -> frozenset[int]:
    """Their numbers; a name that this machine does not have is nobody's."""
    return frozenset(uid for user in users if (uid := _uid_of(user)) is not None)


def _uid_of(user: str) -> int | None:
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def name_of(uid: int) -> str:
    """The name of that user; the number of one without an entry in the user database."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _own() -> Identity:
    """The agent's ids, without a look into the user database: every start asks, and nothing is switched."""
    uid = os.geteuid()
    return Identity(name=str(uid), uid=uid, gid=os.getegid(), groups=(), switch=False)


def _look_up(user: str) -> Identity:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        return _without_entry(user)
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    switch = entry.pw_uid != os.geteuid()
    return Identity(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, groups=groups, switch=switch)


def _without_entry(user: str) -> Identity:
    """A bare number works without an entry in the user database; a name does not."""
    if not user.isdecimal():
        raise DriverError(
            f'this node has no user "{user}": create it there, or constrain the job to nodes that do'
        )
    uid = int(user)
    return Identity(name=user, uid=uid, gid=uid, groups=(uid,), switch=uid != os.geteuid())
