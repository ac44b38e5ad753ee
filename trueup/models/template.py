"""Documents beside jobs: templates, policy for nodes, and settings of the whole cluster."""

from typing import Any, Literal

import msgspec

from trueup.models.codec import Model
from trueup.models.job import SecretValue
from trueup.models.units import Duration, Percent


class Template(Model, frozen=True, kw_only=True):
    """Parameters with JSON Schema keywords, and the job they are put into (plain data, not yet rendered)."""

    name: str
    parameters: dict[str, Any] = {}
    job: dict[str, Any] = {}


class DrainPolicy(Model, frozen=True, kw_only=True):
    """Move what runs elsewhere, and stop what is left at the deadline."""

    deadline: Duration = Duration(hours=1)


class NodePolicy(Model, frozen=True, kw_only=True):
    """What git says about the node of that name."""

    name: str
    labels: dict[str, str] = {}
    eligible: bool = True
    drain: DrainPolicy | None = None
    lost: bool = False


class Hold(Model, frozen=True, kw_only=True):
    """How much loss holds a revision: more than *stops* percent of all, of at least *jobs* jobs."""

    stops_percent: Percent = msgspec.field(name="stops", default=Percent(50))
    jobs: int = 2


class Notification(Model, frozen=True, kw_only=True):
    """A webhook for what needs a person, and lasts for *after*."""

    url: str | SecretValue
    secret: str = ""
    on: tuple[str, ...] = ()
    after: Duration = Duration(seconds=30)


class Retention(Model, frozen=True, kw_only=True):
    """How long history is kept; `revisions` is a number of them."""

    allocations: Duration = Duration(hours=24)
    evaluations: Duration = Duration(hours=1)
    events: Duration = Duration(days=7)
    revisions: int = 1000


class ClusterSettings(Model, frozen=True, kw_only=True):
    """The Cluster document, with its defaults where there is none."""

    confirm: str = ""
    hold: Hold | Literal["off"] = Hold()
    parameters: dict[str, Any] = {}
    placement: Literal["binpack", "spread"] = "binpack"
    preemption: tuple[str, ...] = ()
    nodes: Literal["any", "declared"] = "any"
    notifications: tuple[Notification, ...] = ()
    retention: Retention = Retention()
