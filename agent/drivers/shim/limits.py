"""The resource limits of a task, set by the forked child just before it takes on the task's user.

Which they are is decided by the agent (`agent/drivers/ulimits.py`). One that the spec asks for is set as it stands, or
the task does not start; one of the defaults is brought as near as this process may.
"""

import errno
import resource

Limit = tuple[int, int, int, str]
"""The kernel's number of it, soft and hard (-1: unlimited), and its name where the spec asks for it, else nothing."""


class Refused(OSError):
    """A limit that was asked for cannot be set; *name* says which."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(number, name)
        self.name = name


def apply(limits: list[Limit]) -> None:
    """Sets the limits of the calling process."""
    for number, soft, hard, name in limits:
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError) as error:  # Python says ValueError where the kernel says EPERM.
            if name:
                raise Refused(name, getattr(error, "errno", None) or errno.EPERM) from None
            _approach(number, soft, hard)


def _approach(number: int, soft: int, hard: int) -> None:
    """Sets what is wanted as far as the hard limit that this process has lets it."""
    most = resource.getrlimit(number)[1]
    hard = _less(hard, most)
    resource.setrlimit(number, (_less(soft, hard), hard))


def _less(one: int, other: int) -> int:
    if resource.RLIM_INFINITY in {one, other}:
        return max(one, other)
    return min(one, other)
