"""A job as the store knows it: its current version, where it stands in git, and what the last pass found."""

from datetime import datetime

from trueup.models.codec import Model
from trueup.models.desired import Place
from trueup.models.evaluation import UnplacedGroup
from trueup.models.job import Job


class JobVersion(Model, frozen=True, kw_only=True):
    """A version of a job, stored once: numbers grow by one from 1, also over a deletion and return."""

    job: Job
    version: int
    revision: str
    digest: str
    created_at: datetime
    stable: bool = False


class JobRecord(Model, frozen=True, kw_only=True):
    """One job's row. *removed* jobs stay until nothing of them runs and no history names them.

    *revision* is the newest commit that changed the job; *invalid* says its newest document has errors and this is
    the last good one. *last_run_at* is the scheduled time of the newest run that was started or skipped,
    *last_run_token* the `restart_token` it was for. *frozen_version* is the version a frozen job keeps running,
    *reverted_to* the one that runs instead of the newest, whose rollout failed; *reverted* says why.
    """

    name: str
    version: int
    revision: str
    place: Place
    files: tuple[str, ...] = ()
    template: str = ""
    removed: bool = False
    removed_revision: str = ""
    invalid: bool = False
    reverted: str = ""
    reverted_to: int | None = None
    unplaced: tuple[UnplacedGroup, ...] = ()
    error: str = ""
    evaluated_version: int = 0
    frozen_version: int | None = None
    last_run_at: datetime | None = None
    last_run_token: str = ""
    created_at: datetime
    modified_at: datetime
