"""A git repository as a source: one ref, polled (a local one watched, too), read out of a mirror.

An error of any kind leaves the last snapshot standing, and is tried again after a wait that doubles, with jitter, until
one success resets it.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

from trueup.models.clock import Clock
from trueup.models.ids import RevisionId
from trueup.models.revision import Commit, RemoteStatus
from trueup.models.source_error import SourceUnavailable
from trueup.sources.git_command import GitAccess, GitCommand, GitFailed
from trueup.sources.git_history import newest_touching
from trueup.sources.git_mirror import BlobReader, GitMirror, RefMissing, fetch_alone, unavailable
from trueup.sources.git_process import GitLimits
from trueup.sources.git_remote import check_ref, check_root, is_commit_id, parse_remote
from trueup.sources.git_signers import CommitRefused, Signers
from trueup.sources.git_tree import files_of
from trueup.sources.snapshot import Snapshot
from trueup.sources.watch import FolderWatch

_LONGEST_WAIT: Final = timedelta(minutes=5)
_BROKEN_TIMES: Final = 2
_MAX_TOKEN_BYTES: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSettings:
    """What an operator says of a git source.

    *ref* is a branch, a tag, a commit or a full ref; *paths* are folders in it, all of it if empty. *deadline* bounds a
    fetch, *first_deadline* that of the whole history. With *allowed_signers*, only commits are taken that someone in
    this file signed.
    """

    url: str
    ref: str = "main"
    paths: tuple[str, ...] = ()
    token_file: Path | None = None
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    ca_file: Path | None = None
    allowed_signers: Path | None = None
    poll: timedelta = timedelta(seconds=15)
    deadline: timedelta = timedelta(seconds=60)
    first_deadline: timedelta = timedelta(minutes=10)
    limits: GitLimits = field(default_factory=GitLimits)


@dataclass(slots=True)
class _Attempts:
    """How the last looks went. *late* counts those that ended at their deadline; *error* is empty after a success."""

    failed: int = 0
    late: int = 0
    broken: int = 0
    error: str = ""
    next_at: datetime | None = None
    is_due: bool = True


class GitTree:
    """Snapshots of one ref."""

    kind: Final = "git"
    removals_wait: Final = False
    remotes: Final[tuple[RemoteStatus, ...]] = ()

    def __init__(
        self,
        settings: GitSettings,
        data: Path,
        clock: Clock,
        *,
        environment: Mapping[str, str],
        random: Random | None = None,
    ) -> None:
        """RefusedAddress if url, ref or a path is none; no process is started before all are checked."""
        self._settings = settings
        self._remote = parse_remote(settings.url)
        self._ref = check_ref(settings.ref)
        self.paths = tuple(check_root(path) for path in settings.paths) or ("",)
        self._home = data.absolute() / "git" / hashlib.sha256(self._remote.address.encode()).hexdigest()[:16]
        self._mirror = GitMirror(self._home / "mirror.git", self._remote)
        self._signers = None if settings.allowed_signers is None else Signers(settings.allowed_signers)
        self._clock = clock
        self._environment = environment
        self._random = random or Random()  # noqa: S311 - jitter
        self._attempts = _Attempts()
        self._making = threading.Lock()
        self._command: GitCommand | None = None
        self._token = ""
        self._snapshot: Snapshot | None = None
        self._reader: BlobReader | None = None
        self._reading = ExitStack()
        self._watch: FolderWatch | None = None
        self._looking = False
        self._closed = False
        self.url = self._remote.address
        self.warning = self._remote.warning

    @property
    def next_look(self) -> datetime | None:
        """When the next poll is due."""
        return self._attempts.next_at

    @property
    def mirror(self) -> Path:
        """The bare repository its commits are kept in."""
        return self._mirror.folder

    def look_now(self) -> None:
        """The next poll is due now."""
        self._attempts.is_due = True

    def contains(self, tip: RevisionId, commit: RevisionId) -> bool:
        """Whether *commit* is *tip*, which this read, or in its history. SourceUnavailable."""
        if tip == commit:
            return True
        try:
            return self._mirror.contains(self._git(), tip, commit)
        except GitFailed as failure:
            raise unavailable(self.url, failure.text) from None

    def fetch_alone(self, commit: RevisionId, folder: Path, ref: str) -> None:
        """Fetches *commit* with all its files, without its history, into the repository *folder*. SourceUnavailable."""
        try:
            fetch_alone(self._git(), self._remote, commit, folder, ref, self._settings.deadline)
        except GitFailed as failure:
            raise unavailable(self.url, failure.text) from None

    def snapshot(self, applied: RevisionId | None) -> Snapshot:
        """The newest commit's tree; polls if that is due. SourceUnavailable, also again until the next poll is due."""
        now = self._clock.now()
        attempts = self._attempts
        if not attempts.is_due and attempts.next_at is not None and now < attempts.next_at:
            if self._snapshot is None or attempts.error:
                raise SourceUnavailable(attempts.error)
            return self._snapshot
        attempts.is_due = False
        if self._watch is not None:
            self._watch.is_complete()  # watches again what was replaced
        self._looking = True
        try:
            snapshot = self._poll(applied)
        except CommitRefused as refusal:
            self._attempts.failed = 0
            self._attempts.error = str(refusal)
            self._attempts.next_at = self._clock.now() + self._settings.poll
            raise
        except SourceUnavailable as error:
            self._failed(str(error))
            raise
        except OSError as error:
            self._failed(f"{self._home} cannot be used: {error.strerror}")
            raise SourceUnavailable(attempts.error) from None
        finally:
            self._looking = False
        if snapshot is self._snapshot:
            self._attempts.failed = 0
        self._snapshot = snapshot
        self._attempts.late = 0
        self._attempts.error = ""
        self._attempts.next_at = self._clock.now() + self._settings.poll
        return snapshot

    def loaded(self, used: frozenset[str]) -> None:  # noqa: ARG002 - of a directory only
        """The snapshot was read whole, so the mirror is sound."""
        self._attempts.broken = 0
        self._attempts.failed = 0

    def release(self) -> None:
        """Ends the git that reads blobs."""
        self._reader = None
        self._reading.close()

    def start_watching(self, wake: Callable[[], None]) -> None:
        """Calls *wake* when a ref of a local repository moved; of another one, nothing is told."""
        if self._remote.path is None or is_commit_id(self._ref):
            return

        def moved() -> None:
            self.look_now()
            wake()

        git_dir = _git_dir(self._remote.path)
        folders = [git_dir / "refs", git_dir / "reftable"]
        names = (git_dir / "packed-refs", git_dir / "HEAD")
        self._watch = FolderWatch(
            folders, moved, names=names, matters=lambda path: not path.endswith(".lock")
        )

    def watch_anew(self) -> None:
        """Watches again a repository that was made anew."""
        if self._watch is not None:
            self._watch.renew()

    def close(self) -> None:
        """Ends the watch and any git that runs; whoever reads gets SourceUnavailable."""
        self._closed = True
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._command is not None:
            self._command.close()

    def _poll(self, applied: RevisionId | None) -> Snapshot:
        try:
            git = self._git()
            if self._signers is not None:
                self._signers.prepare(git)
            self._mirror.prepare(git)
            commit = self._mirror.follow(
                git,
                self._ref,
                self._fetch_deadline().total_seconds(),
                self._settings.deadline.total_seconds(),
            )
            if self._snapshot is None or commit.id != self._snapshot.commit.id:
                self._check(git, commit)
                snapshot = self._read(git, commit, applied)
            else:
                snapshot = self._snapshot
        except RefMissing as missing:
            raise unavailable(self.url, str(missing)) from None
        except GitFailed as failure:
            self._note_broken(failure)
            raise unavailable(self.url, failure.text) from None
        return snapshot

    def _fetch_deadline(self) -> timedelta:
        """Longer after each fetch that did not get done: what is large may only need its time."""
        longest = self._settings.first_deadline
        if self._mirror.is_empty():
            return longest
        return min(self._settings.deadline * 2.0 ** min(self._attempts.late, 16), longest)

    def _check(self, git: GitCommand, commit: Commit) -> None:
        if self._signers is None:
            return
        try:
            self._signers.check(git, self._mirror.folder, commit.id)
        except CommitRefused as refusal:
            raise CommitRefused(f"{self.url}: {refusal}") from None

    def _read(self, git: GitCommand, commit: Commit, applied: RevisionId | None) -> Snapshot:
        tree = self._mirror.tree(git, commit.id, self.paths)
        found = files_of(tree, self.paths, self._content)
        since = applied if applied is not None and is_commit_id(applied) else None
        log = self._mirror.log(git, since, commit.id)
        return Snapshot(
            commit=commit,
            files=found.files,
            errors=tuple(found.errors),
            unusable=found.unusable,
            touched=newest_touching(log, found.origins),
        )

    def _content(self, blob_id: str) -> bytes:
        """Through one git for all blobs of a look; `release` ends it."""
        try:
            if self._reader is None:
                self._reader = self._reading.enter_context(self._mirror.blobs(self._git()))
            return self._reader.read(blob_id)
        except GitFailed as failure:
            self._snapshot = None  # it was never loaded
            self.release()
            self._note_broken(failure)
            error = unavailable(self.url, failure.text)
            if not self._looking:
                self._failed(str(error))
            raise error from None

    def _git(self) -> GitCommand:
        """Git with the token as it is now: it may have been renewed. From any thread."""
        if self._closed:
            raise GitFailed("the source is closed")
        token = self._read_token()
        with self._making:
            return self._made(token)

    def _made(self, token: str) -> GitCommand:
        if self._command is None or token != self._token or not self._command.is_whole:
            settings = self._settings
            access = GitAccess(
                token=token,
                ssh_key=settings.ssh_key,
                known_hosts=settings.known_hosts,
                ca_file=settings.ca_file,
            )
            self._command = GitCommand(self._home, self._remote, access, self._environment, settings.limits)
            self._token = token
        return self._command

    def _read_token(self) -> str:
        file = self._settings.token_file
        if file is None:
            return ""
        try:
            with file.open("rb") as opened:
                content = opened.read(_MAX_TOKEN_BYTES + 1)
            token = content.decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceUnavailable(f"the token file {file} cannot be read: {error}") from None
        if len(content) > _MAX_TOKEN_BYTES or len(token.split()) > 1:
            raise SourceUnavailable(f"the token file {file} does not hold one token on one line")
        return token

    def _note_broken(self, failure: GitFailed) -> None:
        """Throws the mirror away when it failed twice in a row although the remote answers."""
        if failure.timed_out:
            self._attempts.late += 1
        if failure.timed_out or self._closed:
            return
        self._attempts.broken += 1
        if self._attempts.broken < _BROKEN_TIMES or self._command is None:
            return
        if self._mirror.answers(self._command, self._settings.deadline.total_seconds()):
            self._mirror.discard()
            self._attempts.broken = 0

    def _failed(self, error: str) -> None:
        self._attempts.failed += 1
        self._attempts.error = error
        wait = self._settings.poll * 2.0 ** min(self._attempts.failed - 1, 16)
        jitter = 0.5 + self._random.random() / 2
        self._attempts.next_at = self._clock.now() + min(wait, _LONGEST_WAIT) * jitter


def _git_dir(path: Path) -> Path:
    """The folder with the refs of a local repository: itself, `.git` in it, or where a work tree's file points."""
    inner = path / ".git"
    if inner.is_dir():
        return inner
    if not inner.is_file():
        return path
    own = path / inner.read_text(encoding="utf-8", errors="replace").removeprefix("gitdir:").strip()
    common = own / "commondir"
    return (own / common.read_text(encoding="utf-8").strip()).resolve() if common.is_file() else own
