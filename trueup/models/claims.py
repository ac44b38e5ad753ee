"""Which name an allocation claims among all that is wanted: the store's constraint and the invariant ask the same."""

from trueup.models.allocation import Allocation, wanted_key
from trueup.models.state import ClusterState


def claimed_name(allocation: Allocation, state: ClusterState) -> str | None:
    """The key *allocation* claims among all that is wanted (see `wanted_key`); None if it claims none.

    One whose job is unknown was adopted from an agent of a lost store: it may be a system job's, so it claims its
    name on its own node only.
    """
    version = state.versions.get((allocation.job, allocation.job_version)) or state.current_version(
        allocation.job
    )
    per_node = version is None or version.job.type in {"system", "sysbatch"}
    return wanted_key(allocation, per_node=per_node)
