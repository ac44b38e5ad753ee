"""Spec trees in memory: texts by path to snapshots, and one-liners to load them."""

import hashlib
from collections.abc import Mapping
from typing import Any

from trueup.models.desired import DesiredState
from trueup.models.digest import job_digest
from trueup.models.errors import SpecError
from trueup.models.ids import RevisionId
from trueup.models.job import Job
from trueup.models.revision import Commit
from trueup.sources.desired import SpecLoader
from trueup.sources.snapshot import FileKey, Snapshot, SpecFile, is_document_name

Texts = Mapping[str, str | bytes]


def a_snapshot(texts: Texts, *, revision: str = "r1", **fields: Any) -> Snapshot:
    """A snapshot of root 0 with these files."""
    files = {}
    for path, text in texts.items():
        content = text if isinstance(text, bytes) else text.encode()
        files[FileKey(0, path)] = SpecFile(
            root=0,
            path=path,
            digest=hashlib.sha256(content).hexdigest(),
            content=lambda content=content: content,  # type: ignore[misc]
            document=is_document_name(path),
        )
    return Snapshot(commit=Commit(id=RevisionId(revision)), files=files, **fields)


def load(texts: Texts, **fields: Any) -> DesiredState:
    """What a tree says, read by a loader that knows nothing yet."""
    return SpecLoader().load(a_snapshot(texts, **fields))


def errors_of(texts: Texts | str) -> list[str]:
    """Every error of a tree (of one file `a.yaml`), as it is shown."""
    tree: Texts = {"a.yaml": texts} if isinstance(texts, str) else texts
    return [str(error) for error in load(tree).errors]


def the_error(texts: Texts | str) -> SpecError:
    """The only error of a tree."""
    tree: Texts = {"a.yaml": texts} if isinstance(texts, str) else texts
    (error,) = load(tree).errors
    return error


def the_job(texts: Texts | str, name: str = "web") -> Job:
    """One job of a tree without errors."""
    tree: Texts = {"a.yaml": texts} if isinstance(texts, str) else texts
    state = load(tree)
    assert not state.errors, [str(error) for error in state.errors]
    return state.jobs[name].job


def digest_of(texts: Texts | str, name: str = "web") -> str:
    """The digest of one job of a tree without errors."""
    return job_digest(the_job(texts, name))
