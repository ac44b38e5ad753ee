"""Questions to the git repository a person works in: which commit a name means, and which came first.

The user's own git with the user's own settings, asked to read only. Whatever it cannot say is None, never an error:
the command line works without git, too.
"""

import os
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from trueup.models.ids import RevisionId
from trueup.models.revision import Commit

_SECONDS: Final = 10.0
_COMMIT_FIELDS: Final = 6


def commit_named(name: str, folder: Path) -> str | None:
    """The full id of the commit that *name* (`HEAD`, a branch, a short id) means in the repository of *folder*."""
    if name.startswith("-"):
        return None
    answer = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return None if answer is None or answer.returncode != 0 else answer.stdout.strip() or None


def is_ancestor(older: str, newer: str, folder: Path) -> bool | None:
    """Whether *older* is *newer* or one of its ancestors; None if the repository of *folder* lacks one of them."""
    if commit_named(older, folder) is None or commit_named(newer, folder) is None:
        return None
    answer = _git(folder, "merge-base", "--is-ancestor", older, newer)
    return None if answer is None or answer.returncode not in {0, 1} else answer.returncode == 0


def clean_commit(paths: Sequence[Path]) -> Commit | None:
    """The commit that HEAD is, where all of *paths* lie in one repository as that commit has them."""
    folder = paths[0]
    answer = _git(folder, "log", "-1", "--format=%H%x00%P%x00%an%x00%ae%x00%cI%x00%s")
    fields = [] if answer is None or answer.returncode != 0 else answer.stdout.rstrip("\n").split("\0")
    if len(fields) != _COMMIT_FIELDS:
        return None
    within = [str(path.resolve()) for path in paths]
    changed = _git(folder, "status", "--porcelain", "--untracked-files=all", "--ignored", "--", *within)
    if changed is None or changed.returncode != 0 or changed.stdout:
        return None
    tracked = _git(folder, "ls-files", "--", *within)
    if tracked is None or not tracked.stdout:
        return None
    return Commit(
        id=RevisionId(fields[0]),
        parent=RevisionId(fields[1].split(" ")[0]) if fields[1] else None,
        author=fields[2],
        author_email=fields[3],
        committed_at=datetime.fromisoformat(fields[4]),
        subject=fields[5],
    )


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
