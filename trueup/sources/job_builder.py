"""One Job document to a desired job, with what else it is made from: template, Cluster parameters, `source` files.

What it is made from is kept beside the result, so that nothing is rendered again while none of it has changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from trueup.models.desired import DesiredJob, Place
from trueup.models.errors import SpecError
from trueup.models.job import Job
from trueup.sources.inline import SourceFileError, inline, sources_of
from trueup.sources.job_spec import build_job, check_spec
from trueup.sources.parts import Plain
from trueup.sources.relations import Dependency
from trueup.sources.render import CompiledTemplate, render, template_spot
from trueup.sources.report import Report
from trueup.sources.snapshot import FileKey, SpecFile
from trueup.sources.tree import PlacedMapping, Spot, Tree, strip_places
from trueup.sources.validate import JobDocument, ReadDocument, dependencies

LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"


class SourceTexts:
    """The texts `source:` may name, each read once a digest. *unusable* says why some cannot be had."""

    def __init__(self) -> None:
        self._files: Mapping[FileKey, SpecFile] = {}
        self._unusable: Mapping[FileKey, str] = {}
        self._read: dict[FileKey, tuple[str, str | SourceFileError]] = {}

    def begin(self, files: Mapping[FileKey, SpecFile], unusable: Mapping[FileKey, str]) -> None:
        """Turns to the files of another snapshot."""
        self._files, self._unusable = files, unusable

    def fingerprint(self, key: FileKey) -> str | None:
        """What changes when the text does: a digest, or why there is none."""
        file = self._files.get(key)
        return self._unusable.get(key) if file is None else file.digest

    def text(self, key: FileKey) -> str:
        """The text of a file. SourceFileError says why there is none."""
        file = self._files.get(key)
        if file is None:
            if key in self._unusable:
                raise SourceFileError(f"{key.path} {self._unusable[key]}")
            raise SourceFileError(f"there is no file {key.path}")
        known = self._read.get(key)
        if known is None or known[0] != file.digest:
            known = (file.digest, _decoded(key, file.content()))
            self._read[key] = known
        if isinstance(known[1], SourceFileError):
            raise known[1]
        return known[1]

    def forget(self, used: set[FileKey]) -> None:
        """Drops what no job names any more."""
        self._read = {key: held for key, held in self._read.items() if key in used}


def _decoded(key: FileKey, content: bytes) -> str | SourceFileError:
    if content.startswith(LFS_POINTER):
        return SourceFileError(f"{key.path} is a pointer of git LFS; keep it in git itself, or use artifacts")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return SourceFileError(f"{key.path} is not UTF-8; fetch binary files as artifacts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What else of the tree a job document is made from.

    *template* is the document of the one it names, if that is sound; else *template_fault* says what is wrong.
    *cluster* holds the Cluster document's parameters, None while nobody can know them; *cluster_file* is its file.
    """

    template: CompiledTemplate | None
    template_fault: str
    cluster: PlacedMapping | None
    cluster_file: FileKey | None
    texts: SourceTexts


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltJob:
    """A job for one state of all it is made from; *errors* where that makes none."""

    content: JobDocument
    template: CompiledTemplate | None
    template_fault: str
    cluster: PlacedMapping | None
    sources: tuple[tuple[FileKey, str | None], ...]
    desired: DesiredJob | None
    files: tuple[FileKey, ...]
    depends_on: tuple[Dependency, ...]
    errors: tuple[SpecError, ...]

    def is_of(self, content: JobDocument, around: Surroundings) -> bool:
        """Whether building again would make the same. Compared by identity: both sides are kept alive here."""
        if self.content is not content:
            return False
        if content.template and not (
            self.template is around.template
            and self.template_fault == around.template_fault
            and self.cluster is around.cluster
        ):
            return False
        return all(around.texts.fingerprint(key) == held for key, held in self.sources)


def build(document: ReadDocument, content: JobDocument, around: Surroundings) -> BuiltJob:
    """The desired job that a sound document describes, or everything that is wrong with it in this tree."""
    building = _Building(document, content, around)
    desired = building.desired()
    return BuiltJob(
        content=content,
        template=around.template,
        template_fault=around.template_fault,
        cluster=around.cluster,
        sources=tuple((key, around.texts.fingerprint(key)) for key in sorted(building.sources)),
        desired=desired,
        files=tuple(building.files),
        depends_on=building.depends_on,
        errors=() if desired is not None else _merged(content.faults, building.errors),
    )


def _merged(own: tuple[SpecError, ...], rendered: tuple[SpecError, ...]) -> tuple[SpecError, ...]:
    """Faults by place, each once: a rendered job has those of its own fields again, under other paths perhaps."""
    found = {(error.file, error.line, error.column, error.message): error for error in (*rendered, *own)}
    return tuple(sorted(found.values(), key=lambda error: (error.file, error.line, error.column)))


class _Building:
    """One build under way: *files* and *sources* grow as the job is found to be made from them."""

    def __init__(self, document: ReadDocument, content: JobDocument, around: Surroundings) -> None:
        self.files: list[FileKey] = [document.place.file]
        self.sources: set[FileKey] = set()
        self.depends_on = content.depends_on
        self.errors: tuple[SpecError, ...] = ()
        self._document = document
        self._content = content
        self._around = around

    def desired(self) -> DesiredJob | None:
        """The job, or None with what is wrong in *errors*."""
        job = self._job()
        if job is None or self._content.faults:
            return None
        place = self._document.place
        return DesiredJob(
            job=job,
            place=Place(file=place.file.path, line=place.line, root=place.file.root),
            files=tuple(dict.fromkeys(key.path for key in self.files)),
            template=self._content.template,
        )

    def _job(self) -> Job | None:
        content = self._content
        if content.job is not None or content.tree is None:
            return content.job
        if content.template:
            return self._templated(content.tree)
        plain: Plain = strip_places(content.plain)
        return self._complete(plain, content.tree, self._report(content.tree))

    def _templated(self, tree: Tree) -> Job | None:
        template = self._around.template
        report = self._report(tree)
        rendered = None if template is None else self._rendered(tree, template, report)
        if template is None or rendered is None:
            if template is None:
                report.add(("template",), *_worded(self._around.template_fault))
            self.errors = report.errors
            return None
        report = self._report(rendered, elsewhere=template_spot(tree), other=template.tree.root)
        plain = check_spec(rendered, report)
        if report.errors:
            self.errors = report.errors
            return None
        self.depends_on = dependencies(rendered, report)
        return self._complete(plain, rendered, report)

    def _rendered(self, tree: Tree, template: CompiledTemplate, report: Report) -> Tree | None:
        cluster = self._around.cluster
        given = tree.value.get("parameters", {})
        open_names = [name for name in template.parameters if name not in given]
        self.files.append(template.tree.root.file)
        if cluster is None and open_names:
            message = f"waits for the Cluster document, which may set {open_names[0]} and is in error"
            report.add(("template",), message, "put that right first")
            return None
        if self._around.cluster_file is not None and any(name in (cluster or ()) for name in open_names):
            self.files.append(self._around.cluster_file)
        return render(tree, template, cluster or PlacedMapping(), report)

    def _complete(self, plain: Plain, tree: Tree, report: Report) -> Job | None:
        """Takes in `source` files and makes the model."""
        sources = sources_of(plain, tree)
        self.sources = {source.file for source in sources if source.file is not None}
        self.files.extend(sorted(self.sources))
        inline(plain, sources, self._around.texts.text, report)
        if not report.errors:
            try:
                return build_job(plain)
            except ValueError as error:  # beyond what the schemas say: still no traceback
                report.add((), str(error))
        self.errors = report.errors
        return None

    def _report(self, tree: Tree, *, elsewhere: Spot | None = None, other: Spot | None = None) -> Report:
        document = self._document
        return Report(tree, kind=document.kind, name=document.name, elsewhere=elsewhere, other=other)


def _worded(fault: str) -> tuple[str, str]:
    message, _, hint = fault.partition("; ")
    return message, hint
