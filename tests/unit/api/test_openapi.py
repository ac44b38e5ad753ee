"""The OpenAPI document: valid, whole, and true of real answers."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jsonschema
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.app import ROUTES
from api.openapi import openapi_document
from api.twins import twin_of
from tests.builders import NOON, a_job, a_node, an_allocation
from tests.unit.api.world import World, an_event
from trueup.models.allocation import DeploymentState, RescheduleEvent, TaskEvent, TaskState
from trueup.models.deployment import Deployment, DeploymentGroup
from trueup.models.evaluation import Evaluation
from trueup.models.ids import DeploymentId, EvaluationId, NodeId, RevisionId
from trueup.models.job import Port, Schedule, Service
from trueup.models.node import Drain
from trueup.models.revision import Revision
from trueup.models.template import Template
from trueup.models.units import Duration
from trueup.models.wire import HeartbeatRequest, RegisterRequest


@pytest.fixture
def full_world(world: World) -> World:
    """A world with something in every field."""
    web = a_job("web", ports=(Port(name="http"),))
    group = msgspec.structs.replace(
        web.groups[0], services=(Service(name="shop", port="http", labels={"a": "b"}),)
    )
    web = msgspec.structs.replace(web, groups=(group,))
    node = a_node(
        drain=Drain(started_at=NOON, deadline_at=NOON + timedelta(hours=1)), attributes={"arch": "amd64"}
    )
    world.put(
        web,
        a_job("report", type="batch", schedule=Schedule(cron="@daily")),
        node,
        an_allocation(
            web,
            node,
            ports={"http": 20000},
            tasks={
                "server": TaskState(
                    state="running", started_at=NOON, events=(TaskEvent(at=NOON, type="Started"),)
                )
            },
            deployment=DeploymentState(id=DeploymentId("d"), healthy=True, at=NOON),
            reschedule_events=(RescheduleEvent(at=NOON, delay=Duration(seconds=5), node_id=NodeId("x")),),
        ),
        an_event(),
    )
    with world.store.transaction() as transaction:
        transaction.put_template(Template(name="base"))
        transaction.put_revision(Revision(id=RevisionId("r1"), seen_at=NOON))
        transaction.put_deployment(
            Deployment(
                id=DeploymentId("d"),
                job="web",
                job_version=1,
                groups={"app": DeploymentGroup(desired_total=1)},
                created_at=NOON,
                modified_at=NOON,
            )
        )
        transaction.put_evaluation(Evaluation(id=EvaluationId("e"), job="web", created_at=NOON))
    return world


PLACES = {"name": "web", "id": "web.app[0]@node-1", "id_or_name": "node-1"}
OF_ROUTE = {"/templates/<name>": "/templates/base", "/services/<name>": "/services/shop"}


def closed(schemas: dict[str, Any]) -> dict[str, Any]:
    """The schemas, with every field that they do not name refused."""
    return {
        name: {**schema, "additionalProperties": False} if schema.get("properties") else schema
        for name, schema in schemas.items()
    }


def readable() -> Iterator[str]:
    for route in ROUTES:
        if route.method == "GET" and route.media_type == "application/json":
            yield route.path


def test_valid(world: World) -> None:
    """A validator of OpenAPI 3.1 accepts it."""
    OpenAPIV31SpecValidator(world.get("/openapi.json")).validate()


@pytest.mark.parametrize("path", [*readable()])
def test_answers_are_as_described(full_world: World, path: str) -> None:
    """Every JSON answer fits its schema, and has no field that its schema does not name."""
    document = full_world.get("/openapi.json")
    asked = OF_ROUTE.get(path, path)
    template = path.replace("<", "{").replace(">", "}")
    for name, value in PLACES.items():
        asked = asked.replace(f"<{name}>", value)
    schema = document["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    answer = full_world.get(asked)
    assert answer.get("items", True), "an empty list shows nothing"
    jsonschema.Draft202012Validator(
        {**schema, "components": {"schemas": closed(document["components"]["schemas"])}}
    ).validate(answer)


def test_every_route_is_in_it(world: World) -> None:
    """Every route but the page's own files is described, under a name of its own."""
    paths = world.get("/openapi.json")["paths"]
    listed = [route for route in ROUTES if route.listed]
    assert sum(len(operations) for operations in paths.values()) == len(listed)
    names = [operation["operationId"] for operations in paths.values() for operation in operations.values()]
    assert len(set(names)) == len(names)


def test_twin_has_the_form_of_the_wire() -> None:
    """A twin takes what the wire's type writes, units in their JSON form."""
    for kind in (RegisterRequest, HeartbeatRequest):
        _, components = msgspec.json.schema_components([twin_of(kind)])
        required = {field.encode_name for field in msgspec.structs.fields(kind) if field.required}
        assert set(components[kind.__name__]["required"]) == required
    _, components = msgspec.json.schema_components([twin_of(RegisterRequest)])
    assert components["NodeResources"]["properties"]["cpu"]["type"] == "number"


def test_document_needs_no_store() -> None:
    """The document is made from the route table alone."""
    assert openapi_document(ROUTES)["openapi"] == "3.1.0"
