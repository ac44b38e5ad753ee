"""`trueup plan`: what applying a revision to a state would do, by the very functions that apply it.

Nothing is written: the revision is registered on a copy of the state, then each job is evaluated in the order the
live loop takes, each on top of what those before it planned.
"""

from collections.abc import Sequence
from datetime import datetime

from reconciler.dirty import evaluation_order
from reconciler.evaluate import evaluate, record
from reconciler.losses import loss_of
from reconciler.planner import Plan
from reconciler.register import Registration, register, write
from reconciler.report import Action, PlanReport, job_plan
from reconciler.state_copy import StateCopy
from trueup.models.desired import DesiredState
from trueup.models.ids import IdSource, NodeId
from trueup.models.state import ClusterState


def dry_run(
    state: ClusterState,
    desired: DesiredState | None,
    now: datetime,
    ids: IdSource,
    *,
    lose: Sequence[NodeId] | None = None,
) -> PlanReport:
    """What one pass over every job would do; *desired* None plans the state as it stands.

    *lose*: and then what the loss of each of these nodes, one at a time, would leave without room (None: not asked).
    A held revision changes nothing, so its report shows the hold and the plans of what is applied now.
    """
    world = StateCopy(state.copy())
    registration = None if desired is None else register(state, desired, now)
    if registration is not None and registration.held is None:
        write(registration, world.state, world, now)
    outcomes: dict[str, Plan] = {}
    for name in evaluation_order(world.state, world.state.jobs):
        outcomes[name] = evaluate(name, world.state, now, ids)
        record(outcomes[name], world.state, world, now)
    names = sorted({*outcomes, *state.jobs})
    return PlanReport(
        revision=_revision(state, desired),
        base_revision=state.revision,
        index=state.index,
        held=None if registration is None else registration.held,
        jobs=tuple(
            job_plan(
                name,
                _action(name, registration),
                state.wanted_job(name),
                world.state.wanted_job(name),
                outcomes.get(name),
            )
            for name in names
            if _is_worth_showing(name, state, world.state, outcomes)
        ),
        errors=() if desired is None else desired.errors,
        warnings=() if desired is None else desired.warnings,
        losses=None if lose is None else tuple(loss_of(one, world.state, now, ids) for one in lose),
    )


def _revision(state: ClusterState, desired: DesiredState | None) -> str:
    return (state.revision or "") if desired is None else desired.commit.id


def _action(name: str, registration: Registration | None) -> Action:
    if registration is None:
        return "none"
    changed = registration.changed
    if name in changed.created:
        return "create"
    if name in changed.updated:
        return "update"
    return "delete" if name in changed.removed else "none"


def _is_worth_showing(
    name: str, before: ClusterState, after: ClusterState, outcomes: dict[str, Plan]
) -> bool:
    """A job that was removed long ago and has nothing left to stop is no part of a report."""
    outcome = outcomes.get(name)
    wanted = before.wanted_job(name) is not None or after.wanted_job(name) is not None
    return wanted or (outcome is not None and bool(outcome.stopped))
