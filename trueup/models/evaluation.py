"""An evaluation (one pass over one job) and an event (one thing that happened), as history keeps them."""

from datetime import datetime
from typing import Literal

from trueup.models.codec import Model
from trueup.models.ids import EvaluationId


class UnplacedGroup(Model, frozen=True, kw_only=True):
    """How many of a group found no room, and why: a reason and the number of nodes that gave it."""

    group: str
    count: int
    reasons: dict[str, int] = {}


class Evaluation(Model, frozen=True, kw_only=True):
    """One pass over one job and what it did."""

    id: EvaluationId
    job: str
    job_version: int | None = None
    revision: str = ""
    trigger: str = ""
    status: Literal["complete", "blocked", "failed", "partial"] = "complete"
    placed: int = 0
    stopped: int = 0
    unplaced: tuple[UnplacedGroup, ...] = ()
    error: str = ""
    created_at: datetime


class Event(Model, frozen=True, kw_only=True):
    """One thing that happened: *type* in CamelCase, *message* for people, the rest to filter by."""

    at: datetime
    type: str
    message: str
    job: str = ""
    allocation: str = ""
    node: str = ""
    revision: str = ""
