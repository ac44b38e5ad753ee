"""The network between control plane and agents: a call arrives, or is lost, or its answer is, or it comes late, or
twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Literal, TypeVar

from agent.doors import Refused, Unknown, Unreachable
from agent.journal import Journal
from agent.node_agent import NodeAgent
from metastore.errors import NameTaken, UnknownNode
from metastore.membership import Membership
from trueup.models.agent_error import AgentUnreachable
from trueup.models.clock import Clock
from trueup.models.node import Node
from trueup.models.wire import (
    Assignment,
    HeartbeatRequest,
    HeartbeatResponse,
    RegisterRequest,
    RegisterResponse,
    StopOrder,
)

if TYPE_CHECKING:
    from tests.simulation.world import Server

Fate = Literal["arrives", "lost", "answer lost", "late", "twice"]
T = TypeVar("T")


@dataclass(slots=True)
class Network:
    """Decides each call's fate; *trouble* is the chance that it does not simply arrive. *cut* nodes hear nothing."""

    random: Random
    clock: Clock
    trouble: float = 0.0
    cut: set[str] = field(default_factory=set)
    _late: list[tuple[datetime, Callable[[], object]]] = field(default_factory=list)

    def call(self, node: str, work: Callable[[], T], failure: Callable[[str], Exception]) -> T:
        """Makes a call to or from a node; *failure* makes the error the caller sees when no answer comes."""
        fate = self._fate(node)
        if fate == "lost":
            raise failure("lost")
        if fate == "late":
            at = self.clock.now() + timedelta(seconds=self.random.uniform(0, 20))
            self._late.append((at, work))
            raise failure("late")
        if fate == "twice":
            _quietly(work)
        answer = work()
        if fate == "answer lost":
            raise failure("answer lost")
        return answer

    def deliver_late(self) -> None:
        """Delivers what is due; nobody waits for its answer any more."""
        now = self.clock.now()
        due = [entry for entry in self._late if entry[0] <= now]
        self._late = [entry for entry in self._late if entry[0] > now]
        for _, work in sorted(due, key=lambda entry: entry[0]):
            _quietly(work)

    def next_late(self) -> datetime | None:
        """When the next late call arrives."""
        return min((at for at, _ in self._late), default=None)

    def _fate(self, node: str) -> Fate:
        if node in self.cut:
            return "lost"
        if self.random.random() >= self.trouble:
            return "arrives"
        return self.random.choice(("lost", "answer lost", "late", "twice"))


class ServerKilled(BaseException):
    """kill -9 of the control plane, in the middle of whatever it does."""


class ToServer:
    """The control plane as an agent reaches it, as `agent.doors.ControlPlane`. *on_killed*: it died of the call."""

    def __init__(
        self,
        network: Network,
        node: str,
        journal: Journal,
        server: Callable[[], "Server | None"],
        on_killed: Callable[[], None],
    ) -> None:
        self._network, self._node, self._journal, self._server = network, node, journal, server
        self._on_killed = on_killed

    def register(self, request: RegisterRequest) -> RegisterResponse:
        secret = self._journal.identity.node_secret

        def work() -> RegisterResponse:
            membership = self._membership()
            if secret:
                try:
                    return membership.register(request, joined=False, secret=secret, peer="sim")
                except UnknownNode:
                    pass
            return membership.register(request, joined=True, secret=None, peer="sim")

        def survived() -> RegisterResponse:
            return self._unless_killed(work)

        try:
            return self._network.call(self._node, survived, Unreachable)
        except NameTaken as error:
            raise Refused(str(error), again_seconds=error.again_seconds) from error

    def heartbeat(self, request: HeartbeatRequest) -> HeartbeatResponse:
        secret = self._journal.identity.node_secret

        def work() -> HeartbeatResponse:
            return self._unless_killed(lambda: self._membership().heartbeat(request, secret=secret))

        try:
            return self._network.call(self._node, work, Unreachable)
        except UnknownNode as error:
            raise Unknown(str(error)) from error

    def _unless_killed(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except ServerKilled:
            self._on_killed()
            raise Unreachable("connection reset") from None

    def _membership(self) -> Membership:
        server = self._server()
        if server is None:
            raise Unreachable("the server is away")
        return server.membership


class ToAgents:
    """Agents as the dispatcher reaches them, as `reconciler.doors.Agents`."""

    def __init__(
        self, network: Network, agent_of: Callable[[str], NodeAgent | None], epoch: Callable[[], int]
    ) -> None:
        self._network, self._agent_of, self._epoch = network, agent_of, epoch

    def start(self, node: Node, assignments: Sequence[Assignment]) -> None:
        epoch = self._epoch()

        def work() -> None:
            agent = self._agent(node)
            if agent.standing.judge_push(epoch) == "refuse":
                raise AgentUnreachable("409")
            agent.runner.assign(assignments)

        self._network.call(node.name, work, AgentUnreachable)

    def stop(self, node: Node, orders: Sequence[StopOrder]) -> None:
        epoch = self._epoch()

        def work() -> None:
            agent = self._agent(node)
            if agent.standing.judge_push(epoch) != "obey":
                raise AgentUnreachable("409")
            agent.runner.stop(orders)

        self._network.call(node.name, work, AgentUnreachable)

    def nudge(self, node: Node) -> None:
        """As `metastore.service_telling.Nudges`."""

        def work() -> None:
            self._agent(node).heartbeat.nudge()

        self._network.call(node.name, work, AgentUnreachable)

    def _agent(self, node: Node) -> NodeAgent:
        agent = self._agent_of(node.name)
        if agent is None:
            raise AgentUnreachable("connection refused")
        return agent


def _quietly(work: Callable[[], object]) -> None:
    """Whatever the other side answers, nobody hears it."""
    try:
        work()
    except (AgentUnreachable, Unreachable, UnknownNode, NameTaken):
        return
