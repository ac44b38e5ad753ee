"""The schemas are sound, agree with the models, and are read alike by our walk, jsonschema and another engine."""

import json
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cli.commands.schema import command
from tests.unit.sources.trees import load
from trueup.models.codec import Model, from_plain
from trueup.models.job import Job, Reschedule, Restart, SecretValue, Task, TaskGroup
from trueup.models.template import ClusterSettings, NodePolicy, Template
from trueup.sources.schemas import KINDS, schema, schema_text, validator
from trueup.sources.shape import Shape

MODELS: Final[dict[str, type[Model]]] = {
    "Job": Job,
    "Template": Template,
    "Node": NodePolicy,
    "Cluster": ClusterSettings,
}
ONLY_IN_DOCUMENTS: Final = {
    "Job": {"kind", "template", "parameters"},
    "Template": {"kind"},
    "Node": {"kind"},
    "Cluster": {"kind", "name"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_schema_is_valid_json_schema(kind: str) -> None:
    Draft202012Validator.check_schema(json.loads(schema_text(kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_trueup_schema_prints_what_validation_uses(kind: str) -> None:
    from click.testing import CliRunner

    assert CliRunner().invoke(command, [kind.lower()]).stdout == schema_text(kind)


def test_there_is_no_schema_of_another_kind() -> None:
    with pytest.raises(KeyError):
        schema_text("Pod")


def every_object(part: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema of a mapping with fixed keys."""
    if "properties" in part:
        yield path, part
        for key, below in part["properties"].items():
            yield from every_object(below, f"{path}.{key}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(part.get(keyword), dict):
            yield from every_object(part[keyword], f"{path}[]")


@pytest.mark.parametrize("kind", KINDS)
def test_no_mapping_of_a_schema_takes_unknown_keys(kind: str) -> None:
    whole = json.loads(schema_text(kind)) if kind == "Template" else schema(kind)
    assert [path for path, part in every_object(whole) if part.get("additionalProperties") is not False] == []


# Models and schemas name the same fields, with the same defaults.


def struct_of(annotation: Any) -> type[Model] | None:
    """The model an annotation holds, through unions, tuples and dicts; secrets are said by `value` in schemas."""
    for part in (annotation, *(typing.get_args(annotation))):
        if isinstance(part, type) and issubclass(part, Model) and part is not SecretValue:
            return part
        if part is not annotation:
            below = struct_of(part)
            if below is not None:
                return below
    return None


def below(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of one item of a list."""
    items: Mapping[str, Any] = part.get("items", part)
    return items


def pairs(
    model: type[Model], part: Mapping[str, Any], path: str
) -> Iterator[tuple[str, type[Model], Mapping[str, Any]]]:
    """Each model with its schema, from the top down."""
    yield path, model, part
    for field in msgspec.structs.fields(model):
        inner = struct_of(field.type)
        held = part["properties"].get(field.encode_name)
        if inner is not None and held is not None:
            yield from pairs(inner, below(held), f"{path}.{field.encode_name}")


ALL_PAIRS: Final = [
    pytest.param(path, found, part, id=path)
    for kind, model in MODELS.items()
    for path, found, part in pairs(model, schema(kind), kind)
]


@pytest.mark.parametrize(("path", "model", "part"), ALL_PAIRS)
def test_model_and_schema_have_the_same_fields(
    path: str, model: type[Model], part: Mapping[str, Any]
) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(model)}
    assert part["properties"].keys() - ONLY_IN_DOCUMENTS.get(path, set()) == fields


@pytest.mark.parametrize(("path", "model", "part"), ALL_PAIRS)
def test_defaults_of_the_schema_are_those_of_the_model(
    path: str, model: type[Model], part: Mapping[str, Any]
) -> None:
    by_type = model in (Restart, Reschedule)  # what is left out there follows from the type of the job
    for field in msgspec.structs.fields(model):
        held = part["properties"][field.encode_name]
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if "default" in held:
            assert from_plain(held["default"], field.type) == default, field.encode_name
        elif not by_type and isinstance(default, (bool, int)):
            pytest.fail(f"{path}.{field.encode_name} has a default of {default} the schema does not tell")


@pytest.mark.parametrize(("path", "model", "part"), ALL_PAIRS)
def test_choices_of_the_schema_are_those_of_the_model(
    path: str, model: type[Model], part: Mapping[str, Any]
) -> None:
    for field in msgspec.structs.fields(model):
        choices = (
            set(typing.get_args(field.type)) if typing.get_origin(field.type) is typing.Literal else None
        )
        if choices is not None:
            assert set(part["properties"][field.encode_name]["enum"]) == choices, field.encode_name


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described(kind: str) -> None:
    told = [
        f"{path}.{key}"
        for path, part in every_object(schema(kind))
        for key, held in part["properties"].items()
        if key != "kind" and not held.get("description")
    ]
    assert told == []


# Our walk promises that jsonschema has nothing to find.

SEEDS: Final[list[dict[str, Any]]] = [
    {
        "kind": "Job",
        "name": "web",
        "priority": 50,
        "labels": {"a": "b"},
        "regions": ["eu"],
        "constraints": [{"attribute": "node.name", "operator": "=", "value": "x"}],
        "update": {"max_parallel": 1, "min_healthy_time": "10s"},
        "groups": [
            {
                "name": "app",
                "count": 3,
                "ports": [{"name": "http", "port": 80}],
                "tasks": [
                    {
                        "config": {"image": "x", "ulimits": {"nofile": 3}},
                        "env": {"A": "b", "S": {"secret": "s"}},
                        "resources": {"cpu": 0.5, "memory": "1MiB"},
                        "files": [{"path": "a", "content": "b"}],
                    }
                ],
            }
        ],
    },
    {"kind": "Job", "name": "web", "template": "base", "parameters": {"a": 1}},
    {"kind": "Node", "name": "n", "labels": {}, "drain": {"deadline": "1h"}},
    {
        "kind": "Cluster",
        "name": "c",
        "hold": {"stops": "5%"},
        "notifications": [{"url": "https://x", "on": ["held"]}],
    },
    {"kind": "Cluster", "name": "c", "hold": "off", "preemption": ["batch"]},
]
ODD: Final[list[Any]] = [
    None, True, 0, -1, 1.5, 2**40, "", "x", "10s", "-", "Ä", [], [None], ["a", "a"], {}, {"secret": "a"}, {"a": {}},
]  # fmt: skip


def spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path of plain data."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in items:
        yield from spots(held, (*path, key))


def changed(value: Any, path: tuple[Any, ...], odd: Any, how: str) -> dict[str, Any]:
    """A copy with one value replaced, removed, or given an unknown key."""
    copy: dict[str, Any] = json.loads(json.dumps(value))
    holder: Any = copy
    for step in path[:-1]:
        holder = holder[step]
    if how == "remove":
        del holder[path[-1]]
    elif how == "add" and isinstance(holder, dict):
        holder["nonsense"] = odd
    else:
        holder[path[-1]] = odd
    return copy


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    document: dict[str, Any] = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from([path for path in spots(document) if path and path != ("kind",)]))
        document = changed(
            document, path, draw(st.sampled_from(ODD)), draw(st.sampled_from(["put", "remove", "add"]))
        )
    return document


SHAPES: Final = {kind: Shape(schema(kind)) for kind in KINDS if kind != "Template"}


@given(documents())
@settings(max_examples=300)
def test_what_the_walk_calls_clean_is_valid(document: dict[str, Any]) -> None:
    plain, clean = SHAPES[document["kind"]].read(document)
    assert plain == document
    if clean:
        assert list(validator(document["kind"]).iter_errors(document)) == []


@pytest.mark.parametrize("document", SEEDS)
def test_the_walk_knows_a_sound_document(document: dict[str, Any]) -> None:
    assert SHAPES[document["kind"]].accepts(document)


ORACLES: Final = {kind: jsonschema_rs.Draft202012Validator(json.loads(schema_text(kind))) for kind in SHAPES}


@given(documents())
@settings(max_examples=300)
def test_another_engine_finds_nothing_where_ours_does_not(document: dict[str, Any]) -> None:
    """Not the other way round: formats are ours, and 3.0 is a whole number to JSON Schema alone."""
    if not list(validator(document["kind"]).iter_errors(document)):
        assert ORACLES[document["kind"]].is_valid(document)


@given(documents())
@settings(max_examples=150)
def test_a_document_is_in_the_state_or_has_an_error(document: dict[str, Any]) -> None:
    state = load({"a.yaml": json.dumps(document)})
    held = [*state.jobs, *state.nodes, *(["c"] if state.cluster is not None else [])]
    assert bool(held) != bool(state.errors)


def test_groups_and_tasks_are_what_the_models_say() -> None:
    assert struct_of(Job.__annotations__["groups"]) is TaskGroup
    assert struct_of(TaskGroup.__annotations__["tasks"]) is Task
