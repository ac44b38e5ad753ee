"""Deployments, oldest first."""

from operator import attrgetter
from typing import Final

from metastore.kinds import Kind
from metastore.schema import entity_table, text_column
from trueup.models.deployment import Deployment
from trueup.models.ids import DeploymentId
from trueup.models.state import ClusterState

DEPLOYMENTS: Final[Kind[DeploymentId, Deployment]] = Kind(
    name="deployment",
    table=entity_table("deployments", text_column("id"), text_column("job"), unique=("id",)),
    model=Deployment,
    key_of=attrgetter("id"),
    key_names=("id",),
    held=attrgetter("deployments"),
    put=ClusterState.put_deployment,
    drop=ClusterState.drop_deployment,
    row=lambda deployment, _state: (deployment.id, deployment.job),
)
