"""One document: which it is, what is wrong with it, and what it says.

Everything that needs no other document is done here, once for each content; what needs the whole tree (templates,
`source` files, dependencies) is `desired.py`'s.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from trueup.models.codec import from_plain
from trueup.models.errors import SpecError
from trueup.models.job import Job
from trueup.models.template import ClusterSettings, NodePolicy
from trueup.sources.inline import SourceFile, sources_of
from trueup.sources.job_spec import build_job, check_spec
from trueup.sources.overlay import without_nulls
from trueup.sources.parse import Document
from trueup.sources.parts import Plain
from trueup.sources.relations import Dependency
from trueup.sources.render import CompiledTemplate, compile_template, own_fields
from trueup.sources.report import Report
from trueup.sources.schemas import (
    KINDS,
    make_validator,
    partial_job_schema,
    partial_job_validator,
    schema,
    validator,
)
from trueup.sources.shape import Shape
from trueup.sources.tree import PlacedMapping, Spot, Tree
from trueup.sources.wording import add_faults, near

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_HEAD: Final = {key: schema("Job")["properties"][key] for key in ("kind", "name", "template", "parameters")}
_HEAD_SCHEMA: Final = {"type": "object", "required": ["kind", "name"], "properties": _HEAD}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDocument:
    """A Job document. *job* is complete where nothing else of the tree is needed; else *tree* is kept for it.

    *faults* are of the fields a job with a template has itself: they are shown with those of the rendered job.
    """

    job: Job | None = None
    template: str = ""
    tree: Tree | None = None
    plain: Plain | None = None
    sources: tuple[SourceFile, ...] = ()
    depends_on: tuple[Dependency, ...] = ()
    faults: tuple[SpecError, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDocument:
    """A sound Cluster document; *parameters* keep their places and texts."""

    settings: ClusterSettings
    parameters: PlacedMapping


Content = JobDocument | CompiledTemplate | NodePolicy | ClusterDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadDocument:
    """One document. *kind* and *name* are empty where they cannot be relied on; *content* is None with errors."""

    kind: str
    name: str
    place: Spot
    name_place: Spot
    errors: tuple[SpecError, ...] = ()
    content: Content | None = field(default=None)


def read_document(document: Document) -> ReadDocument:
    """What a document says, or everything that is wrong with it."""
    tree = document.tree
    kind, name = _identity(tree.value)
    report = Report(tree, kind=kind, name=name)
    content: Content | None = None
    reader = _READERS.get(kind)
    if reader is None:
        _check_kind(tree.value, report)
    else:
        try:
            content = reader(tree, report)
        except (
            msgspec.ValidationError,
            ValueError,
        ) as error:  # beyond what the schemas say: still no traceback
            report.add((), str(error))
    errors = _all_errors(document, report, kind, name)
    known = bool(kind and name)
    return ReadDocument(
        kind=kind if known else "",
        name=name if known else "",
        place=tree.root,
        name_place=tree.spot(("name",)),
        errors=errors,
        content=None if errors else content,
    )


def _identity(value: object) -> tuple[str, str]:
    if not isinstance(value, PlacedMapping):
        return "", ""
    kind, name = value.get("kind"), value.get("name")
    return (
        kind if isinstance(kind, str) and kind in KINDS else "",
        name if isinstance(name, str) and "name" not in value.texts and _NAME.fullmatch(name) else "",
    )


def _check_kind(value: object, report: Report) -> None:
    kinds = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
    if value is None:  # nothing could be read: that is said already
        return
    if not isinstance(value, PlacedMapping):
        report.add((), "expected a mapping with kind and name", f"kind is {kinds}")
    elif "kind" not in value:
        report.add((), "kind is missing", f"write {kinds}, or list the file in .trueupignore")
    else:
        kind = value["kind"]
        shown = repr(kind) if isinstance(kind, str) else "this"
        hint = near(kind, KINDS) if isinstance(kind, str) else ""
        report.add(("kind",), f"{shown} is no kind of document", hint or f"write {kinds}")


def _all_errors(document: Document, report: Report, kind: str, name: str) -> tuple[SpecError, ...]:
    """The errors of parsing, and those of validation that do not follow from them."""
    paths = {error.path for error in document.errors}
    found = [msgspec.structs.replace(error, kind=kind, name=name) for error in document.errors]
    found += [error for error in report.errors if error.path not in paths]
    return tuple(sorted(found, key=lambda error: (error.line, error.column)))


def _read_job(tree: Tree, report: Report) -> JobDocument | None:
    if "template" in tree.value:
        return _read_templated_job(tree, report)
    if "parameters" in tree.value:
        report.add(("parameters",), "there is no template to take them", "name it: template: NAME", key=True)
    plain = check_spec(tree, report)
    if report.errors:
        return None
    sources = sources_of(plain, tree)
    depends_on = dependencies(tree, report)
    if sources:
        return JobDocument(tree=tree, plain=plain, sources=sources, depends_on=depends_on)
    return JobDocument(job=build_job(plain), depends_on=depends_on)


def _read_templated_job(tree: Tree, report: Report) -> JobDocument | None:
    """What can be said before the template is known: its own fields, none of which need be all."""
    plain, clean = _HEAD_SHAPE.read(tree.value)
    if not clean:
        add_faults(report, make_validator(_HEAD_SCHEMA).iter_errors(plain))
    if report.errors:
        return None
    own_report = Report(tree, kind="Job", name=plain["name"])
    own, clean = _PARTIAL_SHAPE.read(without_nulls(own_fields(tree.value)))
    if not clean:
        add_faults(own_report, partial_job_validator().iter_errors(own))
    return JobDocument(template=plain["template"], tree=tree, faults=own_report.errors)


def dependencies(tree: Tree, report: Report) -> tuple[Dependency, ...]:
    """The jobs a sound job names in `depends_on`, with where it does."""
    named = tree.value.get("depends_on", ())
    return tuple(
        Dependency(name=str(name), place=report.place(("depends_on", index)), index=index)
        for index, name in enumerate(named)
    )


def _read_template(tree: Tree, report: Report) -> CompiledTemplate | None:
    return compile_template(tree, report)


def _read_node(tree: Tree, report: Report) -> NodePolicy | None:
    plain = _checked(tree, report, "Node", _NODE_SHAPE)
    return None if report.errors else from_plain(plain, NodePolicy)


def _read_cluster(tree: Tree, report: Report) -> ClusterDocument | None:
    plain = _checked(tree, report, "Cluster", _CLUSTER_SHAPE)
    if report.errors:
        return None
    parameters = tree.value.get("parameters", PlacedMapping())
    return ClusterDocument(settings=from_plain(plain, ClusterSettings), parameters=parameters)


def _checked(tree: Tree, report: Report, kind: str, shape: Shape) -> Any:  # noqa: ANN401 - plain data
    plain, clean = shape.read(tree.value)
    if not clean:
        add_faults(report, validator(kind).iter_errors(plain))
    return plain


_HEAD_SHAPE: Final = Shape(_HEAD_SCHEMA)
_PARTIAL_SHAPE: Final = Shape(partial_job_schema())
_NODE_SHAPE: Final = Shape(schema("Node"))
_CLUSTER_SHAPE: Final = Shape(schema("Cluster"))
_READERS: Final[dict[str, Callable[[Tree, Report], Content | None]]] = {
    "Job": _read_job,
    "Template": _read_template,
    "Node": _read_node,
    "Cluster": _read_cluster,
}
