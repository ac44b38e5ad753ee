"""`/openapi.json`: the route table and the types of its answers, as OpenAPI 3.1."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from api.ask import Ask
from api.problems import PROBLEM_TYPE, ProblemDocument
from api.routing import Parameter, Route
from api.twins import twin_of
from trueup import __version__

_REF: Final = "#/components/schemas/{name}"
_PARAMETER_SCHEMAS: Final[Mapping[str, dict[str, Any]]] = {
    "text": {"type": "string"},
    "integer": {"type": "integer", "minimum": 0},
    "duration": {"type": "string", "examples": ["30s"]},
    "boolean": {"type": "boolean"},
}
_PROBLEM_STATUSES: Final[Mapping[str, Mapping[str, str]]] = {
    "readers": {
        "400": "A parameter is wrong.",
        "401": "The read token is needed.",
        "404": "There is nothing by that name.",
        "410": "A cursor or index of another epoch, or of history that was cut.",
        "503": "Too many requests wait already.",
    },
    "agents": {
        "400": "The body is not what it should be.",
        "401": "The token is not known: register with the cluster token.",
        "404": "Nobody waits for that output any more.",
        "409": "Another living node has that id or name.",
    },
    "forges": {
        "401": "It is not signed with the secret.",
        "404": "No secret was given to the server.",
        "413": "The body is larger than what is read.",
        "503": "Others are being read.",
    },
    "everyone": {"503": "Not ready."},
}


def openapi_document(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI document of *routes*."""
    types = [kind for route in routes for kind in (route.answer, route.body) if kind is not None]
    types.append(ProblemDocument)
    schemas, components = msgspec.json.schema_components([twin_of(kind) for kind in types], ref_template=_REF)
    by_type = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.listed:
            paths.setdefault(_template(route.path), {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "trueup control plane",
            "version": __version__,
            "description": "Read-only. What runs is changed by a commit to the spec source.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def show_openapi(ask: Ask) -> dict[str, Any]:
    """The document of the app that is asked."""
    return openapi_document(ask.shared.routes)


def _operation(route: Route, by_type: Mapping[int, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.about,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in route.variables
            ),
            *(_parameter(parameter) for parameter in route.all_parameters),
        ],
        "responses": {
            **_success(route, by_type),
            **{
                status: _problem(about, by_type)
                for status, about in _PROBLEM_STATUSES[route.audience].items()
            },
        },
        "security": _SECURITY[route.audience],
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": by_type[id(route.body)]}},
        }
    elif route.raw_body:
        operation["requestBody"] = {"content": {route.raw_body: {}}}
    return operation


_SECURITY: Final[Mapping[str, list[dict[str, list[str]]]]] = {
    "readers": [{}, {"bearer": []}, {"basic": []}],
    "agents": [{"bearer": []}],
    "forges": [{}],
    "everyone": [{}],
}


def _success(route: Route, by_type: Mapping[int, Any]) -> dict[str, Any]:
    if not route.media_type:
        return {"202": {"description": "It was taken; there is nothing to say."}}
    schema = {"type": "string"} if route.answer is None else by_type[id(route.answer)]
    return {
        "200": {
            "description": route.about,
            "headers": {
                "X-Index": {"description": "The store's change counter.", "schema": {"type": "integer"}}
            },
            "content": {media: {"schema": schema} for media in (route.media_type, *route.other_media_types)},
        }
    }


def _problem(about: str, by_type: Mapping[int, Any]) -> dict[str, Any]:
    return {"description": about, "content": {PROBLEM_TYPE: {"schema": by_type[id(ProblemDocument)]}}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = dict(_PARAMETER_SCHEMAS[parameter.kind])
    if parameter.choices:
        schema["enum"] = list(parameter.choices)
    return {"name": parameter.name, "in": "query", "description": parameter.about, "schema": schema}


def _template(path: str) -> str:
    return path.replace("<path:", "<").replace("<", "{").replace(">", "}")


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/openapi.json",
        handler=show_openapi,
        about="This API as OpenAPI 3.1.",
        answer=dict[str, Any],
    ),
)
