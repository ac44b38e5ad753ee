"""A spec folder (or several) as a source: complete snapshots whose revision is a digest of the content, or an error.

A file is taken once nobody has it open for writing and the walks around the read agree. Files are read when their
stat changed, so that looking at an unchanged tree reads none. What a removal waits for is in `directory_removals.py`.
"""

import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Final

from trueup.models.clock import Clock
from trueup.models.errors import SpecError
from trueup.models.ids import RevisionId
from trueup.models.revision import Commit, RemoteStatus
from trueup.models.source_error import SourceUnavailable
from trueup.sources.directory_walk import Entry, Signature, Walk, open_file, signature_of, walk_folder
from trueup.sources.snapshot import (
    IGNORE_FILE,
    MAX_FILE_BYTES,
    FileKey,
    Snapshot,
    SpecFile,
    is_document_name,
)
from trueup.sources.watch import FolderWatch, is_remote

_WALKS: Final = 3
"""How often a tree that changes under the walk is walked again at once."""
_RETRY: Final = timedelta(milliseconds=50)
_QUIET: Final = timedelta(milliseconds=200)
"""How long a file must have stayed the same where the kernel does not tell whether somebody writes it."""
LONGEST_WRITE: Final = timedelta(seconds=5)
"""So long an open file, or a tree that never comes to rest, is waited for; then it is taken as it is."""
_LOOK_WATCHED: Final = timedelta(seconds=10)
"""A lost event is found so late at the most."""
_LOOK_UNWATCHED: Final = timedelta(seconds=1)
_BREAK_SIGNAL: Final = signal.SIGURG
"""What the kernel sends us when a writer comes within the microseconds we hold a lease: one that is ignored."""


class _Unsettled(Exception):
    """The tree changed between two looks at it."""


class Writing(Enum):
    """Whether somebody has a file open for writing."""

    NO = "no"
    YES = "yes"
    UNKNOWN = "unknown"


@dataclass(slots=True, kw_only=True)
class _Known:
    """What a file held when it was last read; *error* if it could not be. *content* is let go of once loaded."""

    signature: Signature
    digest: str = ""
    content: bytes | None = None
    error: str = ""


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """A file that is being written: since when, and since when it looks as it does (monotonic seconds)."""

    since: float
    signature: Signature
    same_since: float


class _Root:
    """One root: its last walk, what its files hold, and which of them are still being written."""

    def __init__(self, number: int, path: Path, clock: Clock, longest_write: timedelta) -> None:
        self.number = number
        self.path = path
        self.walk: Walk | None = None
        self.known: dict[str, _Known] = {}
        self.waiting: dict[str, _Waiting] = {}
        self._clock = clock
        self._longest_write_seconds = longest_write.total_seconds()

    def look(self, *, patient: bool) -> bool:
        """Walks the root and reads what changed. Returns whether anything is new. SourceUnavailable.

        _Unsettled if something changed meanwhile; with *patient* False, files that did stay as they were instead.
        """
        walk = walk_folder(self.path)
        self._check_mounts(walk)
        read, learnt = self._read_changed(walk, patient=patient)
        if read and patient and walk_folder(self.path) != walk:
            raise _Unsettled
        changed = learnt or walk != self.walk
        self.walk = walk
        for path in self.known.keys() - walk.entries.keys():
            del self.known[path]
        for path in self.waiting.keys() - walk.entries.keys():
            del self.waiting[path]
        return changed

    def release(self) -> None:
        """Lets go of contents that were loaded."""
        for known in self.known.values():
            known.content = None

    def content(self, path: str, real: str, digest: str) -> bytes:
        """What the snapshot said the file holds. SourceUnavailable if it holds something else by now."""
        known = self.known.get(path)
        if known is not None and known.digest == digest and known.content is not None:
            return known.content
        try:
            with open_file(self.path, real) as descriptor:
                content = _read(descriptor)
        except OSError as error:
            raise SourceUnavailable(
                f"{path} cannot be read: {error.strerror}; it is looked at again"
            ) from None
        if content_digest(content) != digest:
            raise SourceUnavailable(f"{path} changed while the tree was read; it is looked at again")
        return content

    def _check_mounts(self, walk: Walk) -> None:
        """A file system that is gone leaves an empty folder behind, which must not pass for an emptied tree."""
        if self.walk is None:
            return
        if self.walk.root[0] != walk.root[0] and self.walk.entries and not walk.entries:
            raise SourceUnavailable(
                f"{self.path} is on another file system than before, and empty; mount it again"
            )
        gone = sorted(self.walk.mounts - walk.mounts)
        if gone and walk.root[0] == self.walk.root[0]:
            raise SourceUnavailable(f"{self.path}: {gone[0]} is no longer mounted; mount it, or start anew")

    def _read_changed(self, walk: Walk, *, patient: bool) -> tuple[bool, bool]:
        """Reads every file whose stat is new, unless it is being written: was there one, and is anything learnt."""
        read = learnt = False
        for path, entry in walk.entries.items():
            known = self.known.get(path)
            if known is not None and known.signature == entry.signature and not known.error:
                self.waiting.pop(path, None)
                continue
            try:
                found = self._read_file(path, entry)
            except _Unsettled:
                if patient:
                    raise
                self._wait(path, entry)
                continue
            except FileNotFoundError:
                if patient:
                    raise _Unsettled from None
                continue
            except OSError as error:
                found = _Known(signature=entry.signature, error=f"cannot be read: {error.strerror}")
            if found is not None and found != known:
                self.known[path] = found
                learnt = True
            read = read or found is None or not found.error
        return read, learnt

    def _read_file(self, path: str, entry: Entry) -> _Known | None:
        """What the file holds, None while it is being written. OSError; _Unsettled if it changes meanwhile."""
        with open_file(self.path, entry.real) as descriptor:
            if self._must_wait(path, entry, descriptor):
                return None
            if signature_of(os.fstat(descriptor)) != entry.signature:
                raise _Unsettled
            content = _read(descriptor)
            if signature_of(os.fstat(descriptor)) != entry.signature:
                raise _Unsettled
        self.waiting.pop(path, None)
        return _Known(signature=entry.signature, digest=content_digest(content), content=content)

    def _must_wait(self, path: str, entry: Entry, descriptor: int) -> bool:
        """Whether the file is to be left as it was for now."""
        writing = writing_state(descriptor)
        if writing is Writing.NO:
            return False
        now = self._clock.monotonic()
        waiting = self._wait(path, entry)
        if now - waiting.since >= self._longest_write_seconds:
            return False
        return writing is Writing.YES or now - waiting.same_since < _QUIET.total_seconds()

    def _wait(self, path: str, entry: Entry) -> _Waiting:
        """Notes that the file is being written."""
        now = self._clock.monotonic()
        earlier = self.waiting.get(path)
        if earlier is None or earlier.signature != entry.signature:
            since = now if earlier is None else earlier.since
            self.waiting[path] = _Waiting(since=since, signature=entry.signature, same_since=now)
        return self.waiting[path]


class DirectoryTree:
    """Snapshots of folders. Several roots make one tree."""

    kind: Final = "directory"
    remotes: Final[tuple[RemoteStatus, ...]] = ()
    paths: Final[tuple[str, ...]] = ()
    warning: Final = ""

    def __init__(
        self, roots: Sequence[Path], clock: Clock, *, longest_write: timedelta = LONGEST_WRITE
    ) -> None:
        self._roots = [
            _Root(number, path.absolute(), clock, longest_write) for number, path in enumerate(roots)
        ]
        self._longest_write_seconds = longest_write.total_seconds()
        self._clock = clock
        self._watch: FolderWatch | None = None
        self._snapshot: Snapshot | None = None
        self._unsettled_since: float | None = None
        self._next_look: datetime | None = None
        self._used: frozenset[str] = frozenset()
        self.url = " ".join(str(root.path) for root in self._roots)

    def snapshot(self, applied: RevisionId | None) -> Snapshot:  # noqa: ARG002 - a directory has no history
        """The tree as it is now; the very object of before if nothing changed. SourceUnavailable."""
        self._next_look = self._clock.now() + self._interval()
        changed = self._look_at_rest()
        if changed is None:
            now = self._clock.monotonic()
            self._unsettled_since = self._unsettled_since or now
            self._next_look = self._clock.now() + _RETRY
            if now - self._unsettled_since < self._longest_write_seconds:
                return self._last_snapshot()
            changed = self._look(patient=False)
        if any(root.waiting for root in self._roots):
            self._next_look = self._clock.now() + _RETRY
        if self._snapshot is None or changed:
            self._snapshot = self._assembled()
        return self._snapshot

    @property
    def removals_wait(self) -> bool:
        """Whether a file is still being written, so that nothing that is absent counts as removed."""
        return any(root.waiting for root in self._roots)

    @property
    def next_look(self) -> datetime | None:
        """When to look again without being woken."""
        return self._next_look

    def loaded(self, used: frozenset[str]) -> None:
        """The snapshot was read; *used* are the paths of what it is made of beside documents."""
        self._used = used

    def release(self) -> None:
        """Lets go of contents."""
        for root in self._roots:
            root.release()

    def look_now(self) -> None:
        """Nothing: every look is a fresh one."""

    def start_watching(self, wake: Callable[[], None]) -> None:
        """Calls *wake* from a thread of the watch whenever something may have changed. Without inotify: never."""
        self._watch = FolderWatch([root.path for root in self._roots], wake, matters=self._matters)

    def close(self) -> None:
        """Ends the watch."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _matters(self, path: str) -> bool:
        """Whether a change of a file may change a job: a log or a program that lies in the tree does not.

        What has no ending may be a folder, or a link to one.
        """
        name = path.rpartition("/")[2]
        if is_document_name(name) or name == IGNORE_FILE or "." not in name.lstrip("."):
            return True
        return any(path.endswith(f"/{used}") for used in self._used)

    def _interval(self) -> timedelta:
        watched = self._watch is not None and self._watch.is_complete()
        return _LOOK_WATCHED if watched else _LOOK_UNWATCHED

    def _look_at_rest(self) -> bool | None:
        """Whether anything is new; None if the tree changed at each look."""
        for _ in range(_WALKS):
            with suppress(_Unsettled):
                changed = self._look(patient=True)
                self._unsettled_since = None
                return changed
        return None

    def _look(self, *, patient: bool) -> bool:
        """Looks at every root, whatever the others said."""
        changed = [root.look(patient=patient) for root in self._roots]
        return True in changed

    def _last_snapshot(self) -> Snapshot:
        """What there was before the tree began to change: a part of a change is worse than a late one."""
        if self._snapshot is None:
            raise SourceUnavailable(
                f"{self.url} changes all the time; it is taken once two looks at it agree"
            )
        return self._snapshot

    def _assembled(self) -> Snapshot:
        files: dict[FileKey, SpecFile] = {}
        errors: list[SpecError] = []
        unusable: dict[FileKey, str] = {}
        for root in self._roots:
            if root.walk is None:
                continue
            for path, entry in root.walk.entries.items():
                known = root.known.get(path)
                if known is not None and not known.error:
                    files[FileKey(root.number, path)] = _spec_file(root, path, entry, known.digest)
                elif known is not None and entry.document:
                    errors.append(SpecError(file=path, message=known.error))
                elif known is not None:
                    unusable[FileKey(root.number, path)] = known.error
            errors += [SpecError(file=path, message=reason) for path, reason in root.walk.refused.items()]
            unusable |= {FileKey(root.number, path): reason for path, reason in root.walk.unusable.items()}
        commit = Commit(id=content_revision(files, errors), committed_at=self._clock.now())
        return Snapshot(commit=commit, files=files, errors=tuple(errors), unusable=unusable)


def content_revision(files: Mapping[FileKey, SpecFile], errors: Sequence[SpecError]) -> RevisionId:
    """The revision of a directory's content: equal for equal paths, contents and errors, wherever it lies."""
    digest = hashlib.sha256()
    for key in sorted(files):
        digest.update(f"{key.root}\0{key.path}\0{files[key].digest}\0".encode())
    for text in sorted(str(error) for error in errors):
        digest.update(f"{text}\0".encode())
    return RevisionId(f"dir-{digest.hexdigest()[:40]}")


def writing_state(descriptor: int) -> Writing:
    """Whether anybody has the open file open for writing. The kernel grants a read lease only if nobody has.

    Unknown where leases are not supported (network file systems) or not allowed (another user's file).
    """
    if is_remote(os.fstat(descriptor).st_dev):  # some refuse every lease as if somebody were writing
        return Writing.UNKNOWN
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, _BREAK_SIGNAL)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return Writing.YES
    except OSError:
        return Writing.UNKNOWN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Writing.NO


def _spec_file(root: _Root, path: str, entry: Entry, digest: str) -> SpecFile:
    return SpecFile(
        root=root.number,
        path=path,
        digest=digest,
        content=lambda: root.content(path, entry.real, digest),
        document=entry.document,
    )


def _read(descriptor: int) -> bytes:
    """All of an open regular file, at most one byte more than allowed. OSError."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(0, "is no regular file")
    parts, wanted = [], MAX_FILE_BYTES + 1
    while wanted > 0 and (part := os.read(descriptor, wanted)):
        parts.append(part)
        wanted -= len(part)
    return b"".join(parts)


def content_digest(content: bytes) -> str:
    """A file's digest in a snapshot."""
    return hashlib.sha256(content).hexdigest()
