"""From a snapshot to the desired state: every document read, every job rendered, every fault named.

Cost follows change: a file is parsed once for each content, a job rendered once for each content of all it is made
from. What cannot be read is never taken for absent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from trueup.models.desired import DesiredJob, DesiredState, InvalidDocument, Place
from trueup.models.errors import SpecError
from trueup.models.job import Job
from trueup.models.revision import Commit
from trueup.models.template import ClusterSettings, NodePolicy, Template
from trueup.sources.inline import SourceFileError, inline, sources_of
from trueup.sources.job_spec import build_job, check_spec
from trueup.sources.parse import parse
from trueup.sources.relations import Dependency, absent_dependencies, circular_dependencies
from trueup.sources.render import CompiledTemplate, render, template_spot
from trueup.sources.report import Report
from trueup.sources.snapshot import FileKey, Snapshot
from trueup.sources.tree import PlacedMapping
from trueup.sources.validate import (
    ClusterDocument,
    JobDocument,
    ReadDocument,
    dependencies,
    read_document,
)

Identity = tuple[str, str]
"""Kind and name."""
_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadFile:
    """A file's documents for one content of it; *errors* when it could not be parsed."""

    digest: str
    documents: tuple[ReadDocument, ...]
    errors: tuple[SpecError, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _BuiltJob:
    """A job for one content of all it is made from. *inputs* is what that was; *files* names it."""

    inputs: tuple[object, ...]
    desired: DesiredJob | None
    depends_on: tuple[Dependency, ...]
    errors: tuple[SpecError, ...]
    sources: tuple[FileKey, ...]


@dataclass(slots=True)
class _Pass:
    """What one load has found so far."""

    snapshot: Snapshot
    documents: list[ReadDocument] = field(default_factory=list)
    errors: list[SpecError] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    invalid: dict[tuple[str, str, str], InvalidDocument] = field(default_factory=dict)
    jobs: dict[str, DesiredJob] = field(default_factory=dict)
    depends_on: dict[str, tuple[Dependency, ...]] = field(default_factory=dict)
    templates: dict[str, tuple[ReadDocument, CompiledTemplate]] = field(default_factory=dict)
    nodes: dict[str, NodePolicy] = field(default_factory=dict)
    cluster: ClusterSettings | None = None
    used: set[FileKey] = field(default_factory=set)

    def refuse(self, document: ReadDocument, errors: Iterable[SpecError]) -> None:
        """Takes a document for invalid: it stays at its last good version."""
        self.errors.extend(errors)
        self.hold(document.kind, document.name, document.place.file.path)

    def hold(self, kind: str, name: str, file: str) -> None:
        """Names what stays at its last good version."""
        self.invalid[kind, name, file] = InvalidDocument(kind=kind, name=name, file=file)


class SpecLoader:
    """Loads snapshots of one source, one at a time, and remembers what it read."""

    def __init__(self) -> None:
        self._files: dict[FileKey, _ReadFile] = {}
        self._built: dict[tuple[FileKey, Identity], _BuiltJob] = {}
        self._texts: dict[FileKey, tuple[str, str | SourceFileError]] = {}
        self._cluster: PlacedMapping | None = None
        self.parsed = 0
        """How many files were parsed so far: a look at an unchanged tree adds none."""

    def load(self, snapshot: Snapshot) -> DesiredState:
        """The desired state of *snapshot*. SourceUnavailable if a file's content can no longer be had."""
        found = _Pass(snapshot=snapshot)
        self._read_files(found)
        valid = self._sort_out(found)
        cluster = self._cluster_parameters(found)
        for document in valid:
            self._take(found, document, cluster)
        self._check_relations(found)
        self._forget(found)
        return self._state(found)

    def _read_files(self, found: _Pass) -> None:
        for error in found.snapshot.errors:
            found.errors.append(error)
            found.unreadable.add(error.file)
        for key in sorted(found.snapshot.files):
            file = found.snapshot.files[key]
            if not file.document:
                continue
            read = self._files.get(key)
            if read is None or read.digest != file.digest:
                read = self._read_file(key, file.digest, file.content())
                self._files[key] = read
            found.used.add(key)
            found.documents.extend(read.documents)
            if read.errors:
                found.errors.extend(read.errors)
                found.unreadable.add(key.path)

    def _read_file(self, key: FileKey, digest: str, content: bytes) -> _ReadFile:
        self.parsed += 1
        if content.startswith(_LFS_POINTER):
            error = SpecError(
                file=key.path, message="is a pointer of git LFS", hint="keep specs in git itself"
            )
            return _ReadFile(digest=digest, documents=(), errors=(error,))
        parsed = parse(content, key.path, key.root)
        documents = tuple(read_document(document) for document in parsed.documents)
        return _ReadFile(digest=digest, documents=documents, errors=parsed.errors)

    def _sort_out(self, found: _Pass) -> list[ReadDocument]:
        """Valid documents, templates first; the others are refused."""
        by_identity: dict[Identity, list[ReadDocument]] = {}
        for document in found.documents:
            if document.kind:
                identity = ("Cluster", "") if document.kind == "Cluster" else (document.kind, document.name)
                by_identity.setdefault(identity, []).append(document)
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

    def _cluster_parameters(self, found: _Pass) -> PlacedMapping | None:
        """Defaults for templates; None if the Cluster document has some that nobody can read now."""
        readable = [document for document in found.documents if isinstance(document.content, ClusterDocument)]
        held = any(kind == "Cluster" for kind, _, _ in found.invalid)
        if readable and not held:
            content = readable[0].content
            self._cluster = content.parameters if isinstance(content, ClusterDocument) else None
        elif not held and not found.unreadable:
            self._cluster = PlacedMapping()
        # Otherwise an error is no absence: the last good ones go on, as far as they are known.
        return self._cluster

    def _take(self, found: _Pass, document: ReadDocument, cluster: PlacedMapping | None) -> None:
        content = document.content
        if isinstance(content, CompiledTemplate):
            found.templates[document.name] = (document, content)
        elif isinstance(content, NodePolicy):
            found.nodes[document.name] = content
        elif isinstance(content, ClusterDocument):
            found.cluster = content.settings
        elif isinstance(content, JobDocument):
            built = self._build(found, document, content, cluster)
            found.used.update(built.sources)
            if built.desired is None:
                found.refuse(document, built.errors)
            else:
                found.jobs[document.name] = built.desired
                found.depends_on[document.name] = built.depends_on

    def _build(
        self, found: _Pass, document: ReadDocument, content: JobDocument, cluster: PlacedMapping | None
    ) -> _BuiltJob:
        files = found.snapshot.files
        template = found.templates.get(content.template) if content.template else None
        identity = (document.place.file, (document.kind, document.name))
        known = self._built.get(identity)
        sources = known.sources if known is not None else ()
        inputs: tuple[object, ...] = (
            id(content),
            None if template is None else id(template[1]),
            id(cluster) if content.template else None,
            tuple(files[key].digest if key in files else found.snapshot.unusable.get(key) for key in sources),
        )
        if known is not None and known.inputs == inputs:
            return known
        builder = _Builder(self, found.snapshot, document, content)
        built = builder.build(template, cluster, inputs)
        self._built[identity] = built
        return built
