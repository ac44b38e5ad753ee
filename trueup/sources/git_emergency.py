"""The repository that the server keeps to be pushed to while the git host is down: bare, whole for what is applied.

It has the applied commit with all its files and none of its history, so its size is that of one tree; whoever has the
applied commit can push on top of it, and a clone of it works. What was pushed there stays until what is applied
contains it.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from trueup.models.ids import RevisionId
from trueup.models.source_error import SourceUnavailable
from trueup.sources.git_command import GitAccess, GitCommand, GitFailed
from trueup.sources.git_mirror import fetch_alone
from trueup.sources.git_remote import is_commit_id, parse_remote

FOLDER: Final = "emergency.git"
MAX_PUSH_BYTES: Final = 256 * 1024**2
_HEADS: Final = "refs/heads/"
_KEPT: Final = "refs/trueup/kept/"
_INCOMING: Final = "refs/trueup/incoming"
_SECONDS: Final = 60.0
_PACK_SECONDS: Final = 300.0
_PACK_AFTER: Final = 32
_UNREACHABLE_KEPT: Final = "1.hour.ago"
"""A push under way has objects that no ref names yet."""
_COPY_DEADLINE: Final = timedelta(seconds=60)
_FORMATS: Final = {
    40: "[core]\n\trepositoryformatversion = 0\n",
    64: "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectFormat = sha256\n",
}
"""By the length of a commit's id."""
_SETTINGS: Final = f"""[core]
\tfilemode = true
\tbare = true
\thooksPath = /dev/null
[receive]
\tfsckObjects = true
\tdenyDeletes = true
\tdenyNonFastForwards = true
\tmaxInputSize = {MAX_PUSH_BYTES}
\tautogc = false
[gc]
\tauto = 0
"""
"""Read by the git of whoever pushes, too: no hook runs, nothing that is applied is deleted or rewritten."""


class EmergencyRepository:
    """The repository in *folder*, of one *branch*. One caller at a time; `tip` and `kept` from any thread."""

    def __init__(self, folder: Path, branch: str, home: Path, environment: Mapping[str, str]) -> None:
        """*home* is for git's own settings, *environment* the process's. SourceUnavailable."""
        self.folder = folder
        self.branch = branch
        self._copies = 0
        try:
            self._git = GitCommand(home, parse_remote(str(folder)), GitAccess(), environment)
        except OSError as error:
            raise SourceUnavailable(f"{home} cannot be used: {error.strerror}") from None

    def prepare(self, like: RevisionId | None = None) -> bool:
        """Makes it if there is none, with our settings and nobody's hooks. SourceUnavailable.

        With a commit that it is to hold, of the hash that this one's id is of. Returns whether it was made now.
        """
        try:
            if like is not None and self._id_length(like) != len(like):
                shutil.rmtree(self.folder)
            made = not (self.folder / "HEAD").exists()
            if made:
                self._run("init", "--quiet", "--bare", "--template=", str(self.folder))
            self.folder.chmod(0o700)
            self._write("config", _FORMATS[self._id_length(like)] + _SETTINGS)
            self._write("HEAD", f"ref: {_HEADS}{self.branch}\n")
        except OSError as error:
            raise SourceUnavailable(f"{self.folder} cannot be used: {error.strerror}") from None
        except GitFailed as failure:
            raise SourceUnavailable(f"{self.folder}: {failure.text}") from None
        return made

    def tip(self) -> RevisionId | None:
        """The commit of the branch, None if there is none. OSError."""
        return read_ref(self.folder, _HEADS + self.branch)

    def kept(self) -> RevisionId | None:
        """The commit that was last put there by us, None if there is none. OSError."""
        return read_ref(self.folder, _KEPT + self.branch)

    def put(
        self,
        commit: RevisionId,
        mirror: Path,
        fetch: Callable[[RevisionId, Path, str], None],
        *,
        over: RevisionId | None,
    ) -> None:
        """Makes *commit* its branch's, if that still is *over*. SourceUnavailable.

        What the *mirror* lacks of the commit's files, *fetch* gets from the remote.
        """
        try:
            if over != commit:
                self._take(commit, mirror, fetch)
            self._point(commit, over)
            self._copies += 1
            if self._copies % _PACK_AFTER == 0:
                self._pack()
        except GitFailed as failure:
            raise SourceUnavailable(f"{self.folder}: {failure.text}") from None

    def close(self) -> None:
        """Ends any git that runs."""
        self._git.close()

    def _take(self, commit: RevisionId, mirror: Path, fetch: Callable[[RevisionId, Path, str], None]) -> None:
        try:
            fetch_alone(self._git, parse_remote(str(mirror)), commit, self.folder, _INCOMING, _COPY_DEADLINE)
        except GitFailed:  # files outside the followed folders are not in the mirror
            fetch(commit, self.folder, _INCOMING)

    def _point(self, commit: RevisionId, over: RevisionId | None) -> None:
        lines = [
            f"update {_HEADS}{self.branch} {commit} {over or '0' * len(commit)}",
            f"update {_KEPT}{self.branch} {commit}",
        ]
        if over != commit:
            lines.append(f"delete {_INCOMING}")
        self._run("update-ref", "--stdin", stdin="\n".join(lines).encode() + b"\n")

    def _pack(self) -> None:
        """Drops what no ref names any more."""
        expired = f"--unpack-unreachable={_UNREACHABLE_KEPT}"
        self._run("repack", "-A", "-d", "-q", expired, seconds=_PACK_SECONDS)
        self._run("prune", f"--expire={_UNREACHABLE_KEPT}", seconds=_PACK_SECONDS)

    def _run(self, *words: str, seconds: float = _SECONDS, stdin: bytes = b"") -> bytes:
        return self._git.run(*words, git_dir=self.folder, deadline_seconds=seconds, stdin=stdin)

    def _id_length(self, like: RevisionId | None) -> int:
        """Of what it holds; of *like* if that is nothing."""
        held = self.kept() or self.tip() or like
        return 40 if held is None else len(held)

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            fresh = self.folder / f"{name}.new"
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)


def emergency_branch(ref: str) -> str:
    """The branch to push to where *ref* is followed; empty where that is a commit, which never moves."""
    if is_commit_id(ref):
        return ""
    branch = ref.removeprefix(_HEADS)
    return "main" if branch.startswith("refs/") or branch == "HEAD" else branch


def read_ref(folder: Path, name: str) -> RevisionId | None:
    """The commit a ref of a bare repository names, without any process. None if there is no such ref. OSError."""
    try:
        found = (folder / name).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        found = _packed_ref(folder, name)
    return RevisionId(found) if is_commit_id(found) else None


def _packed_ref(folder: Path, name: str) -> str:
    try:
        packed = (folder / "packed-refs").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    found = re.search(rf"^([0-9a-f]+) {re.escape(name)}$", packed, re.MULTILINE)
    return found.group(1) if found else ""
