"""From `git ls-tree` to the files of a snapshot: folders as roots, links resolved inside the tree, nothing checked out.

The rules are those of `directory_walk.py`. A root that is not there is an empty one, since git keeps no empty folders.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from trueup.models.errors import SpecError
from trueup.models.source_error import SourceUnavailable
from trueup.sources.directory_walk import LEAVES_ROOT, TOO_LARGE, TREE_TOO_LARGE, Refused
from trueup.sources.ignore import NO_RULES, IgnoreRules
from trueup.sources.snapshot import (
    IGNORE_FILE,
    MAX_FILE_BYTES,
    MAX_TREE_BYTES,
    MAX_TREE_FILES,
    FileKey,
    SpecFile,
    is_document_name,
)

LIST_ARGUMENTS: Final = ("ls-tree", "-r", "-z", "-l", "--full-tree")
_LINK: Final = "120000"
_SUBMODULE: Final = "160000"
_NOT_HERE: Final = "BAD"
_MAX_LINKS: Final = 40
_MAX_LINK_BYTES: Final = 4096
_MAX_DEPTH: Final = 64

ReadBlob = Callable[[str], bytes]
"""The content of a blob by its id. SourceUnavailable."""


class Blob(NamedTuple):
    """An entry that is no folder. *size_bytes* is 0 for a submodule, and too many for what the mirror left out."""

    mode: str
    id: str
    size_bytes: int


Folder = dict[str, "Folder | Blob"]


@dataclass(slots=True, kw_only=True)
class GitFiles:
    """The files of all roots, as in Snapshot. *origins* are for each file the repository's paths it is made of."""

    files: dict[FileKey, SpecFile] = field(default_factory=dict)
    errors: list[SpecError] = field(default_factory=list)
    unusable: dict[FileKey, str] = field(default_factory=dict)
    origins: dict[FileKey, tuple[str, ...]] = field(default_factory=dict)
    size_bytes: int = 0


def read_tree(listing: bytes) -> Folder:
    """The tree that `git ls-tree` printed with LIST_ARGUMENTS."""
    top: Folder = {}
    known = {"": top}
    for line in listing.decode("utf-8", "surrogateescape").split("\0"):
        if not line:
            continue
        head, _, name = line.partition("\t")
        mode, _, blob_id, size = head.split()
        path, _, last = name.rpartition("/")
        folder = known.get(path)
        if folder is None:
            folder = known[path] = _made_folder(top, path)
        folder[last] = Blob(mode, blob_id, _size(size))
    return top


def _made_folder(top: Folder, path: str) -> Folder:
    folder = top
    for part in path.split("/"):
        inner = folder.setdefault(part, {})
        if isinstance(inner, dict):
            folder = inner
    return folder


def _size(text: str) -> int:
    if text == _NOT_HERE:
        return MAX_FILE_BYTES + 1
    return int(text) if text.isdigit() else 0


def files_of(tree: Folder, roots: Sequence[str], read: ReadBlob) -> GitFiles:
    """The files below *roots* (paths in the repository, empty for all). SourceUnavailable: too large, no folder."""
    found = GitFiles()
    for number, root in enumerate(roots):
        _Root(number, root, _root_folder(tree, root), read, found).take()
    return found


def _root_folder(tree: Folder, root: str) -> Folder:
    folder = tree
    for part in root.split("/") if root else ():
        inner = folder.get(part, {})
        if not isinstance(inner, dict):
            raise SourceUnavailable(f"{root} is no folder in this commit; name one with --path")
        folder = inner
    return folder


class _Root:
    def __init__(self, number: int, path: str, folder: Folder, read: ReadBlob, found: GitFiles) -> None:
        self._number = number
        self._path = path
        self._top = folder
        self._read = read
        self._found = found
        self._texts: dict[str, bytes] = {}
        self._rules = NO_RULES

    def take(self) -> None:
        self._folder(self._top, "", "", (id(self._top),))

    def _folder(self, folder: Folder, path: str, real: str, above: tuple[int, ...]) -> None:
        """Takes all names of a folder: *path* as the tree shows it, *real* past all links; *above* against loops."""
        if IGNORE_FILE in folder:
            self._read_rules(path, real)
        for name in sorted(folder):
            if name.startswith("."):
                continue
            inner = _join(path, name)
            try:
                inner.encode()
            except UnicodeEncodeError:
                shown = inner.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                self._refuse(shown, "has a name that is no UTF-8", document=is_document_name(inner))
                continue
            self._entry(folder[name], inner, _join(real, name), above)

    def _entry(self, entry: "Folder | Blob", path: str, real: str, above: tuple[int, ...]) -> None:
        origins: tuple[str, ...] = (real,)
        if isinstance(entry, Blob) and entry.mode == _LINK:
            if self._rules.ignores(path, folder=False):
                return
            try:
                real, entry = self._resolve(real)
            except Refused as refusal:
                # Nobody can tell what it would have been; a name without an ending may be a folder of documents.
                document = is_document_name(path) or "." not in path.rpartition("/")[2]
                self._refuse(path, str(refusal), document=document)
                return
            origins = (*origins, real)
        if isinstance(entry, Blob):
            self._file(entry, path, tuple(_join(self._path, origin) for origin in origins))
        elif not self._rules.ignores(path, folder=True):
            if id(entry) in above:
                self._refuse(path, "is a link to a folder that it lies in", document=True)
            elif len(above) > _MAX_DEPTH:
                self._refuse(path, f"lies more than {_MAX_DEPTH} folders deep", document=True)
            else:
                self._folder(entry, path, real, (*above, id(entry)))

    def _file(self, blob: Blob, path: str, origins: tuple[str, ...]) -> None:
        if blob.mode == _SUBMODULE:
            if not self._rules.ignores(path, folder=True):
                self._refuse(path, "is a submodule, which is not followed", document=True)
            return
        document = is_document_name(path) and not self._rules.ignores(path, folder=False)
        if blob.size_bytes > MAX_FILE_BYTES:
            self._refuse(path, TOO_LARGE, document=document)
            return
        found, key = self._found, FileKey(self._number, path)
        found.files[key] = SpecFile(
            root=self._number,
            path=path,
            digest=blob.id,
            content=partial(self._read, blob.id),
            document=document,
        )
        found.origins[key] = origins
        found.size_bytes += blob.size_bytes
        if len(found.files) > MAX_TREE_FILES or found.size_bytes > MAX_TREE_BYTES:
            raise SourceUnavailable(f"the tree {TREE_TOO_LARGE}")

    def _refuse(self, path: str, reason: str, *, document: bool) -> None:
        if document:
            self._found.errors.append(SpecError(file=path, message=reason))
        else:
            self._found.unusable[FileKey(self._number, path)] = reason

    def _resolve(self, path: str) -> "tuple[str, Folder | Blob]":
        """Where *path* leads in this root. Refused if it leaves the root at any step, or ends nowhere."""
        waiting = path.split("/")[::-1]
        done: list[tuple[str, Folder]] = []
        at: Folder | Blob = self._top
        links = 0
        while waiting:
            part = waiting.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                if not done:
                    raise Refused(LEAVES_ROOT)
                at = done.pop()[1]
                continue
            entry = at.get(part) if isinstance(at, dict) else None
            if entry is None or isinstance(at, Blob):
                raise Refused("is a link to nothing")
            if not isinstance(entry, Blob) or entry.mode != _LINK:
                done.append((part, at))
                at = entry
                continue
            links += 1
            if links > _MAX_LINKS:
                raise Refused("is a link that leads to itself")
            waiting.extend(reversed(self._target(entry).split("/")))
        return "/".join(part for part, _ in done), at

    def _target(self, link: Blob) -> str:
        if link.size_bytes > _MAX_LINK_BYTES:
            raise Refused("is a link to nothing")
        target = self._read(link.id).decode("utf-8", "surrogateescape")
        if target.startswith("/"):
            raise Refused(LEAVES_ROOT)
        return target

    def _read_rules(self, path: str, real: str) -> None:
        """Adds the patterns of a folder. Unread, they would let in what they keep out: no tree, then."""
        try:
            _, entry = self._resolve(_join(real, IGNORE_FILE))
        except Refused as refusal:
            raise SourceUnavailable(f"{_join(path, IGNORE_FILE)}: {refusal}") from None
        if not isinstance(entry, Blob) or entry.mode == _SUBMODULE or entry.size_bytes > MAX_FILE_BYTES:
            raise SourceUnavailable(f"{_join(path, IGNORE_FILE)} is no list of patterns")
        self._texts[path] = self._read(entry.id)
        self._rules = IgnoreRules(self._texts)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
