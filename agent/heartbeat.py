"""The loop that keeps the control plane informed, and takes in what it answers.

It registers, then beats in the rhythm it is told, and at once (coalesced) when something is to be told. Whatever goes
wrong here stops no task: without an answer everything runs on and nothing new is obeyed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from agent.contact import Standing
from agent.doors import ControlPlane, Refused, Unknown, Unreachable
from agent.journal import Journal
from agent.reports import Reports
from trueup.models.ids import AllocationId
from trueup.models.node import DriverState, NodeResources, NodeUse
from trueup.models.service import ServiceNews
from trueup.models.wire import (
    Assignment,
    HeartbeatRequest,
    HeartbeatResponse,
    RegisterRequest,
    RegisterResponse,
    StopOrder,
)

COALESCE: Final = timedelta(milliseconds=50)
"""How long news waits for more of its kind: 200 tasks that start together are a few beats, not 200."""
RETRY_FIRST: Final = timedelta(milliseconds=250)
RETRY_LONGEST: Final = timedelta(seconds=5)
REFUSED_AGAIN: Final = timedelta(seconds=10)
FIND_WAIT: Final = timedelta(seconds=3)
"""How long a node that has never joined waits for its drivers to say what runs already: an engine may hang."""

_log = structlog.stdlib.get_logger("trueup.agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a registration says of this machine, and *used*, which beats say alone."""

    name: str
    region: str
    endpoint: str
    resources: NodeResources
    attributes: dict[str, str]
    labels: dict[str, str]
    drivers: dict[str, DriverState]
    volumes: tuple[str, ...]
    secrets: tuple[str, ...]
    used: NodeUse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the agent lives, so that a copy of its data folder is told from it. What is not known is empty."""

    boot_id: str
    machine_id: str = ""
    folder: str = ""


class Machine(Protocol):
    """The machine, as it can be asked at any time without waiting."""

    def facts(self) -> Facts:
        """How it is now."""
        ...


class Orders(Protocol):
    """Who does what the control plane says (`agent.runner.Runner`)."""

    def assign(self, assignments: Iterable[Assignment]) -> None: ...
    def stop(self, orders: Iterable[StopOrder]) -> None: ...
    def forget(self, ids: Iterable[AllocationId]) -> None: ...


class Addresses(Protocol):
    """Who keeps the addresses of services (`agent.runner.Runner`), and in which version."""

    @property
    def services_version(self) -> str: ...
    def tell_services(self, news: ServiceNews) -> None: ...


class Found(Protocol):
    """Who knows what runs here without a record (`agent.runner.Runner`)."""

    @property
    def orphans(self) -> Sequence[AllocationId] | None:
        """Allocations of which tasks were found; None while a driver has not said yet what runs."""
        ...

    def when_found(self, listener: Callable[[], None]) -> None:
        """Calls *listener*, on whatever thread, once every driver has said what runs."""
        ...


class Courier(Protocol):
    """Who brings output that the control plane orders (`agent.log_courier.LogCourier`)."""

    def hear(self, answer: HeartbeatResponse) -> None: ...


class Heartbeat:
    """The loop. `news` and `nudge` may be called from any thread."""

    def __init__(
        self,
        *,
        control_plane: ControlPlane,
        journal: Journal,
        standing: Standing,
        reports: Reports,
        orders: Orders,
        addresses: Addresses,
        found: Found,
        machine: Machine,
        place: Place,
        jitter: Callable[[], float],
        on_wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.on_wake = on_wake
        self.courier: Courier | None = None
        """Where there is none, the control plane is told so with every beat."""
        self._control_plane = control_plane
        self._journal = journal
        self._standing = standing
        self._reports = reports
        self._orders = orders
        self._addresses = addresses
        self._found = found
        found.when_found(self.news)
        self._machine = machine
        self._place = place
        self._jitter = jitter
        self._sequence = 0
        self._registered: Facts | None = None
        self._with_holdings = False
        self._nudged = False
        self._failures = 0
        self._begun_at = self._due_at = standing.steady
        self._last_at: datetime | None = None
        self._interval = timedelta()
        self._trouble = ""
        reports.on_news = self.news

    @property
    def trouble(self) -> str:
        """Why the control plane is not heard now; empty while it is."""
        return self._trouble

    @property
    def is_registered(self) -> bool:
        """Whether the control plane has taken this node in since the agent started."""
        return self._registered is not None

    def news(self) -> None:
        """Something is to be told."""
        self.on_wake()

    def nudge(self) -> None:
        """The control plane has something to say: the next beat is due now."""
        self._nudged = True
        self.on_wake()

    def step(self) -> datetime | None:
        """Registers or beats if that is due; returns when to look again (wall clock)."""
        due_at = self._next_due()
        if due_at > self._standing.steady:
            return self._standing.wall(due_at)
        if self._looks_still():
            return self._standing.wall(self._begun_at + FIND_WAIT)
        facts = self._machine.facts()
        try:
            if self._registered is None or _differs(self._registered, facts):
                self._register(facts)
            else:
                self._beat(facts)
        except Unreachable as error:
            self._failed(str(error), self._retry_delay())
        except Unknown as error:
            # Registered anew at once; if that finds no mercy either, not more often than this.
            again = self._registered is None
            self._registered = None
            self._failed(str(error), REFUSED_AGAIN if again else timedelta())
        except Refused as error:
            self._registered = None
            told = REFUSED_AGAIN if error.again_seconds is None else timedelta(seconds=error.again_seconds)
            self._failed(str(error), min(told, REFUSED_AGAIN))
        return self._standing.wall(self._next_due())

    def _looks_still(self) -> bool:
        """A new data folder may stand for one that was lost: then what runs is known by the drivers alone."""
        if self._journal.identity.node_secret or self._found.orphans is not None:
            return False
        return self._standing.steady < self._begun_at + FIND_WAIT

    def _next_due(self) -> datetime:
        """The next beat of the rhythm, or sooner if there is news of either side and the control plane is heard."""
        calm = self._registered is not None and not self._failures
        if calm and self._last_at is not None and (self._nudged or self._reports.has_news):
            return min(self._due_at, self._last_at + COALESCE)
        return self._due_at

    def _register(self, facts: Facts) -> None:
        identity = self._journal.identity
        sheet = self._reports.sheet()
        self._sequence += 1
        answer = self._control_plane.register(
            RegisterRequest(
                node_id=identity.node_id,
                name=facts.name,
                region=facts.region,
                endpoint=facts.endpoint,
                resources=facts.resources,
                attributes=facts.attributes,
                labels=facts.labels,
                drivers=facts.drivers,
                volumes=facts.volumes,
                secrets=facts.secrets,
                boot_id=self._place.boot_id,
                machine_id=self._place.machine_id,
                folder=self._place.folder,
                incarnation=identity.incarnation,
                sequence=self._sequence,
                cluster_id=identity.cluster_id,
                epoch=identity.epoch,
                index=identity.index,
                allocations=self._reports.holdings(),
                orphans=tuple(self._found.orphans or ()),
            )
        )
        if answer.epoch < identity.epoch:
            raise Refused(_backwards(answer.epoch, identity.epoch))
        self._journal.change_identity(node_secret=answer.node_secret, cluster_id=answer.cluster_id)
        self._standing.hear(epoch=answer.epoch, index=answer.index, adopting=answer.adopting)
        # The registration told of all that is held; what is told of others goes with the first beat.
        self._reports.told(sheet, only_held=True)
        self._registered = facts
        _log.info("registered", node=facts.name, cluster=answer.cluster_id, epoch=answer.epoch)
        self._answered(answer)
        self._due_at = self._standing.steady

    def _beat(self, facts: Facts) -> None:
        identity = self._journal.identity
        sheet = self._reports.sheet(everything=self._with_holdings)
        self._sequence += 1
        # Before the question: a nudge that comes while it is under way has another one asked.
        self._nudged = False
        answer = self._control_plane.heartbeat(
            HeartbeatRequest(
                node_id=identity.node_id,
                incarnation=identity.incarnation,
                sequence=self._sequence,
                used=facts.used,
                drivers=facts.drivers,
                updates=sheet.updates,
                holdings_digest=sheet.digest,
                holdings=sheet.keys if self._with_holdings else None,
                services=self._addresses.services_version,
                brings_logs=self.courier is not None,
            )
        )
        word = self._standing.hear(epoch=answer.epoch, index=answer.index, adopting=answer.adopting)
        if word == "refuse":
            raise Unreachable(_backwards(answer.epoch, identity.epoch))
        self._reports.told(sheet)
        self._answered(answer)
        self._obey(answer, everything=word == "obey")
        if self.courier is not None:
            self.courier.hear(answer)
        # What was just sent and did not help is not sent again at once: it comes with the next beat.
        if answer.send_holdings and not self._with_holdings:
            self._due_at = self._standing.steady
        self._with_holdings = answer.send_holdings
        if answer.epoch != identity.epoch:
            # A store that is another than it was has to hear of everything.
            self._registered = None
            self._due_at = self._standing.steady

    def _obey(self, answer: HeartbeatResponse, *, everything: bool) -> None:
        """Not *everything*: what may be from before stops nothing, and takes no address away."""
        if everything:
            self._orders.stop(answer.stop)
            self._orders.forget(answer.forget)
            if answer.services is not None:
                self._addresses.tell_services(answer.services)
        self._orders.assign(answer.start)

    def _answered(self, answer: RegisterResponse | HeartbeatResponse) -> None:
        if self._trouble:
            _log.info("the control plane is heard again")
        self._trouble, self._failures = "", 0
        self._interval = timedelta(seconds=answer.heartbeat_seconds)
        self._last_at = self._standing.steady
        self._due_at = self._last_at + self._interval

    def _failed(self, trouble: str, delay: timedelta) -> None:
        if trouble != self._trouble:
            _log.warning("the control plane is not heard; tasks run on", why=trouble)
        self._trouble = trouble
        self._failures = min(self._failures + 1, 16)
        self._due_at = self._standing.steady + delay

    def _retry_delay(self) -> timedelta:
        """Spread, so that a thousand agents do not come back in one moment."""
        seconds = RETRY_FIRST.total_seconds() * 2.0**self._failures
        longest = RETRY_LONGEST.total_seconds()
        return timedelta(seconds=min(seconds, longest) * (0.5 + 0.5 * self._jitter()))


def _differs(registered: Facts, facts: Facts) -> bool:
    """Whether anything changed that only a registration tells; drivers' states go with every beat."""
    return _told_once(registered) != _told_once(facts)


def _told_once(facts: Facts) -> tuple[object, ...]:
    drivers = {name: sorted(state.attributes.items()) for name, state in facts.drivers.items()}
    return (
        facts.endpoint,
        facts.resources,
        facts.attributes,
        facts.labels,
        facts.volumes,
        facts.secrets,
        drivers,
    )


def _backwards(epoch: int, known: int) -> str:
    return (
        f"it answers with epoch {epoch}, and this agent has heard {known}: an older copy of its store is running; "
        "nothing it says is obeyed"
    )
