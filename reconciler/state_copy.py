"""A state that takes what registrations and evaluations put, for a dry run, a what-if or a simulation. Pure."""

from trueup.models.errors import SpecError
from trueup.models.evaluation import Event
from trueup.models.ids import RevisionId
from trueup.models.node import Node
from trueup.models.record import JobRecord
from trueup.models.revision import Held, Revision
from trueup.models.state import ClusterState
from trueup.models.template import ClusterSettings, NodePolicy, Template


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
