"""A deployment: one rollout of one job version."""

from datetime import datetime
from typing import Literal

from trueup.models.codec import Model
from trueup.models.ids import DeploymentId

DeploymentStatus = Literal["running", "paused", "successful", "failed", "superseded", "cancelled"]


class DeploymentGroup(Model, frozen=True, kw_only=True):
    """One group's part: how many are wanted in the new version, and whether its canaries were promoted."""

    desired_total: int
    desired_canaries: int = 0
    promoted: bool = False
    placed: int = 0
    healthy: int = 0
    unhealthy: int = 0
    progress_at: datetime | None = None


class Deployment(Model, frozen=True, kw_only=True):
    """One rollout as stored. *digest* is the job digest it rolls out."""

    id: DeploymentId
    job: str
    job_version: int
    digest: str = ""
    status: DeploymentStatus = "running"
    reason: str = ""
    groups: dict[str, DeploymentGroup]
    created_at: datetime
    modified_at: datetime

    @property
    def is_active(self) -> bool:
        """Whether it still governs its job's changes."""
        return self.status in {"running", "paused"}
