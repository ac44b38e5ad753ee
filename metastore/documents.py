"""Templates and node policies, as last applied."""

from operator import attrgetter
from typing import Final

from metastore.kinds import Kind
from metastore.schema import entity_table, text_column
from trueup.models.template import NodePolicy, Template

TEMPLATES: Final[Kind[str, Template]] = Kind(
    name="template",
    table=entity_table("templates", text_column("name"), unique=("name",)),
    model=Template,
    key_of=attrgetter("name"),
    key_names=("name",),
    held=attrgetter("templates"),
    put=lambda state, template: state.templates.__setitem__(template.name, template),
    drop=lambda state, name: state.templates.__delitem__(name),
    row=lambda template, _state: (template.name,),
)

NODE_POLICIES: Final[Kind[str, NodePolicy]] = Kind(
    name="node_policy",
    table=entity_table("node_policies", text_column("name"), unique=("name",)),
    model=NodePolicy,
    key_of=attrgetter("name"),
    key_names=("name",),
    held=attrgetter("node_policies"),
    put=lambda state, policy: state.node_policies.__setitem__(policy.name, policy),
    drop=lambda state, name: state.node_policies.__delitem__(name),
    row=lambda policy, _state: (policy.name,),
)
