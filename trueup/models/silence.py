"""For how long an allocation on a silent node counts as wanted before it is lost, by the contract's `disconnect`."""

from trueup.models.job import TaskGroup
from trueup.models.units import Duration


def patience(group: TaskGroup) -> Duration:
    """The span from the first missed contact to `lost`; zero: at once.

    With `stop_after` the agent has ended the tasks by itself after that span and the longest `kill_timeout`, so that no
    replacement runs beside them.
    """
    policy = group.disconnect
    if policy.stop_after is None:
        return policy.lost_after
    longest = max((task.kill_timeout for task in group.tasks), default=Duration())
    return Duration(seconds=(policy.stop_after + longest).total_seconds())
