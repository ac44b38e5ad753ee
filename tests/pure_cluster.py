"""A cluster of pure functions: revisions registered, jobs evaluated, and agents that do at once as they are told."""

from datetime import datetime, timedelta

import msgspec

from reconciler.dirty import evaluation_order
from reconciler.evaluate import evaluate, record
from reconciler.invariants import violations
from reconciler.planner import Plan
from reconciler.register import Registration, register, write
from reconciler.state_copy import StateCopy
from tests.builders import NOON, CountingIds
from trueup.models.allocation import Allocation, TaskState
from trueup.models.desired import DesiredState
from trueup.models.state import ClusterState


class PureCluster:
    """A state and a clock. Every change of the state is followed by a look at the invariants."""

    def __init__(self, state: ClusterState, now: datetime = NOON) -> None:
        self.world = StateCopy(state)
        self.now = now
        self.ids = CountingIds()
        self.revisions = 1

    @property
    def state(self) -> ClusterState:
        return self.world.state

    def apply(self, desired: DesiredState) -> Registration:
        """Registers a revision."""
        registration = register(self.state, desired, self.now)
        write(registration, self.state, self.world, self.now)
        return registration

    def one_pass(self) -> dict[str, Plan]:
        """Evaluates every job once, and records what comes out."""
        outcomes = {}
        for name in evaluation_order(self.state, self.state.jobs):
            outcomes[name] = evaluate(name, self.state, self.now, self.ids)
            record(outcomes[name], self.state, self.world, self.now)
            assert violations(self.state) == []
        return outcomes

    def agents_obey(self) -> None:
        """Everything wanted runs and is healthy; everything told to stop has ended."""
        for held in list(self.state.allocations.values()):
            if held.is_terminal or self.state.nodes[held.node_id].status != "ready":
                continue
            if held.is_wanted:
                self.put(held, client_status="running", healthy=True, tasks=_running(held, self.now))
            else:
                self.put(held, client_status="complete", healthy=None)

    def settle(self, most: int = 50) -> int:
        """Passes and obedience in turn until a pass changes nothing; how many passes changed something."""
        for passes in range(most):
            self.agents_obey()
            self.now += timedelta(seconds=1)
            outcomes = self.one_pass()
            if all(one.is_empty for one in outcomes.values()):
                return passes
        raise AssertionError(f"still changing after {most} passes")

    def put(self, held: Allocation, **fields: object) -> Allocation:
        """Changes an allocation as an agent's report would."""
        changed = msgspec.structs.replace(held, **fields)
        self.world.put_allocation(changed)
        assert violations(self.state) == []
        return changed

    def wanted(self, job: str = "web") -> list[Allocation]:
        """What is wanted of a job, by name."""
        return sorted(
            (held for held in self.state.allocations_of_job(job) if held.is_wanted),
            key=lambda held: (held.group, held.index, held.node),
        )

    def names(self, job: str = "web") -> list[str]:
        """The names wanted of a job."""
        return [held.name for held in self.wanted(job)]


def _running(held: Allocation, now: datetime) -> dict[str, TaskState]:
    return held.tasks or {"server": TaskState(state="running", started_at=now)}
