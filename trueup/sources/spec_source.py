"""The door `SpecSource` of the reconciler, for directories and git alike: snapshot, load, settle, status.

`directory_source` and `git_source` are what the roof calls; `read_directory` and
`read_documents` are one look for `validate` and `plan`.
"""

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Literal, Protocol

from msgspec.structs import replace

from trueup.models.clock import Clock
from trueup.models.desired import DesiredState
from trueup.models.ids import RevisionId
from trueup.models.revision import Commit, RemoteStatus, SourceStatus
from trueup.models.source_error import SourceUnavailable
from trueup.sources.desired import SpecLoader
from trueup.sources.directory import DirectoryTree, content_digest, content_revision
from trueup.sources.directory_removals import REMOVAL_SETTLE, Removals
from trueup.sources.git import GitSettings, GitTree
from trueup.sources.git_emergency import FOLDER as EMERGENCY_FOLDER
from trueup.sources.git_emergency import EmergencyRepository, emergency_branch
from trueup.sources.git_remotes import Emergency, GitRemotes
from trueup.sources.snapshot import FileKey, Snapshot, SpecFile


class SnapshotSource(Protocol):
    """A tree that can be looked at: a directory, a git repository."""

    @property
    def kind(self) -> Literal["directory", "git"]: ...
    @property
    def url(self) -> str: ...
    @property
    def warning(self) -> str: ...
    @property
    def next_look(self) -> datetime | None: ...
    @property
    def remotes(self) -> tuple[RemoteStatus, ...]:
        """How each remote does, where it may have several."""
        ...

    @property
    def paths(self) -> tuple[str, ...]:
        """Its roots as folders of a repository, where it reads one."""
        ...

    @property
    def removals_wait(self) -> bool:
        """Whether what is absent may not yet count as removed."""
        ...

    def snapshot(self, applied: RevisionId | None) -> Snapshot:
        """The newest complete snapshot; the very object of before if nothing changed. SourceUnavailable."""
        ...

    def loaded(self, used: frozenset[str]) -> None:
        """The snapshot was loaded; *used* are the paths of its files that jobs are made of."""
        ...

    def release(self) -> None:
        """Contents are not asked for again."""
        ...

    def look_now(self) -> None: ...
    def start_watching(self, wake: Callable[[], None]) -> None: ...
    def close(self) -> None: ...


class TreeSpecSource:
    """A spec source over a tree; satisfies `reconciler.doors.SpecSource`. Calls of several threads wait in line."""

    def __init__(
        self,
        tree: SnapshotSource,
        clock: Clock,
        *,
        removal_settle: timedelta = timedelta(0),
        loader: SpecLoader | None = None,
    ) -> None:
        self._tree = tree
        self._clock = clock
        self._loader = loader or SpecLoader()
        self._removals = Removals(removal_settle)
        self._removal_settle = removal_settle
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._loaded: DesiredState | None = None
        self._first_look_at: float | None = None
        self._started = False
        self._next_look: datetime | None = None
        self._status = SourceStatus(kind=tree.kind, url=tree.url, paths=tree.paths)

    def read(self, applied: RevisionId | None) -> DesiredState:
        """The newest complete desired state, the same object if nothing changed. SourceUnavailable."""
        with self._lock:
            try:
                state = self._read(applied)
            except SourceUnavailable as error:
                self._status = replace(self._status, error=str(error), remotes=self._tree.remotes)
                raise
            finally:
                self._next_look = self._earliest_look()
            self._status = replace(
                self._status, error="", last_success_at=self._clock.now(), remotes=self._tree.remotes
            )
            return state

    @property
    def status(self) -> SourceStatus:
        """How the source does."""
        return self._status

    @property
    def next_look(self) -> datetime | None:
        """When to read again even if nothing woke the reader."""
        return self._next_look

    def look_now(self) -> None:
        """Makes the next `read` look, whatever was looked at or failed before: a forge's nudge, a watched change."""
        self._tree.look_now()

    @property
    def warning(self) -> str:
        """What the operator should know of the settings, empty if nothing."""
        return self._tree.warning

    def start_watching(self, wake: Callable[[], None]) -> None:
        """Calls *wake*, from a thread of the watch, when `read` may find something new."""
        self._tree.start_watching(wake)

    def close(self) -> None:
        """Ends the watch and whatever git process is running."""
        self._tree.close()

    def _read(self, applied: RevisionId | None) -> DesiredState:
        snapshot = self._tree.snapshot(applied)
        if self._loaded is None or snapshot is not self._snapshot:
            self._loaded = self._load(snapshot)
            self._snapshot = snapshot
        if self._tree.kind == "git":
            return self._loaded
        now = self._clock.monotonic()
        state = self._removals.settle(self._loaded, now, waits=self._tree.removals_wait)
        self._check_start(state, applied, now)
        return state

    def _load(self, snapshot: Snapshot) -> DesiredState:
        try:
            state = self._loader.load(snapshot)
        finally:
            self._tree.release()
        used = frozenset(path for job in state.jobs.values() for path in job.files)
        self._tree.loaded(used)
        return state if self._tree.kind == "git" else self._named(state, snapshot, used)

    def _named(self, state: DesiredState, snapshot: Snapshot, used: frozenset[str]) -> DesiredState:
        """With a directory's revision: the digest of what the state is made of, and of nothing beside it.

        Logs or programs that lie in the folder, too, would else make a revision with each of their changes.
        """
        files = {key: file for key, file in snapshot.files.items() if file.document or key.path in used}
        revision = content_revision(files, snapshot.errors)
        if self._loaded is None or self._loaded.commit.id != revision:
            commit = replace(state.commit, id=revision)
            return replace(state, commit=commit)
        state = replace(state, commit=self._loaded.commit)
        return self._loaded if state == self._loaded else state

    def _check_start(self, state: DesiredState, applied: RevisionId | None, now: float) -> None:
        """After a start nobody knows what was there a moment ago: what is not as last applied must stay so."""
        if self._first_look_at is None:
            self._first_look_at = now
        self._started = self._started or applied is None or applied == state.commit.id
        left = self._first_look_at + self._removal_settle.total_seconds() - now
        if not self._started and left > 0:
            raise SourceUnavailable(
                "the tree is not as it was last applied; it is taken once it was watched for"
                f" {self._removal_settle.total_seconds():g} s, so that no half-written one is"
            )
        self._started = True

    def _earliest_look(self) -> datetime | None:
        looks = [self._tree.next_look]
        now, monotonic = self._clock.now(), self._clock.monotonic()
        due_in = self._removals.due_in(monotonic)
        looks.append(None if due_in is None else now + due_in)
        if not self._started and self._first_look_at is not None:
            left = self._first_look_at + self._removal_settle.total_seconds() - monotonic
            looks.append(now + timedelta(seconds=max(left, 0)))
        return min((look for look in looks if look is not None), default=None)


def directory_source(
    roots: Sequence[Path], clock: Clock, *, removal_settle: timedelta = REMOVAL_SETTLE
) -> TreeSpecSource:
    """The source that reads folders; several make one tree."""
    return TreeSpecSource(DirectoryTree(roots, clock), clock, removal_settle=removal_settle)


def git_source(
    settings: GitSettings,
    data: Path,
    clock: Clock,
    *,
    environment: Mapping[str, str],
    random: Random | None = None,
) -> TreeSpecSource:
    """The source that follows one ref of a repository, with a mirror of it under *data*.

    *environment* is the process's own: of it git sees the search path and proxies only. RefusedAddress (a ValueError)
    for an address, ref or path that is not taken; SourceUnavailable if *data* cannot be written.
    """
    return TreeSpecSource(GitTree(settings, data, clock, environment=environment, random=random), clock)


def git_remotes_source(
    remotes: Sequence[GitSettings],
    data: Path,
    clock: Clock,
    *,
    environment: Mapping[str, str],
    random: Random | None = None,
) -> TreeSpecSource:
    """The source that follows one ref of several remotes of one history, the first of them by preference.

    `DATA/emergency.git` is kept as one more, unless that ref is a commit, which never moves. Errors as of `git_source`.
    """

    def tree(settings: GitSettings) -> GitTree:
        return GitTree(settings, data, clock, environment=environment, random=random)

    trees = [tree(settings) for settings in remotes]
    emergency = None
    branch = emergency_branch(remotes[0].ref)
    if branch:
        folder = data.absolute() / EMERGENCY_FOLDER
        repository = EmergencyRepository(folder, branch, data.absolute() / "git" / "emergency", environment)
        repository.prepare()
        pushed = dataclasses.replace(
            remotes[0],
            url=str(folder),
            ref=f"refs/heads/{branch}",
            token_file=None,
            ssh_key=None,
            known_hosts=None,
            ca_file=None,
        )
        emergency = Emergency(repository=repository, tree=tree(pushed))
    return TreeSpecSource(GitRemotes(trees, clock, emergency), clock)


def read_directory(roots: Sequence[Path], clock: Clock) -> DesiredState:
    """One look at folders, with no wait for writers or removals: for `validate` and `plan`. SourceUnavailable."""
    tree = DirectoryTree(roots, clock, longest_write=timedelta(0))
    return TreeSpecSource(tree, clock).read(None)


def read_documents(contents: Mapping[str, bytes], clock: Clock) -> DesiredState:
    """The desired state of single files by name, or of what came on stdin: for `validate`."""
    files = {
        FileKey(0, name): SpecFile(
            root=0, path=name, digest=content_digest(content), content=partial(bytes, content)
        )
        for name, content in contents.items()
    }
    commit = Commit(id=content_revision(files, ()), committed_at=clock.now())
    return SpecLoader().load(Snapshot(commit=commit, files=files))
