"""Makes placements: new ones, and such that take the place of another. Pure."""

from datetime import datetime

import msgspec

from reconciler.changes import Place
from reconciler.rollout import Rollout
from reconciler.rules import Verdict
from trueup.models.allocation import StopReason
from trueup.models.ids import NodeId
from trueup.models.job import TaskGroup
from trueup.models.record import JobVersion


class Maker(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Makes placements of one group in one version, for a rollout or a scheduled run."""

    version: JobVersion
    group: TaskGroup
    rollout: Rollout | None = None
    run: datetime | None = None

    def at(self, index: int, node_id: NodeId | None = None, *, canary: bool = False) -> Place:
        return Place(
            version=self.version,
            group=self.group,
            index=index,
            run=self.run,
            canary=canary,
            deployment=None if self.rollout is None else self.rollout.id,
            node_id=node_id,
        )

    def instead_of(
        self,
        verdict: Verdict,
        *,
        coupled: bool = False,
        canary: bool = False,
        node_id: NodeId | None = None,
    ) -> Place:
        held = verdict.allocation
        return Place(
            version=self.version,
            group=self.group,
            index=held.index,
            run=self.run,
            stop=None if verdict.ends_anyway else verdict.stop,
            coupled=coupled,
            canary=canary,
            deployment=None if self.rollout is None else self.rollout.id,
            node_id=node_id,
            avoid_nodes=frozenset(event.node_id for event in verdict.events if event.node_id is not None),
            reschedule_events=verdict.events,
        )

    def coupled(self, verdict: Verdict, reason: StopReason, node_id: NodeId | None = None) -> Place:
        changed = Verdict(
            allocation=verdict.allocation, standing=verdict.standing, reason=reason, events=verdict.events
        )
        return self.instead_of(changed, coupled=True, node_id=node_id)
