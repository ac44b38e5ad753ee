"""From a snapshot to the desired state: every document read, every job rendered, every fault named.

Cost follows change: a file is parsed once for each content, a job rendered once for each content of all it is made
from. What cannot be read is never taken for absent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from trueup.models.desired import DesiredJob, DesiredState, InvalidDocument
from trueup.models.errors import SpecError
from trueup.models.template import ClusterSettings, NodePolicy
from trueup.sources.job_builder import LFS_POINTER, BuiltJob, SourceTexts, Surroundings, build
from trueup.sources.parse import parse
from trueup.sources.relations import absent_dependencies, circular_dependencies
from trueup.sources.render import CompiledTemplate
from trueup.sources.snapshot import FileKey, Snapshot
from trueup.sources.tree import PlacedMapping
from trueup.sources.validate import ClusterDocument, JobDocument, ReadDocument, read_document
from trueup.sources.wording import near

Identity = tuple[str, str]
"""Kind and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadFile:
    """A file's documents for one content of it; *errors* when it could not be parsed.

    *may_hold_cluster* is whether documents nobody could read may be the Cluster's.
    """

    digest: str
    documents: tuple[ReadDocument, ...]
    errors: tuple[SpecError, ...] = ()
    may_hold_cluster: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """All of a snapshot that the desired state depends on, its authors apart: equal ones need no second look."""

    files: Mapping[FileKey, tuple[str, bool]]
    errors: tuple[SpecError, ...]
    unusable: Mapping[FileKey, str]

    @classmethod
    def of(cls, snapshot: Snapshot) -> "_Content":
        """The content of *snapshot*, files by their digests."""
        files = {key: (file.digest, file.document) for key, file in snapshot.files.items()}
        return cls(files=files, errors=snapshot.errors, unusable=dict(snapshot.unusable))


@dataclass(slots=True)
class _Pass:
    """What one load has found so far. *cluster* are the Cluster's parameters, None while nobody can know them."""

    snapshot: Snapshot
    documents: list[ReadDocument] = field(default_factory=list)
    errors: list[SpecError] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    invalid: dict[tuple[str, str, str], InvalidDocument] = field(default_factory=dict)
    jobs: dict[str, BuiltJob] = field(default_factory=dict)
    job_documents: dict[str, ReadDocument] = field(default_factory=dict)
    templates: dict[str, CompiledTemplate] = field(default_factory=dict)
    nodes: dict[str, NodePolicy] = field(default_factory=dict)
    settings: ClusterSettings | None = None
    cluster: PlacedMapping | None = None
    cluster_file: FileKey | None = None
    cluster_uncertain: bool = False

    def refuse(self, document: ReadDocument, errors: Iterable[SpecError]) -> None:
        """Takes a document for invalid: it stays at its last good version."""
        self.errors.extend(errors)
        self.hold(document.kind, document.name, document.place.file.path)

    def hold(self, kind: str, name: str, file: str) -> None:
        """Names what stays at its last good version."""
        self.invalid[kind, name, file] = InvalidDocument(kind=kind, name=name, file=file)

    def holds(self, kind: str, name: str = "") -> bool:
        """Whether a document of that kind (and name) is invalid."""
        return any(held[0] == kind and name in {"", held[1]} for held in self.invalid)


class SpecLoader:
    """Loads snapshots of one source, one at a time, and remembers what it read."""

    def __init__(self) -> None:
        self._files: dict[FileKey, _ReadFile] = {}
        self._built: dict[tuple[FileKey, str], BuiltJob] = {}
        self._texts = SourceTexts()
        self._last: tuple[_Content, _Pass] | None = None
        self._cluster: tuple[PlacedMapping, FileKey | None] | None = None
        self.parsed = 0
        """How many files were parsed so far: a look at an unchanged tree adds none."""

    def load(self, snapshot: Snapshot) -> DesiredState:
        """The desired state of *snapshot*. SourceUnavailable if a file's content can no longer be had."""
        content = _Content.of(snapshot)
        if self._last is None or self._last[0] != content:
            self._last = None
            self._last = (content, self._whole_pass(snapshot))
        found = self._last[1]
        found.snapshot = snapshot
        return _state(found)

    def _whole_pass(self, snapshot: Snapshot) -> _Pass:
        found = _Pass(snapshot=snapshot)
        self._read_files(found)
        valid = _sort_out(found)
        self._find_cluster(found, valid)
        self._texts.begin(snapshot.files, snapshot.unusable)
        for document in valid:
            self._take(found, document)
        _check_relations(found)
        self._forget(found)
        return found

    def _read_files(self, found: _Pass) -> None:
        for error in found.snapshot.errors:
            found.errors.append(error)
            found.unreadable.add(error.file)
            found.cluster_uncertain = True
        for key in sorted(found.snapshot.files):
            file = found.snapshot.files[key]
            if not file.document:
                continue
            read = self._files.get(key)
            if read is None or read.digest != file.digest:
                self.parsed += 1
                read = _read_file(key, file.digest, file.content())
                self._files[key] = read
            found.documents.extend(read.documents)
            if read.errors:
                found.errors.extend(read.errors)
                found.unreadable.add(key.path)
            found.cluster_uncertain |= read.may_hold_cluster

    def _find_cluster(self, found: _Pass, valid: Sequence[ReadDocument]) -> None:
        """Finds the Cluster's parameters. While its document is in error, the last good ones go on."""
        for document in valid:
            if isinstance(document.content, ClusterDocument):
                self._cluster = (document.content.parameters, document.place.file)
                break
        else:
            if not found.holds("Cluster") and not found.cluster_uncertain:
                self._cluster = (_NO_PARAMETERS, None)
        if self._cluster is not None:
            found.cluster, found.cluster_file = self._cluster

    def _take(self, found: _Pass, document: ReadDocument) -> None:
        content = document.content
        if isinstance(content, CompiledTemplate):
            found.templates[document.name] = content
        elif isinstance(content, NodePolicy):
            found.nodes[document.name] = content
        elif isinstance(content, ClusterDocument):
            found.settings = content.settings
        elif isinstance(content, JobDocument):
            built = self._build(found, document, content)
            if built.desired is None:
                found.refuse(document, built.errors)
            else:
                found.jobs[document.name] = built
                found.job_documents[document.name] = document

    def _build(self, found: _Pass, document: ReadDocument, content: JobDocument) -> BuiltJob:
        template = found.templates.get(content.template)
        around = Surroundings(
            template=template,
            # Asked for where one is named alone: looking for near names is a quarter of a pass over 1,000 jobs.
            template_fault=_template_fault(found, content.template)
            if content.template and template is None
            else "",
            cluster=found.cluster,
            cluster_file=found.cluster_file,
            texts=self._texts,
        )
        key = (document.place.file, document.name)
        known = self._built.get(key)
        if known is None or not known.is_of(content, around):
            known = self._built[key] = build(document, content, around)
        return known

    def _forget(self, found: _Pass) -> None:
        """Drops what this snapshot no longer holds."""
        files = found.snapshot.files
        if len(self._files) > len(files) or not self._files.keys() <= files.keys():
            self._files = {key: read for key, read in self._files.items() if key in files}
        held = {(document.place.file, document.name) for document in found.documents}
        if not self._built.keys() <= held:
            self._built = {key: built for key, built in self._built.items() if key in held}
        self._texts.forget({key for built in self._built.values() for key, _ in built.sources})


_NO_PARAMETERS: Final = PlacedMapping()


def _read_file(key: FileKey, digest: str, content: bytes) -> _ReadFile:
    may_hold_cluster = b"Cluster" in content
    if content.startswith(LFS_POINTER):
        error = SpecError(file=key.path, message="is a pointer of git LFS", hint="keep specs in git itself")
        return _ReadFile(digest=digest, documents=(), errors=(error,), may_hold_cluster=True)
    parsed = parse(content, key.path, key.root)
    documents = tuple(read_document(document) for document in parsed.documents)
    unknown = bool(parsed.errors) or any(not document.kind for document in documents)
    return _ReadFile(
        digest=digest,
        documents=documents,
        errors=parsed.errors,
        may_hold_cluster=unknown and may_hold_cluster,
    )


def _sort_out(found: _Pass) -> list[ReadDocument]:
    """Valid documents, templates first; the others are refused."""
    by_identity: dict[Identity, list[ReadDocument]] = {}
    for document in found.documents:
        if document.kind:
            name = "" if document.kind == "Cluster" else document.name
            by_identity.setdefault((document.kind, name), []).append(document)
        else:  # nobody knows what it was: what its file held is kept
            found.refuse(document, document.errors)
            found.unreadable.add(document.place.file.path)
    valid = []
    for same in by_identity.values():
        for document in same:
            errors = document.errors if len(same) == 1 else (*document.errors, _twice(document, same))
            if errors or document.content is None:
                found.refuse(document, errors)
            else:
                valid.append(document)
    return sorted(valid, key=lambda document: document.kind != "Template")


def _twice(document: ReadDocument, same: Sequence[ReadDocument]) -> SpecError:
    """Both are in error: nobody can say which one is meant."""
    other = next(one for one in same if one is not document)
    what = "the Cluster" if document.kind == "Cluster" else f"{document.kind} {document.name!r}"
    place = document.name_place
    where = f"{other.name_place.file.path}:{other.name_place.line}"
    return SpecError(
        file=place.file.path,
        line=place.line,
        column=place.column,
        path="name",
        message=f"{what} is in {where} too",
        hint="keep one of them"
        if document.kind == "Cluster"
        else "keep one of them, or give it another name",
        kind=document.kind,
        name=document.name,
    )


def _template_fault(found: _Pass, name: str) -> str:
    if found.holds("Template", name):
        return f"template {name!r} is in error itself; put that right first"
    hint = near(name, list(found.templates)) or "add a document with kind: Template and that name"
    if found.unreadable:
        hint = "it may be in a file that cannot be read; put that right first"
    return f"there is no template {name!r}; {hint}"


def _check_relations(found: _Pass) -> None:
    """Refuses jobs that depend on none, or on themselves; what one still depends on is not removed.

    Where a file cannot be read, a job that is not seen may be in there: then none is missed.
    """
    depends_on = {name: built.depends_on for name, built in found.jobs.items()}
    if not any(depends_on.values()):
        return
    known = depends_on.keys() | {name for kind, name, _ in found.invalid if kind == "Job"}
    refused: dict[str, list[SpecError]] = {}
    for absent in () if found.unreadable else absent_dependencies(depends_on, known):
        refused.setdefault(absent.dependant, []).append(absent.error)
        found.hold("Job", absent.name, "")
    for name, error in circular_dependencies(depends_on).items():
        refused.setdefault(name, []).append(error)
    for name, errors in refused.items():
        found.refuse(found.job_documents[name], errors)
        del found.jobs[name]


def _state(found: _Pass) -> DesiredState:
    place = {key: rank for rank, key in enumerate(found.snapshot.touched)}
    return DesiredState(
        commit=found.snapshot.commit,
        jobs={name: _dated(found, place, built) for name, built in sorted(found.jobs.items())},
        templates={name: held.model for name, held in sorted(found.templates.items())},
        nodes=dict(sorted(found.nodes.items())),
        cluster=found.settings,
        invalid=tuple(found.invalid[key] for key in sorted(found.invalid)),
        unreadable_files=tuple(sorted(found.unreadable)),
        errors=tuple(sorted(found.errors, key=lambda error: (error.file, error.line, error.column))),
    )


def _dated(found: _Pass, place: Mapping[FileKey, int], built: BuiltJob) -> DesiredJob:
    """The job with the newest commit that touched a file it is made from."""
    assert built.desired is not None  # noqa: S101 - only such are kept
    newest = min((place[key] for key in built.files if key in place), default=None) if place else None
    if newest is None:
        return built.desired
    key = next(key for key in built.files if place.get(key) == newest)
    return msgspec.structs.replace(built.desired, commit=found.snapshot.touched[key])
