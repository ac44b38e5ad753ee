"""Who belongs to the cluster: nodes join, beat, fall silent and come back, and what they say is taken into the store.

A beat without news writes nothing. Messages of one node are taken in one after another, so that an older one never
overwrites a newer one's news; nodes do not wait for each other.
"""

import hmac
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import msgspec

from metastore.adopted import Adopted
from metastore.adoption import Adoption
from metastore.claims import Claims, is_same_machine
from metastore.enrolment import Entrance, clone_conflict, enter, node_of, remembers_another, status_of
from metastore.errors import NameTaken, UnknownNode
from metastore.liveness import Liveness, Rhythm, earliest, rhythm_of
from metastore.mending import Mend, expected_keys, mend, orphan_stops
from metastore.reports import Report, event_of, report_of, reported, silent_report
from metastore.service_telling import ServiceTelling
from metastore.silence import Silences
from metastore.store import SqlStore
from metastore.transaction import StoreTransaction
from trueup.models.allocation import Allocation
from trueup.models.clock import Clock
from trueup.models.evaluation import Event
from trueup.models.ids import AllocationId, IdSource, NodeId
from trueup.models.node import Node, NodeUse
from trueup.models.state import ClusterState
from trueup.models.wire import (
    HeartbeatRequest,
    HeartbeatResponse,
    RegisterRequest,
    RegisterResponse,
    holdings_digest,
)

ORPHAN_GRACE_SECONDS: Final = 60.0
"""How long what the store does not know may run on, at the same epoch, before it is stopped (contract, section 4)."""
_FORGET_REPEATS: Final = 3
_BEATS_MISSED: Final = 1.5
"""After how many rhythms without a beat a node may be rebooting: what beats on is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipSettings:
    """A node silent for *node_timeout* and *grace* is down. *expected_nodes*: how many a new store waits for."""

    node_timeout: timedelta = timedelta(seconds=10)
    grace: timedelta = timedelta(seconds=5)
    expected_nodes: int = 0


@dataclass(slots=True)
class _Session:
    """What is known of a node beside the store: its newest message, and what it is still to be told."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    order: tuple[int, int] = (0, 0)
    has_to_tell_all: bool = False
    """A registration was taken in, which may have come late after a restart of ours: a beat has to confirm it."""
    has_registered: bool = False
    has_used_secret: bool = False
    orphans: dict[AllocationId, float] = field(default_factory=dict)
    forget: dict[AllocationId, int] = field(default_factory=dict)
    used: NodeUse | None = None
    """What its newest beat measured. Kept here alone: it changes with every beat, and nothing is decided by it."""


class Membership:
    """As the API's `Membership` and as a `Loop`: `step` watches over nodes. Thread-safe."""

    def __init__(
        self,
        store: SqlStore,
        clock: Clock,
        ids: IdSource,
        settings: MembershipSettings | None = None,
        *,
        services: ServiceTelling | None = None,
    ) -> None:
        """Takes up the nodes of the store; each has a whole deadline before it is judged.

        Without *services* no node is told of any.
        """
        self._store, self._clock, self._ids, self._services = store, clock, ids, services
        self._settings = settings or MembershipSettings()
        self._opened_index = store.state.index
        self._met_strangers = False
        self._lock = threading.Lock()
        self._sessions: dict[NodeId, _Session] = {}
        self._liveness, self._claims = Liveness(), Claims()
        now = clock.monotonic()
        rhythm = self.rhythm
        nodes = list(store.state.nodes.values())
        waited_for = [node.id for node in nodes if node.status in {"ready", "incompatible"}]
        for node_id in waited_for:
            self._liveness.heard(node_id, now + rhythm.deadline_seconds)
        self._adoption = Adoption(
            known=waited_for,
            is_new=not nodes,
            expected_nodes=self._settings.expected_nodes,
            now=now,
            deadline_seconds=rhythm.deadline_seconds,
        )
        self._adopted = Adopted(store, clock)
        self._silences = Silences(
            store, clock, self._liveness, self._claims, self._settings.grace.total_seconds()
        )

    @property
    def adopting(self) -> bool:
        """Whether the control plane still listens to what agents hold: until then nothing is decided."""
        return not self._adoption.is_over(self._clock.monotonic())

    @property
    def met_strangers(self) -> bool:
        """Whether an agent came that remembers another store, or this one further on: ours is new, or put back.

        What it knows to be wanted may be older than what runs: a revision has to be read before anything is decided.
        """
        return self._met_strangers

    @property
    def rhythm(self) -> Rhythm:
        """How often nodes beat now, and when a silent one is down."""
        return rhythm_of(len(self._store.state.nodes), self._settings.node_timeout, self._settings.grace)

    def secret_of(self, node_id: NodeId) -> str | None:
        """The node's own secret, for pushes to it; None if it is not known."""
        return self._store.node_secret(node_id)

    def used(self, node_id: NodeId) -> NodeUse | None:
        """What is in use on a node by its newest beat; None while it is silent, or does not say."""
        session = self._sessions.get(node_id)
        if session is None or not self._liveness.is_living(node_id, self._clock.monotonic()):
            return None
        return session.used

    def forget(self, node_id: NodeId, allocation_id: AllocationId) -> None:
        """Tells the node, with its next beats, that the allocation is history and its tombstone may go."""
        if node_id in self._store.state.nodes:
            session = self._session(node_id)
            with session.lock:
                session.forget[allocation_id] = _FORGET_REPEATS

    def step(self) -> datetime:
        """Judges nodes that are silent for too long; returns when to look again."""
        now, rhythm = self._clock.monotonic(), self.rhythm
        # A node that joins meanwhile is not silent before the next look.
        look_at = now + rhythm.heartbeat_seconds
        due = earliest(
            [
                self._silences.step(now, look_at, rhythm.deadline_seconds),
                self._adoption.ends_at(now),
                None if self.adopting else self._adopted.step(now),
            ]
        )
        return self._clock.now() + timedelta(seconds=max((due or look_at) - now, 0.0))

    def register(
        self, request: RegisterRequest, *, joined: bool, secret: str | None, peer: str
    ) -> RegisterResponse:
        """Takes a node in. *joined*: it showed the cluster token; else *secret* must be its own.

        UnknownNode where neither holds, NameTaken where a living node has that id or name. A repeat changes nothing.
        """
        if not joined and not self._owns(request.node_id, secret):
            raise UnknownNode("neither the cluster token nor the secret of a known node")
        session = self._session(request.node_id)
        with session.lock:
            self._admit(request, joined_anew=joined and session.has_used_secret)
            order = (request.incarnation, request.sequence)
            known_secret = self._store.node_secret(request.node_id)
            is_late = order < session.order and self._is_waited_for(request.node_id)
            if is_late and known_secret is not None:
                return self._welcome(known_secret)
            own_secret = self._enter(
                request, session, peer, keeps_secret=not joined or self._is_repeat(request, session)
            )
            session.has_registered, session.has_used_secret = True, not joined
            session.order = order
            session.has_to_tell_all = bool(self._store.state.allocations_on_node(request.node_id))
            self._forget_ended(request, session)
            self._note_heard(request.node_id)
            self._adopted.note(request.node_id)
            self._adoption.heard(request.node_id, holds_any=bool(request.allocations))
        return self._welcome(own_secret)

    def _welcome(self, own_secret: str) -> RegisterResponse:
        state, rhythm = self._store.state, self.rhythm
        return RegisterResponse(
            node_secret=own_secret,
            cluster_id=state.cluster_id,
            epoch=state.epoch,
            index=state.index,
            adopting=self.adopting,
            heartbeat_seconds=rhythm.heartbeat_seconds,
            deadline_seconds=rhythm.deadline_seconds,
        )

    def heartbeat(self, request: HeartbeatRequest, *, secret: str) -> HeartbeatResponse:
        """Takes one beat of the node that *secret* belongs to.

        UnknownNode if it is nobody's, and once after the control plane was started: only a registration says what
        the agent remembers of epoch and index, and whether all it holds is known here.
        One older than another that was taken already changes nothing, and is answered with nothing to do.
        """
        node_id = request.node_id
        node = self._store.state.nodes.get(node_id)
        if not self._owns(node_id, secret) or node is None or request.incarnation != node.incarnation:
            raise UnknownNode(
                f"node {node_id} is not known by this secret; register again with the cluster token"
            )
        session = self._session(node_id)
        with session.lock:
            if not session.has_registered:
                raise UnknownNode("the control plane was started anew; register again")
            order = (request.incarnation, request.sequence)
            if order < session.order:
                if not self._is_waited_for(node_id):
                    raise UnknownNode("the node was silent for a deadline; register again")
                return self._answer(session)
            session.order, session.has_used_secret = order, True
            session.used = request.used
            self._note_heard(node_id)
            self._take_in(request, node)
            if request.holdings is not None:
                session.has_to_tell_all = False
            found = None if session.has_to_tell_all else self._mend(request, session)
            answer = self._answer(session, found, asks=found is None)
            return answer if self._services is None else _with_services(answer, request, self._services)

    def _session(self, node_id: NodeId) -> _Session:
        with self._lock:
            return self._sessions.setdefault(node_id, _Session())

    def _owns(self, node_id: NodeId, secret: str | None) -> bool:
        own = self._store.node_secret(node_id)
        return own is not None and secret is not None and hmac.compare_digest(own.encode(), secret.encode())

    def _is_waited_for(self, node_id: NodeId) -> bool:
        """Whether the node is not silent for too long.

        What comes with a lower number is a message that was late as long as it is not; of one that is, it is the first
        word of an agent whose data folder was put back from a backup, which counts its starts from there.
        """
        return self._liveness.is_living(node_id, self._clock.monotonic())

    def _is_living(self, node: Node) -> bool:
        return self._is_waited_for(node.id)

    def _note_heard(self, node_id: NodeId) -> None:
        self._liveness.heard(node_id, self._clock.monotonic() + self.rhythm.deadline_seconds)

    def _admit(self, request: RegisterRequest, *, joined_anew: bool) -> None:
        known = self._store.state.nodes.get(request.node_id)
        if known is not None and self._is_living(known):
            beats_left = self._beats_left(known.id)
            clone = clone_conflict(known, request, still_beats=beats_left > 0)
            if clone is not None:
                raise NameTaken(clone, again_seconds=beats_left or self._claimed(known, request))
            if joined_anew:
                # The cluster token alone does not let one node act for another that lives.
                raise NameTaken(
                    f"the id {known.id} in this agent's data folder is that of node {known.name}, which is alive and "
                    "has a secret of its own; give this agent a data folder of its own"
                )
        named = self._store.state.node_named(request.name)
        if named is not None and named.id != request.node_id and self._is_living(named):
            raise self._taken(named, request)

    def _beats_left(self, node_id: NodeId) -> float:
        """For how long, from now, a node that was heard counts as one that beats; 0 for one that is late."""
        if not self._session(node_id).has_registered:
            return 0.0
        rhythm, now = self.rhythm, self._clock.monotonic()
        since = rhythm.deadline_seconds - self._liveness.seconds_left(node_id, now)
        return max(rhythm.heartbeat_seconds * _BEATS_MISSED - since, 0.0)

    def _taken(self, named: Node, request: RegisterRequest) -> NameTaken:
        return NameTaken(
            f"another agent that is alive is called {request.name}{_where(named)}; give this one another --name, or "
            f"end the other and wait {self.rhythm.deadline_seconds:g} s",
            again_seconds=self._claimed(named, request),
        )

    def _claimed(self, node: Node, request: RegisterRequest) -> float | None:
        """Notes that an agent of the node's own machine waits for its place, and says for how long it has to."""
        if not is_same_machine(node, request):
            return None
        now = self._clock.monotonic()
        self._claims.note(node.id, now)
        return self._liveness.seconds_left(node.id, now)

    def _is_repeat(self, request: RegisterRequest, session: _Session) -> bool:
        """Whether the agent joined already, and may have been told its secret in an answer that is on its way."""
        known = self._store.state.nodes.get(request.node_id)
        is_same = known is not None and known.incarnation == request.incarnation
        return is_same and not session.has_used_secret

    def _enter(self, request: RegisterRequest, session: _Session, peer: str, *, keeps_secret: bool) -> str:
        now = self._clock.now()
        own_secret = self._store.node_secret(request.node_id)
        with self._store.transaction() as tx:
            if own_secret is None or not keeps_secret:
                own_secret = self._ids.new_id() + self._ids.new_id()
                tx.put_node_secret(request.node_id, own_secret)
            known_index = tx.state.index if session.has_registered else self._opened_index
            self._met_strangers |= remembers_another(request, tx.state, known_index)
            enter(
                tx,
                Entrance(
                    request=request,
                    node=node_of(request, tx.state, peer, now),
                    now=now,
                    known_index=known_index,
                ),
            )
        return own_secret

    def _forget_ended(self, request: RegisterRequest, session: _Session) -> None:
        """What has ended on the node and is history here needs no tombstone."""
        known = self._store.state.allocations
        for holding in request.allocations:
            if holding.id not in known and holding.client_status in {"complete", "failed", "lost"}:
                session.forget[holding.id] = _FORGET_REPEATS

    def _take_in(self, request: HeartbeatRequest, node: Node) -> None:
        """Writes what is news in a beat; nothing is written where nothing is."""
        now = self._clock.now()
        state = self._store.state
        returns = node.status in {"down", "disconnected"} and request.holdings is not None
        is_news = returns or bool(request.drivers and request.drivers != node.drivers)
        reports = {update.id: report_of(update) for update in request.updates}
        if not is_news and not any(
            reported(held, reports[held.id], state, now) is not held for held in self._held(node.id, reports)
        ):
            return
        with self._store.transaction() as tx:
            if is_news:
                self._renew(tx, request, returns=returns, now=now)
            if returns:
                # All at once: between the node's being ready and its tasks' being known nothing may be decided.
                reports = {**self._silent_reports(request, tx.state), **reports}
            for held in self._held(node.id, reports):
                _take_report(tx, held, reports[held.id], now)

    def _held(self, node_id: NodeId, ids: Iterable[AllocationId]) -> list[Allocation]:
        """Those of *ids* that the node has; a node says nothing of another's."""
        known = (self._store.state.allocations.get(one) for one in ids)
        return [held for held in known if held is not None and held.node_id == node_id]

    @staticmethod
    def _silent_reports(request: HeartbeatRequest, state: ClusterState) -> dict[AllocationId, Report]:
        """Of what the node still holds, and of what was only unknown: as it was last reported."""
        keys = {key.id for key in request.holdings or ()}
        return {
            held.id: silent_report(held)
            for held in state.allocations_on_node(request.node_id)
            if held.client_status == "unknown" or (held.client_status == "lost" and held.id in keys)
        }

    @staticmethod
    def _renew(tx: StoreTransaction, request: HeartbeatRequest, *, returns: bool, now: datetime) -> None:
        node = tx.state.nodes[request.node_id]
        renewed = msgspec.structs.replace(node, drivers=request.drivers or node.drivers)
        if returns:
            status = status_of(node.protocol)
            renewed = msgspec.structs.replace(renewed, status=status, status_changed_at=now)
            tx.put_event(Event(at=now, type="NodeReady", message=f"node {node.name} is back", node=node.name))
        tx.put_node(renewed)

    def _mend(self, request: HeartbeatRequest, session: _Session) -> Mend | None:
        """What puts the node right; None if it has to say what it holds first."""
        state = self._store.state
        node = state.nodes.get(request.node_id)
        for update in request.updates:
            if update.client_status in {"complete", "failed"} and update.id not in state.allocations:
                session.forget[update.id] = _FORGET_REPEATS
        away = node is None or node.status in {"down", "disconnected"}
        if not away and request.holdings_digest == holdings_digest(expected_keys(state, request.node_id)):
            session.orphans.clear()
            return Mend()
        if request.holdings is None:
            return None
        found = mend(state, request.node_id, request.holdings)
        if self.adopting:
            return Mend(start=found.start)
        return Mend(start=found.start, stop=(*found.stop, *orphan_stops(self._overdue(found, session))))

    def _overdue(self, found: Mend, session: _Session) -> list[AllocationId]:
        now = self._clock.monotonic()
        session.orphans = {one: session.orphans.get(one, now) for one in found.orphans}
        return [one for one, since in session.orphans.items() if now - since >= ORPHAN_GRACE_SECONDS]

    def _answer(
        self, session: _Session, found: Mend | None = None, *, asks: bool = False
    ) -> HeartbeatResponse:
        state, rhythm = self._store.state, self.rhythm
        found = found or Mend()
        return HeartbeatResponse(
            epoch=state.epoch,
            index=state.index,
            adopting=self.adopting,
            heartbeat_seconds=rhythm.heartbeat_seconds,
            deadline_seconds=rhythm.deadline_seconds,
            send_holdings=asks,
            start=found.start,
            stop=found.stop,
            forget=self._forgets(session),
        )

    @staticmethod
    def _forgets(session: _Session) -> tuple[AllocationId, ...]:
        """Each is said a few times: an answer may be lost, and what was missed is said again at the next join."""
        said = tuple(sorted(session.forget))
        for one in said:
            session.forget[one] -= 1
            if not session.forget[one]:
                del session.forget[one]
        return said


def _where(node: Node) -> str:
    return f" (at {node.endpoint})" if node.endpoint else ""


def _with_services(
    answer: HeartbeatResponse, request: HeartbeatRequest, services: ServiceTelling
) -> HeartbeatResponse:
    """*answer* with what the node has to hear of services; the same object if that is nothing."""
    news = services.news(request.node_id, request.services)
    beat_seconds = services.beat_seconds(request.node_id, answer.heartbeat_seconds)
    if news is None and beat_seconds == answer.heartbeat_seconds:
        return answer
    return msgspec.structs.replace(answer, services=news, heartbeat_seconds=beat_seconds)


def _take_report(tx: StoreTransaction, held: Allocation, report: Report, now: datetime) -> None:
    before = tx.state.allocations.get(held.id)
    if before is None:
        return
    after = reported(before, report, tx.state, now)
    if after is not before:
        tx.put_allocation(after)
        event = event_of(before, after, now)
        if event is not None:
            tx.put_event(event)
