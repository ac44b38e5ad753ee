"""`trueup plan`: what applying a revision to a state would do, by the very functions that apply it.

Nothing is written: the revision is registered on a copy of the state, then each job is evaluated in the order the
live loop takes, each on top of what those before it planned.
"""

from datetime import datetime

from reconciler.dirty import evaluation_order
from reconciler.evaluate import evaluate, record
from reconciler.planner import Plan
from reconciler.register import Registration, register, write
from reconciler.report import Action, PlanReport, job_plan
from trueup.models.desired import DesiredState
from trueup.models.errors import SpecError
from trueup.models.evaluation import Event
from trueup.models.ids import IdSource, RevisionId
from trueup.models.node import Node
from trueup.models.record import JobRecord
from trueup.models.revision import Held, Revision
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings, NodePolicy, Template


def dry_run(state: ClusterState, desired: DesiredState | None, now: datetime, ids: IdSource) -> PlanReport:
    """What one pass over every job would do; *desired* None plans the state as it stands.

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


class StateCopy:
    """A state that takes the puts of registrations and evaluations. What is only history is dropped."""

    def __init__(self, state: ClusterState) -> None:
        self.state = state
        self.put_version = state.put_version
        self.put_allocation = state.put_allocation
        self.put_deployment = state.put_deployment

    def put_job(self, record: JobRecord) -> None:
        self.state.jobs[record.name] = record

    def put_template(self, template: Template) -> None:
        self.state.templates[template.name] = template

    def drop_template(self, name: str) -> None:
        self.state.templates.pop(name, None)

    def put_node_policy(self, policy: NodePolicy) -> None:
        self.state.node_policies[policy.name] = policy

    def drop_node_policy(self, name: str) -> None:
        self.state.node_policies.pop(name, None)

    def put_settings(self, settings: ClusterSettings) -> None:
        self.state.settings = settings

    def put_node(self, node: Node) -> None:
        self.state.nodes[node.id] = node

    def put_event(self, event: Event) -> None:
        """An event is history, and a dry run makes none."""

    def put_revision(self, revision: Revision) -> None:
        """A revision's record is history, and a dry run makes none."""

    def set_revision(self, revision: RevisionId, held: Held | None) -> None:
        self.state.revision, self.state.held = revision, held

    def set_held(self, held: Held | None) -> None:
        self.state.held = held

    def set_errors(self, errors: tuple[SpecError, ...]) -> None:
        self.state.errors = errors
