"""Templates: read once, then rendered for each job that names one. Pure.

Parameters come from the job, else from the Cluster document, else from the template's own default. Cluster goes
before the default because it is the one who runs the place who knows, say, its registry.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from jsonschema.exceptions import ValidationError

from trueup.models.template import Template
from trueup.sources.job_spec import JOB_SHAPE
from trueup.sources.overlay import lay_over, without_nulls
from trueup.sources.parameters import Argument, Parameter
from trueup.sources.parts import mapping
from trueup.sources.placeholders import RenderError, Substitution, placeholders_in
from trueup.sources.report import Report
from trueup.sources.schemas import partial_job_validator, validator
from trueup.sources.shape import Shape
from trueup.sources.tree import PlacedMapping, Spot, Tree, strip_places
from trueup.sources.wording import add_faults, near

_OF_THE_JOB: Final = ("kind", "template", "parameters")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledTemplate:
    """A sound template, ready to be rendered."""

    model: Template
    parameters: Mapping[str, Parameter]
    tree: Tree


def compile_template(tree: Tree, report: Report) -> CompiledTemplate | None:
    """The template a document holds, or None with its faults in *report*."""
    plain = strip_places(tree.value)
    add_faults(report, validator("Template").iter_errors(plain))
    if report.errors:
        return None
    parameters = _read_parameters(tree.value.get("parameters", PlacedMapping()), report)
    _check_placeholders(tree.value["job"], parameters, report)
    _check_body(tree.value["job"], report)
    if report.errors:
        return None
    model = Template(name=plain["name"], parameters=mapping(plain, "parameters"), job=plain["job"])
    return CompiledTemplate(model=model, parameters=parameters, tree=tree)


def _read_parameters(held: PlacedMapping, report: Report) -> dict[str, Parameter]:
    found = {}
    for name, own in held.items():
        parameter = Parameter(_schema_of(own))
        if "default" in own:
            parameter.default = parameter.take(report, own, "default", ("parameters", name, "default"))
        found[name] = parameter
    return found


def _schema_of(own: PlacedMapping) -> dict[str, Any]:
    """The schema a parameter is written with; where it wants text, its choices are taken as written."""
    plain: dict[str, Any] = strip_places(own)
    if "enum" in own and Shape({"type": own.get("type", ())}).as_text:
        texts = own["enum"].texts
        plain["enum"] = [texts.get(index, held) for index, held in enumerate(plain["enum"])]
    return plain


def _check_placeholders(body: PlacedMapping, parameters: Mapping[str, Parameter], report: Report) -> None:
    for path, placeholder, in_key in placeholders_in(body, ("job",)):
        if in_key:
            report.add(path, "a key cannot hold {{", "parameters go into values", key=True)
        elif not placeholder.name:
            hint = "write {{ name }} with the name of one, or {{{{ for a literal {{"
            report.add(path, "{{ begins no parameter", hint)
        elif placeholder.name not in parameters:
            hint = near(placeholder.name, list(parameters)) or "add it to parameters"
            report.add(path, f"{placeholder.name!r} is no parameter of this template", hint)


def _check_body(body: PlacedMapping, report: Report) -> None:
    """What is wrong whatever the parameters are: it is said here once, not at each job."""
    for key in _OF_THE_JOB:
        if key in body:
            report.add(("job", key), f"{key} is of the job that names this template", "take it out", key=True)
    plain, _ = JOB_SHAPE.read(without_nulls(body))
    errors = partial_job_validator().iter_errors(plain)
    add_faults(report, (error for error in errors if not _may_be_mended(error)), ("job",))


def _may_be_mended(error: ValidationError) -> bool:
    """Whether a parameter decides: a value that holds one is looked at once it is put in."""
    if error.validator == "additionalProperties":
        return False
    return next(placeholders_in(error.instance, ()), None) is not None


def render(job: Tree, template: CompiledTemplate, cluster: PlacedMapping, report: Report) -> Tree | None:
    """The job as its template makes it, with places of both; None with the faults in *report*.

    *cluster* holds the Cluster document's parameters. What is rendered is not yet valid.
    """
    arguments = _arguments(job.value, template, cluster, report)
    if arguments is None:
        return None
    body = template.tree.value["job"]
    mark = template.tree.value.marks["job"]
    try:
        base, _, _ = Substitution(arguments).value(body, mark, None, ())
    except RenderError as error:
        spot = template.tree.spot(("job", *error.path))
        report.add(("template",), f"{error} ({spot.file.path}:{spot.line}:{spot.column})")
        return None
    return Tree(value=lay_over(base, own_fields(job.value)), root=job.root)


def own_fields(job: PlacedMapping) -> PlacedMapping:
    """What a job says itself, beside which template it is made from; its kind stays."""
    made = PlacedMapping()
    for key in job:
        if key not in {"template", "parameters"}:
            made.take(job, key)
    return made


def template_spot(job: Tree) -> Spot:
    """Where a job names its template."""
    return job.spot(("template",))


def _arguments(
    job: PlacedMapping, template: CompiledTemplate, cluster: PlacedMapping, report: Report
) -> dict[str, Argument] | None:
    before = len(report.errors)
    given = job.get("parameters", PlacedMapping())
    strangers = [name for name in given if name not in template.parameters]
    for name in strangers:
        known = ", ".join(template.parameters) or "none"
        hint = near(name, list(template.parameters)) or f"the template has {known}"
        report.add(("parameters", name), f"no parameter of template {template.model.name}", hint, key=True)
    found = {}
    for name, parameter in template.parameters.items():
        if name in given:
            found[name] = parameter.take(report, given, name, ("parameters", name))
        elif name in cluster:
            found[name] = _cluster_argument(parameter, cluster, name, report)
        elif parameter.default is not None:
            found[name] = parameter.default
        elif not near(name, strangers):  # else it is one of these, written wrong: that is said already
            at = "parameters" if "parameters" in job else "template"
            report.add((at,), f"{name} is missing", f"template {template.model.name} wants it in parameters")
    return found if len(report.errors) == before else None


def _cluster_argument(parameter: Parameter, cluster: PlacedMapping, name: str, report: Report) -> Argument:
    mark = cluster.marks[name]
    own = Report(Tree(value=cluster, root=Spot(mark[0], mark[1], mark[2])))
    argument = parameter.take(own, cluster, name, (name,))
    for error in own.errors:
        place = f"{error.file}:{error.line}:{error.column}"
        report.add(
            ("template",), f"parameter {error.path} of the Cluster document: {error.message} ({place})"
        )
    return argument
