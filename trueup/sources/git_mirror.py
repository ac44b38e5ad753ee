"""A bare mirror of one ref of a repository: fetched into, read from, never checked out.

It has all commits of the ref and, of a server that can leave some out, no file that is too large for a spec tree. It is
only a cache: what is broken twice in a row, while the remote answers, is thrown away and fetched anew.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Final

from trueup.models.revision import Commit
from trueup.models.source_error import SourceUnavailable
from trueup.sources.directory_walk import TREE_TOO_LARGE
from trueup.sources.git_command import GitCommand, GitFailed
from trueup.sources.git_history import LOG_ARGUMENTS, NAMES_ARGUMENTS, LoggedCommit, read_log
from trueup.sources.git_remote import GitRemote, is_commit_id, is_short_commit_id
from trueup.sources.git_tree import LIST_ARGUMENTS, Folder, read_tree
from trueup.sources.snapshot import MAX_FILE_BYTES

_FOLLOWED: Final = "refs/trueup/followed"
_ALL: Final = ("+refs/heads/*:refs/trueup/heads/*", "+refs/tags/*:refs/trueup/tags/*")
_FETCH: Final = (
    "fetch",
    "--quiet",
    "--force",
    "--no-tags",
    "--no-write-fetch-head",
    "--no-auto-maintenance",
    "--no-recurse-submodules",
    "--update-shallow",
)
_NAME: Final = "trueup"
_FILTER: Final = f"blob:limit={MAX_FILE_BYTES + 1}"
_LEFTOVERS: Final = (
    "*.lock",
    "refs/**/*.lock",
    "packed-refs.new",
    "objects/*.tmp",
    "objects/tmp_*",
    "objects/pack/tmp_*",
    "objects/pack/.tmp-*",
    "objects/pack/*.keep",
    "objects/??/tmp_obj_*",
)
"""Of a git that was killed: locks, half packs, and marks that would keep a pack from ever being joined with others."""
_KEPT_FREE_BYTES: Final = 256 * 1024**2
"""So much of the disk is left to others, the store of the control plane among them."""
_READ_SECONDS: Final = 60.0
_LOG_SECONDS: Final = 20.0
_PACK_SECONDS: Final = 300.0
_PACK_AFTER: Final = 64
"""Each fetch that brings something leaves a pack behind; so many are made one."""
_OTHER_HASH: Final = "server sha256"
_LIMIT_UNIT_BYTES: Final = 512
_LOGGED_COMMITS: Final = 1000
"""How far back authors are looked for when nothing was applied yet, or the history since is longer."""


class RefMissing(Exception):
    """The remote answers, and has no such branch, tag or commit."""


class GitMirror:
    """The mirror in *folder*. One caller at a time. Methods raise GitFailed."""

    def __init__(self, folder: Path, remote: GitRemote) -> None:
        self._folder = folder
        self._remote = remote
        self._full_ref = ""
        self._fetches = 0
        self._filters = remote.path is None
        self._hash = "sha1"
        self._last: tuple[str, Commit] | None = None

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._folder

    def prepare(self, git: GitCommand) -> None:
        """Makes the mirror if there is none, and takes away what a killed git left."""
        if not (self._folder / "HEAD").exists():
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            git.run(
                "init", "--quiet", "--bare", "--template=", "--initial-branch=none",
                f"--object-format={self._hash}", str(self._folder),
                git_dir=self._folder, deadline_seconds=_READ_SECONDS,
            )  # fmt: skip
        for pattern in _LEFTOVERS:
            for left in self._folder.glob(pattern):
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left)
                else:
                    left.unlink(missing_ok=True)

    def discard(self) -> None:
        """Throws the mirror away."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._full_ref = ""
        self._last = None

    def answers(self, git: GitCommand, deadline_seconds: float) -> bool:
        """Whether the remote can be talked to at all, whatever the mirror is like."""
        try:
            git.run("ls-remote", "--quiet", "--", self._remote.address, "HEAD",
                    git_dir=self._folder, deadline_seconds=deadline_seconds)  # fmt: skip
        except GitFailed:
            return False
        return True

    def is_empty(self) -> bool:
        """Whether nothing was fetched yet."""
        return next(self._folder.glob("objects/pack/*.pack"), None) is None

    def follow(self, git: GitCommand, ref: str, deadline_seconds: float, query_seconds: float) -> Commit:
        """Fetches *ref* and returns the commit it stands for. RefMissing.

        *query_seconds* is what the remote has to tell its refs.
        """
        try:
            return self._follow(git, ref, deadline_seconds, query_seconds)
        except GitFailed as failure:
            if _OTHER_HASH not in failure.text or self._hash == "sha256":
                raise
        self.discard()
        self._hash = "sha256"
        self.prepare(git)
        return self._follow(git, ref, deadline_seconds, query_seconds)

    def tree(self, git: GitCommand, commit: str, roots: Sequence[str]) -> Folder:
        """All entries of a commit below *roots*."""
        wanted = () if "" in roots else ("--", *roots)
        try:
            listing = git.run(
                *LIST_ARGUMENTS, commit, *wanted, git_dir=self._folder, deadline_seconds=_READ_SECONDS
            )
        except GitFailed as failure:
            if failure.said_too_much:
                raise SourceUnavailable(f"the tree {TREE_TOO_LARGE}") from None
            raise
        return read_tree(listing)

    def log(self, git: GitCommand, since: str | None, until: str) -> tuple[LoggedCommit, ...]:
        """Commits of *until* that *since* has not, newest first; all of them where *since* is None or unknown here."""
        ranges = [(f"^{since}", until), (until,)] if since is not None else [(until,)]
        for words in ranges:
            with suppress(GitFailed):
                output = git.run(
                    *LOG_ARGUMENTS, *NAMES_ARGUMENTS, f"--max-count={_LOGGED_COMMITS}", *words, "--",
                    git_dir=self._folder, deadline_seconds=_LOG_SECONDS,
                )  # fmt: skip
                return tuple(read_log(output))
        return ()

    def contains(self, git: GitCommand, tip: str, commit: str) -> bool:
        """Whether *commit* is in the history of *tip*. What this mirror does not know is in no history here."""
        try:
            git.run("merge-base", "--is-ancestor", commit, tip,
                    git_dir=self._folder, deadline_seconds=_LOG_SECONDS)  # fmt: skip
        except GitFailed as failure:
            if failure.timed_out:
                raise
            return False
        return True

    @contextmanager
    def blobs(self, git: GitCommand) -> Iterator["BlobReader"]:
        """A reader of blobs, as long as the block."""
        with git.converse("cat-file", "--batch", git_dir=self._folder, deadline_seconds=_READ_SECONDS) as (
            questions,
            answers,
        ):
            yield BlobReader(questions, answers)

    def _follow(self, git: GitCommand, ref: str, deadline_seconds: float, query_seconds: float) -> Commit:
        if is_commit_id(ref):
            return self._commit_id(git, ref, deadline_seconds)
        known = self._full_ref if self._full_ref.startswith("refs/heads/") or ref.startswith("refs/") else ""
        full = known or self._full_name(git, ref, query_seconds)
        if not full:
            return self._short_id(git, ref, deadline_seconds)
        try:
            self._fetch(git, [f"+{full}:{_FOLLOWED}"], deadline_seconds)
        except GitFailed as failure:
            if failure.timed_out:
                raise
            self._full_ref = ""
            if "remote ref" in failure.text:
                raise RefMissing(f"the repository no longer has {full}") from None
            raise
        self._full_ref = full
        return self._followed(git)

    def _full_name(self, git: GitCommand, ref: str, deadline_seconds: float) -> str:
        """The remote's full name for a branch or a tag, in this order; empty if it has neither."""
        names = (
            [ref] if ref.startswith("refs/") or ref == "HEAD" else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        )
        output = git.run("ls-remote", "--quiet", "--", self._remote.address, *names,
                         git_dir=self._folder, deadline_seconds=deadline_seconds)  # fmt: skip
        offered = {line.partition("\t")[2] for line in output.decode("utf-8", "replace").splitlines()}
        found = next((name for name in names if name in offered), "")
        if not found and not is_short_commit_id(ref):
            raise RefMissing(f"the repository has no branch or tag {ref!r}; name one with --ref")
        return found

    def _commit_id(self, git: GitCommand, commit: str, deadline_seconds: float) -> Commit:
        """A whole commit id never moves: it is fetched once."""
        if self._last is not None and self._last[0] == commit:
            return self._last[1]
        if not self._has(git, commit):
            try:
                self._fetch(git, [f"+{commit}:{_FOLLOWED}"], deadline_seconds)
            except GitFailed as failure:
                if failure.timed_out:
                    raise
                self._fetch(git, _ALL, deadline_seconds)  # the server may not give single commits
        if not self._has(git, commit):
            raise RefMissing(f"the repository has no commit {commit}")
        self._last = (commit, self._record(git, commit))
        return self._last[1]

    def _short_id(self, git: GitCommand, start: str, deadline_seconds: float) -> Commit:
        self._fetch(git, _ALL, deadline_seconds)
        try:
            return self._record(git, start)
        except GitFailed:
            raise RefMissing(
                f"the repository has no branch, tag or single commit {start!r}; name one with --ref"
            ) from None

    def _fetch(self, git: GitCommand, refspecs: Sequence[str], deadline_seconds: float) -> None:
        """Fetches without large files where the server can do that."""
        room = self._room(git)
        try:
            git.run(*self._promised(), *_FETCH, *self._filter(), "--", _NAME, *refspecs,
                    git_dir=self._folder, deadline_seconds=deadline_seconds, file_bytes=room)  # fmt: skip
        except GitFailed as failure:
            if failure.timed_out:
                raise
            if self._is_cut_off(room):
                raise GitFailed(
                    f"sends more than the {room // 1024**2} MiB that its mirror may still grow"
                ) from None
            if not self._filters or "filter" not in failure.text:
                raise
            self._filters = False
            self._fetch(git, refspecs, deadline_seconds)

    def _filter(self) -> Sequence[str]:
        return (f"--filter={_FILTER}",) if self._filters else ("--no-filter",)

    def _promised(self) -> Sequence[str]:
        """Settings for commands that have to know that files may be missing. For all others nothing can fetch them."""
        settings = {"url": self._remote.address}
        if self._remote.path is None:
            settings |= {"promisor": "true", "partialCloneFilter": _FILTER}
        return [word for key, value in settings.items() for word in ("-c", f"remote.{_NAME}.{key}={value}")]

    def _room(self, git: GitCommand) -> int:
        """How many bytes a fetch may bring. GitFailed: the mirror is full, SourceUnavailable: the disk is."""
        free = shutil.disk_usage(self._folder).free - _KEPT_FREE_BYTES
        if free <= 0:
            raise SourceUnavailable(
                f"less than {_KEPT_FREE_BYTES // 1024**2} MiB are free on the disk of {self._folder}"
            )
        used = sum(pack.stat().st_size for pack in self._folder.glob("objects/pack/*"))
        left = git.limits.mirror_bytes - used
        if left <= 0:
            raise GitFailed(f"its mirror has {used // 1024**2} MiB, which is as large as it may grow")
        return min(left, free)

    def _is_cut_off(self, room: int) -> bool:
        """Whether a pack came up to *room*, where the kernel ended whoever wrote it: git itself does not say why."""
        sizes = (pack.stat().st_size for pack in self._folder.glob("objects/pack/tmp_*"))
        return max(sizes, default=0) > room - _LIMIT_UNIT_BYTES

    def _followed(self, git: GitCommand) -> Commit:
        with suppress(OSError):
            value = (self._folder / _FOLLOWED).read_text(encoding="ascii").strip()
            if self._last is not None and self._last[0] == value:
                return self._last[1]
            self._fetches += 1
            if self._fetches % _PACK_AFTER == 0:
                self._pack(git)
            self._last = (value, self._record(git, value))
            return self._last[1]
        return self._record(git, _FOLLOWED)

    def _record(self, git: GitCommand, name: str) -> Commit:
        """The commit that *name* stands for, past an annotated tag. RefMissing if that is something else."""
        try:
            output = git.run(*LOG_ARGUMENTS, "--max-count=1", "--end-of-options", f"{name}^{{commit}}", "--",
                             git_dir=self._folder, deadline_seconds=_READ_SECONDS)  # fmt: skip
        except GitFailed as failure:
            if "expected commit type" in failure.text:
                raise RefMissing("the ref stands for no commit; name another one with --ref") from None
            raise
        for logged in read_log(output):
            return logged.commit
        raise GitFailed(f"{name} is no commit")

    def _has(self, git: GitCommand, commit: str) -> bool:
        with suppress(GitFailed):
            git.run("cat-file", "-e", f"{commit}^{{commit}}",
                    git_dir=self._folder, deadline_seconds=_READ_SECONDS)  # fmt: skip
            return True
        return False

    def _pack(self, git: GitCommand) -> None:
        """Joins packs; where files may be missing only all of them, since git then keeps those apart."""
        which = ("--geometric=2",) if self._remote.path is not None else ("-a",)
        with suppress(GitFailed):
            git.run(*self._promised(), "repack", "-d", "-q", *which,
                    git_dir=self._folder, deadline_seconds=_PACK_SECONDS)  # fmt: skip


def fetch_alone(
    git: GitCommand, remote: GitRemote, commit: str, folder: Path, ref: str, deadline: timedelta
) -> None:
    """Fetches one commit of *remote* with all its files, but none of its history, as *ref* of *folder*. GitFailed."""
    git.run(*_FETCH, "--depth=1", "--", remote.address, f"+{commit}:{ref}",
            git_dir=folder, deadline_seconds=deadline.total_seconds())  # fmt: skip


class BlobReader:
    """Reads blobs through one `cat-file --batch`."""

    def __init__(self, questions: IO[bytes], answers: IO[bytes]) -> None:
        self._questions = questions
        self._answers = answers

    def read(self, blob_id: str) -> bytes:
        """The content of a blob, checked against its id. GitFailed."""
        try:
            self._questions.write(blob_id.encode() + b"\n")
            self._questions.flush()
            head = self._answers.readline(256).split()
        except (OSError, ValueError):
            raise GitFailed("git ended while it read the mirror") from None
        if len(head) != 3 or head[1] != b"blob":
            raise GitFailed(f"the mirror lacks {blob_id}")
        size = int(head[2])
        if size > MAX_FILE_BYTES:
            raise GitFailed(f"{blob_id} is larger than the tree said")
        content = self._answers.read(size + 1)[:-1]
        kind = hashlib.sha1 if len(blob_id) == 40 else hashlib.sha256
        if len(content) != size or kind(b"blob %d\0" % size + content).hexdigest() != blob_id:
            raise GitFailed(f"{blob_id} is damaged in the mirror")
        return content


def unavailable(address: str, text: str) -> SourceUnavailable:
    """The error an operator reads, with what to do."""
    return SourceUnavailable(f"{address}: {text}{_hint(text)}")


def _hint(text: str) -> str:
    return next((f"; {hint}" for sign, hint in _HINTS if sign in text), "")


_HINTS: Final = (
    ("could not read Username", "it wants a login: give --git-token-file"),
    ("Authentication failed", "the token was refused: see --git-token-file"),
    ("returned error: 401", "the token was refused: see --git-token-file"),
    ("returned error: 403", "the token may not read this repository"),
    ("Host key verification failed", "give the host's key with --git-known-hosts"),
    ("bad permissions", "chmod 600 the file of --git-ssh-key"),
    ("Permission denied (publickey", "give a key the host takes with --git-ssh-key"),
    ("certificate", "give the authority that signed it with --git-ca"),
    ("redirect", "give the address it now has"),
)
