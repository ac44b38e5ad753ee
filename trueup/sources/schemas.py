"""The JSON Schemas of the kinds, as `trueup schema` prints them and as validation uses them."""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry

from trueup.sources.formats import compiled, format_checker

KINDS: Final = ("Job", "Template", "Node", "Cluster")

Schema = dict[str, Any]


@lru_cache(maxsize=8)
def schema_text(kind: str) -> str:
    """The schema of a kind (in any case) as it is written. KeyError if there is no such kind."""
    if kind.capitalize() not in KINDS:
        raise KeyError(kind)
    return files("schemas").joinpath(f"{kind.lower()}.json").read_text("utf-8")


@lru_cache(maxsize=8)
def schema(kind: str) -> Schema:
    """The schema of a kind as data; shared, not to be changed. References inside are put in place where they end."""
    read: Schema = json.loads(schema_text(kind))
    if kind == "Template":  # its parameters are schemas themselves, so its references have no end
        return read
    whole: Schema = _without_references(read, read.pop("$defs", {}))
    return whole


@lru_cache(maxsize=8)
def validator(kind: str) -> Validator:
    """The validator of a complete document of that kind."""
    return make_validator(schema(kind))


@lru_cache(maxsize=1)
def partial_job_schema() -> Schema:
    """The schema of a job that lacks what something else supplies: nothing is required."""
    partial: Schema = _without_required(schema("Job"))
    return partial


@lru_cache(maxsize=1)
def partial_job_validator() -> Validator:
    """The validator of such a job."""
    return make_validator(partial_job_schema())


def make_validator(made_of: Schema, kind: Any = None) -> Validator:  # noqa: ANN401 - validators have no common type
    """A validator that fetches nothing, matches by RE2, and knows the formats of specs; *kind* is SPEC_VALIDATOR."""
    made: Validator = (kind or SPEC_VALIDATOR)(made_of, registry=_NOTHING, format_checker=_formats())
    return made


_NOTHING: Final[Registry[Any]] = Registry()


@lru_cache(maxsize=1)
def _formats() -> Any:  # noqa: ANN401 - FormatChecker, made late
    return format_checker()


def _without_references(part: object, definitions: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(part, list):
        return [_without_references(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref")
    if reference is None:
        return {key: _without_references(held, definitions) for key, held in part.items()}
    target = _without_references(definitions[reference.removeprefix("#/$defs/")], definitions)
    return {**target, **{key: held for key, held in part.items() if key != "$ref"}}


def _without_required(part: object) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(part, list):
        return [_without_required(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        key: _without_required(held)
        for key, held in part.items()
        if not (key in {"required", "minItems"} and not isinstance(held, dict)) and key not in {"if", "else"}
    }


Errors = Iterator[ValidationError]


def _pattern(_: Validator, expression: str, instance: object, __: Schema) -> Errors:
    if isinstance(instance, str) and not compiled(expression).search(instance):
        yield ValidationError("does not match")


def _unique_items(_: Validator, wanted: bool, instance: object, __: Schema) -> Errors:
    if not wanted or not isinstance(instance, list):
        return
    # Compared by their JSON: jsonschema's own way takes quadratic time on mappings.
    seen: set[str] = set()
    for item in instance:
        form = json.dumps(item, sort_keys=True)
        if form in seen:
            yield ValidationError("holds an item twice")
            return
        seen.add(form)


def _multiple_of(_: Validator, step: float, instance: object, __: Schema) -> Errors:
    if isinstance(instance, bool) or not isinstance(instance, (int, float)):
        return
    # In decimal: 19.99 is a multiple of 0.01 to whoever writes it.
    if Decimal(repr(instance)) % Decimal(repr(step)):
        yield ValidationError("is no multiple")


def _is_integer(_: object, instance: object) -> bool:
    return isinstance(instance, int) and not isinstance(instance, bool)


SPEC_VALIDATOR: Final[Any] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {"pattern": _pattern, "uniqueItems": _unique_items, "multipleOf": _multiple_of},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)
