"""What an agent is handed for an allocation, made from the state: by the dispatcher's push and by the heartbeat."""

from trueup.models.allocation import Allocation
from trueup.models.state import ClusterState
from trueup.models.wire import Assignment


def assignment_of(state: ClusterState, allocation: Allocation) -> Assignment | None:
    """All a node needs to run *allocation* in its version; None where that version is known no more."""
    version = state.versions.get((allocation.job, allocation.job_version))
    group = None if version is None else version.job.group(allocation.group)
    if version is None or group is None:
        return None
    return Assignment(
        allocation=allocation,
        job_type=version.job.type,
        group=group,
        min_healthy_time=version.job.update.min_healthy_time,
    )
