"""One complete state of a spec tree, as a source yields it: files with digests, never a part of them.

Made by `directory.py` and `git.py`, read by `desired.py`. Names beginning with `.` and folders that `.trueupignore`
lists are not in it; single files that it lists are, as no documents, so that a job's `source:` may still name them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from trueup.models.errors import SpecError
from trueup.models.revision import Commit

MAX_FILE_BYTES: Final = 1024**2
MAX_TREE_BYTES: Final = 64 * 1024**2
MAX_TREE_FILES: Final = 20_000
IGNORE_FILE: Final = ".trueupignore"
DOCUMENT_SUFFIXES: Final = (".yaml", ".yml")


class FileKey(NamedTuple):
    """Which file: *root* from 0 (several roots make one tree), *path* relative to it, separated by `/`."""

    root: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecFile:
    """One regular file. *document* is False for one that only a `source:` may name.

    *digest* is of its content (a git blob id, or SHA-256): equal digests, equal content. *content* reads it: asked
    once a digest at most, and not at all for what is known already. It returns exactly what the digest was made
    of, or raises SourceUnavailable when that can no longer be had.
    """

    root: int
    path: str
    digest: str
    content: Callable[[], bytes]
    document: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All of one revision, immutable.

    *errors* are of single files the source refuses (too large, a link that leaves the root, unreadable): each is
    shown, and what such a file last held is kept. *unusable* says of files that are no documents why no `source:`
    can have them; nobody sees it unless one does. *touched* holds for git the newest commit since the applied
    revision that touched a file, newest commits first; it is empty for a directory.
    """

    commit: Commit
    files: Mapping[FileKey, SpecFile]
    errors: tuple[SpecError, ...] = ()
    unusable: Mapping[FileKey, str] = field(default_factory=dict)
    touched: Mapping[FileKey, Commit] = field(default_factory=dict)


def is_document_name(path: str) -> bool:
    """Whether a file of that name is read as YAML documents."""
    return path.endswith(DOCUMENT_SUFFIXES)


def is_hidden(path: str) -> bool:
    """Whether a name on the way to *path*, or its own, begins with a dot."""
    return any(part.startswith(".") for part in path.split("/"))
