"""`source:` of a task's files: the content of a file of the tree, put in place of its name.

So a digest covers what a task will see and nothing else, wherever that stands in git. A source is relative to the
document that writes it, and cannot leave that document's root.
"""

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from trueup.sources.parts import Plain, mappings
from trueup.sources.report import Report
from trueup.sources.snapshot import FileKey
from trueup.sources.tree import Path, Tree

MAX_INLINED: Final = 16 * 1024**2

ReadText = Callable[[FileKey], str]
"""The text of a file of the tree. SourceFileError says why there is none."""


class SourceFileError(Exception):
    """A file that a `source:` names cannot be had; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One `source:` of a job: *path* of the files entry, *file* it names; None where it leaves the root."""

    path: Path
    file: FileKey | None


def sources_of(plain: Plain, tree: Tree) -> tuple[SourceFile, ...]:
    """Every `source:` of a job, as its document writes them."""
    found = []
    for group_path, group in mappings(plain, "groups", ()):
        for task_path, task in mappings(group, "tasks", group_path):
            for path, file in mappings(task, "files", task_path):
                if isinstance(file.get("source"), str):
                    document = tree.spot((*path, "source")).file
                    found.append(SourceFile(path=path, file=_resolve(document, file["source"])))
    return tuple(found)


def inline(plain: Plain, sources: tuple[SourceFile, ...], read: ReadText, report: Report) -> None:
    """Puts each source's content into *plain* in place of its name; faults go to *report*."""
    total = 0
    for source in sources:
        at = (*source.path, "source")
        if source.file is None:
            report.add(at, "leaves the spec tree", "name a file inside it, relative to this document")
            continue
        try:
            content = read(source.file)
        except SourceFileError as error:
            message, _, hint = str(error).partition("; ")
            report.add(at, message, hint)
            continue
        total += len(content)
        if total > MAX_INLINED:
            report.add(at, f"the files of a job hold more than {MAX_INLINED // 1024**2} MiB", "use artifacts")
            return
        entry = _at(plain, source.path)
        del entry["source"]
        entry["content"] = content


def _resolve(document: FileKey, source: str) -> FileKey | None:
    path = posixpath.normpath(posixpath.join(posixpath.dirname(document.path), source))
    if source.startswith("/") or path.startswith("..") or "\0" in source:
        return None
    return FileKey(document.root, path)


def _at(plain: Plain, path: Path) -> Plain:
    value: object = plain
    for step in path:
        value = value[step]  # type: ignore[index] # the path was walked when it was found
    return value  # type: ignore[return-value]
