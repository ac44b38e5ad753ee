"""Spec trees as they lie on disk now: what `validate` and `plan` look at, once and without watching.

In a git work tree that is the working files, whatever is committed.
"""

import functools
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from cli.failures import USAGE, Failed, say
from cli.system import SystemClock
from cli.work_tree import clean_commit, commit_named
from trueup.models.desired import DesiredState
from trueup.models.revision import Commit
from trueup.models.source_error import SourceUnavailable
from trueup.sources.desired import SpecLoader
from trueup.sources.directory import DirectoryTree, content_revision
from trueup.sources.snapshot import MAX_FILE_BYTES, FileKey, Snapshot, SpecFile

_WAIT_SECONDS: Final = 6.0
_RETRY_SECONDS: Final = 0.05
DEFAULT_SPECS: Final = Path("specs")
STDIN: Final = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSpecs:
    """A desired state, *words* for where it is from, and the newest *commit* of the work tree it lies in, if any."""

    desired: DesiredState
    words: str
    folder: Path
    commit: str | None


def load_specs(paths: Sequence[Path]) -> LoadedSpecs:
    """Loads folders as one tree, a single file, or stdin (`-`). Failed where there is nothing to read."""
    if len(paths) == 1 and paths[0] == STDIN:
        return _loaded(_text_snapshot("stdin", _read_stdin()), "stdin", Path())
    if len(paths) == 1 and paths[0].is_file():
        return _loaded(_file_snapshot(paths[0]), str(paths[0]), paths[0].parent)
    for path in paths:
        if path == STDIN or path.is_file():
            raise Failed(f"{path}: name either folders, or one file, or - alone", exit_code=USAGE)
    loaded = _loaded(_folders_snapshot(paths), ", ".join(map(str, paths)), paths[0])
    committed = clean_commit(paths)
    if committed is None:
        return loaded
    return LoadedSpecs(
        desired=msgspec.structs.replace(loaded.desired, commit=committed),
        words=loaded.words,
        folder=loaded.folder,
        commit=committed.id,
    )


def directory_revision(folders: Sequence[Path]) -> str:
    """The revision that a control plane which watches *folders* gives their content."""
    return _folders_snapshot(folders).commit.id


def _loaded(snapshot: Snapshot, words: str, folder: Path) -> LoadedSpecs:
    try:
        desired = SpecLoader().load(snapshot)
    except SourceUnavailable as error:
        raise Failed(str(error)) from error
    return LoadedSpecs(desired=desired, words=words, folder=folder, commit=commit_named("HEAD", folder))


def _folders_snapshot(folders: Sequence[Path]) -> Snapshot:
    """All of the folders at one moment. What somebody still writes is waited for, as the control plane does."""
    tree, deadline = DirectoryTree(folders, SystemClock()), time.monotonic() + _WAIT_SECONDS
    while True:
        problem = ""
        try:
            snapshot = tree.snapshot(None)
        except SourceUnavailable as error:
            problem = str(error)
        if not problem and not tree.removals_wait:
            return snapshot
        if time.monotonic() > deadline or not all(folder.is_dir() for folder in folders):
            break
        time.sleep(_RETRY_SECONDS)
    if problem:
        raise Failed(problem)
    return snapshot


def _file_snapshot(path: Path) -> Snapshot:
    """One file as a tree of its own; what lies beside it may be named by `source:`."""
    content = _content_of(path)
    key = FileKey(0, path.name)
    files = {key: _spec_file(key, content, document=True)}
    for other in sorted(path.parent.iterdir()):
        if other.name != path.name and not other.name.startswith(".") and other.is_file():
            found = other.stat()
            beside = FileKey(0, other.name)
            files[beside] = SpecFile(
                root=0,
                path=other.name,
                digest=f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}",
                content=functools.partial(_content_of, other),
                document=False,
            )
    return Snapshot(commit=Commit(id=content_revision({key: files[key]}, ())), files=files)


def _text_snapshot(name: str, content: bytes) -> Snapshot:
    key = FileKey(0, name)
    files = {key: _spec_file(key, content, document=True)}
    return Snapshot(commit=Commit(id=content_revision(files, ())), files=files)


def _read_stdin() -> bytes:
    if sys.stdin.isatty():
        say("reading specs from the terminal; end with Ctrl-D")
    return _bounded(sys.stdin.buffer.read(MAX_FILE_BYTES + 1), "stdin")


def _content_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _bounded(file.read(MAX_FILE_BYTES + 1), str(path))
    except OSError as error:
        raise Failed(f"{path} cannot be read: {error.strerror}") from error


def _bounded(content: bytes, where: str) -> bytes:
    if len(content) > MAX_FILE_BYTES:
        raise Failed(f"{where} is larger than {MAX_FILE_BYTES // 1024**2} MiB; split it")
    return content


def _spec_file(key: FileKey, content: bytes, *, document: bool) -> SpecFile:
    return SpecFile(
        root=key.root,
        path=key.path,
        digest=hashlib.sha256(content).hexdigest(),
        content=lambda: content,
        document=document,
    )
