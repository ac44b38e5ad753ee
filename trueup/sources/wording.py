"""What jsonschema finds, in words a person can act on: what is wrong, with which value, and what to write instead.

Values of `env` and `files` are never shown, nor are texts among `parameters`: they may be secrets that someone wrote
where they do not belong.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final

from jsonschema.exceptions import ValidationError

from trueup.models.artifacts import shown_source
from trueup.sources.report import Report
from trueup.sources.schemas import Schema, schema
from trueup.sources.tree import Path, Tree

MAX_SHOWN: Final = 60
_HIDDEN: Final = frozenset({"env", "files"})
_WANTED: Final = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
_FOREIGN: Final = {
    "replicas": "count",
    "environment": "env",
    "datacenters": "regions",
    "dependsOn": "depends_on",
    "healthcheck": "checks",
    "healthcheck_interval": "checks",
    "ingress": "services",
    "cron": "schedule: {cron: …}",
    "periodic": "schedule",
    "entry_point": "entrypoint",
    "meta": "labels",
    "containers": "tasks",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault, before it has a place."""

    path: Path
    message: str
    hint: str = ""
    key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """The parts of a ValidationError that words are made of. *of_key*: the value is a key of the mapping at *path*."""

    path: Path
    keyword: str
    wanted: Any
    value: Any
    schema: Mapping[str, Any]
    message: str
    cause: str
    of_key: bool

    @property
    def shown(self) -> str:
        """The value, if it may be shown."""
        return show(self.value) if self.of_key else show(self.value, self.path)


def add_faults(report: Report, errors: Iterator[ValidationError], at: Path = ()) -> None:
    """Words *errors* of the value at that path into *report*, until it is full."""
    for error in errors:
        for fault in faults_of(error, report.tree, at):
            report.add(fault.path, fault.message, fault.hint, key=fault.key)
        if report.is_full:
            return


def faults_of(error: ValidationError, tree: Tree, at: Path = ()) -> Iterator[Fault]:
    """The faults one error of jsonschema stands for: each missing or unknown key is one."""
    finding = _read(error, at)
    if finding.keyword == "additionalProperties" and isinstance(finding.value, dict):
        known = finding.schema.get("properties", {})
        for key in finding.value:
            if key not in known:
                yield Fault(
                    path=(*finding.path, key), message="unknown key", hint=near_key(key, known), key=True
                )
    elif finding.keyword == "type":
        yield _type_fault(finding, tree)
    else:
        message, hint = _words(finding)
        path = (*finding.path, str(finding.value)) if finding.of_key else finding.path
        yield Fault(path=path, message=message, hint=hint, key=finding.of_key)


def _read(error: ValidationError, at: Path) -> _Finding:
    return _Finding(
        path=(*at, *error.absolute_path),
        keyword=str(error.validator),
        wanted=error.validator_value,
        value=error.instance,
        schema=error.schema if isinstance(error.schema, dict) else {},
        message=error.message,
        cause=str(error.cause or ""),
        of_key="propertyNames" in error.absolute_schema_path,
    )


def show(value: object, path: Sequence[str | int] = ()) -> str:
    """A value as errors name it; empty where it must not be shown."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if any(step in _HIDDEN for step in path):
        return ""
    if isinstance(value, str):
        if "parameters" in path:
            return ""
        if "artifacts" in path and path[-1] == "source":
            # It may have a password in it.
            value = shown_source(value)
        return repr(value if len(value) <= MAX_SHOWN else value[: MAX_SHOWN - 1] + "…")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def near(word: str, known: Sequence[str]) -> str:
    """`did you mean "count"?`, or nothing."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else ""


def near_key(key: str, known: Mapping[str, Any]) -> str:
    """What an unknown key may have meant: one that is known here, or the same one where it belongs."""
    if key in _FOREIGN:
        return f'did you mean "{_FOREIGN[key]}"?'
    elsewhere = [place for place in _places_of_keys().get(key, ()) if place]
    if elsewhere and "parameters" not in elsewhere:
        return f"it belongs in {' or '.join(elsewhere)}"
    lower = {name.lower().replace("_", ""): name for name in known}
    same = lower.get(key.lower().replace("_", "").replace("-", ""))
    return f'did you mean "{same}"?' if same else near(key, list(known))


@lru_cache(maxsize=1)
def _places_of_keys() -> dict[str, tuple[str, ...]]:
    """For each key of a job, the keys under which it is known; none for what is known in many."""
    found: dict[str, set[str]] = {}
    _collect_places(schema("Job"), "", found)
    return {key: tuple(sorted(places)) for key, places in found.items() if len(places) <= 2}


def _collect_places(part: Schema, place: str, found: dict[str, set[str]]) -> None:
    for key, below in part.get("properties", {}).items():
        found.setdefault(key, set()).add(place or "the job")
        _collect_places(below, key, found)
    for keyword in ("items", "additionalProperties"):
        if isinstance(part.get(keyword), dict):
            _collect_places(part[keyword], place, found)


def _type_fault(finding: _Finding, tree: Tree) -> Fault:
    value, path = finding.value, finding.path
    if finding.schema.get("format") == "name" and not isinstance(value, (dict, list, str)):
        return _name_fault(value, path, tree.text(path) or ("" if value is None else str(value)))
    kinds = [finding.wanted] if isinstance(finding.wanted, str) else list(finding.wanted)
    wanted = " or ".join(_WANTED.get(kind, str(kind)) for kind in kinds)
    hint = ""
    if value is None and "string" in kinds:
        hint = 'write "" for an empty text, or leave the line out'
    elif kinds == ["array"] and isinstance(value, str):
        hint = "write a list: [first, second]"
    elif kinds == ["array"] and isinstance(value, dict):
        hint = "begin each entry with a dash"
    return Fault(
        path=path,
        message=f"expected {wanted}" + (f", not {finding.shown}" if finding.shown else ""),
        hint=hint,
    )


def _name_fault(value: object, path: Path, text: str) -> Fault:
    if value is None and not text:
        return Fault(path=path, message="is empty", hint="write a name")
    kind = "null" if value is None else "a truth value" if isinstance(value, bool) else "a number"
    return Fault(path=path, message=f"{text} is {kind} to YAML, not a name", hint=f'quote it: "{text}"')


def _words(finding: _Finding) -> tuple[str, str]:
    """Message and hint. Formats give theirs in one, parted by a semicolon."""
    word = _BY_KEYWORD.get(finding.keyword)
    if word is not None:
        return word(finding)
    if finding.keyword == "pattern":
        words = finding.schema.get("patternErrorMessage") or f"does not match {finding.wanted}"
    elif finding.keyword == "format":
        words = finding.cause or f"is no {finding.wanted}"
    else:
        words = _COMPARISONS.get(finding.keyword, "does not satisfy " + finding.keyword).format(
            finding.wanted
        )
    message, _, hint = words.partition("; ")
    return f"{finding.shown} {message}".strip(), hint


_COMPARISONS: Final = {
    "minimum": "is less than the minimum of {}",
    "maximum": "is greater than the maximum of {}",
    "exclusiveMinimum": "is not greater than {}",
    "exclusiveMaximum": "is not less than {}",
    "multipleOf": "is no multiple of {}",
    "maxLength": "is longer than {} characters",
    "maxItems": "has more than {} entries",
    "maxProperties": "has more than {} keys",
    "minProperties": "has fewer than {} keys",
    "anyOf": "fits none of the forms allowed",
    "oneOf": "does not fit exactly one of the forms allowed",
    "not": "is of a form that is not allowed",
    "contains": "holds nothing of the form wanted",
    "uniqueItems": "holds an entry twice",
}


def _required(finding: _Finding) -> tuple[str, str]:
    # jsonschema makes one error a key; its message begins with the key it is about.
    missing = [key for key in finding.wanted if finding.message.startswith(repr(key))]
    return f"{missing[0] if missing else 'a key'} is missing", ""


def _choices(finding: _Finding) -> tuple[str, str]:
    choices = [finding.wanted] if finding.keyword == "const" else list(finding.wanted)
    shown = [held if isinstance(held, str) else show(held) for held in choices]
    relation = "is not" if len(choices) == 1 else "is none of"
    hint = near(finding.value, shown) if isinstance(finding.value, str) else ""
    return f"{finding.shown} {relation} {', '.join(shown)}".strip(), hint


def _at_least(finding: _Finding) -> tuple[str, str]:
    if finding.wanted == 1:
        return "is empty", ""
    unit = "characters" if finding.keyword == "minLength" else "entries"
    return f"has fewer than {finding.wanted} {unit}", ""


_BY_KEYWORD: Final[dict[str, Callable[[_Finding], tuple[str, str]]]] = {
    "required": _required,
    "enum": _choices,
    "const": _choices,
    "minItems": _at_least,
    "minLength": _at_least,
}
