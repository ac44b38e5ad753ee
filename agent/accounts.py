"""Users of this machine, as `agent.doors.Accounts`, from its user database."""

import os
import pwd

from agent.doors import Account


class SystemAccounts:
    """What the machine's user database says; a bare number works without an entry."""

    def account(self, user: str) -> Account:
        """The account of a user name or number; the agent's own for an empty name. LookupError if unknown."""
        try:
            if not user:
                entry = pwd.getpwuid(os.geteuid())
            elif user.isdecimal():
                entry = pwd.getpwuid(int(user))
            else:
                entry = pwd.getpwnam(user)
        except KeyError:
            return _without_entry(user)
        return Account(name=entry.pw_name, home=entry.pw_dir, uid=entry.pw_uid, gid=entry.pw_gid)


def _without_entry(user: str) -> Account:
    if user and not user.isdecimal():
        raise LookupError(f'this node has no user "{user}"')
    uid = int(user) if user else os.geteuid()
    return Account(name=str(uid), home="/", uid=uid, gid=uid if user else os.getegid())
