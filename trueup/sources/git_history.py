"""Who changed what: commits as git's log prints them, and for each file the newest that touched it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from trueup.models.ids import RevisionId
from trueup.models.revision import Commit
from trueup.sources.snapshot import FileKey

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Also what turns the direction of the text around it."""
_MAX_LENGTH: Final = 500
_BEGIN: Final = "\x01"
_FIELDS: Final = ("%H", "%P", "%an", "%ae", "%ct", "%s")
LOG_ARGUMENTS: Final = (
    "log",
    "-z",
    "--topo-order",
    f"--format={_BEGIN}{'%x00'.join(_FIELDS)}%x00",
    "--no-color",
    "--no-show-signature",
    "--no-mailmap",
    "--encoding=UTF-8",
)
NAMES_ARGUMENTS: Final = ("-c", "--name-only", "--no-renames", "--no-ext-diff", "--no-textconv")
"""Files of each commit. Of a merge only what is in none of its parents: the rest has authors of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedCommit:
    """A commit with the files it touched, by their path in the repository."""

    commit: Commit
    files: tuple[str, ...]


def read_log(output: bytes) -> Iterator[LoggedCommit]:
    """The commits that `git log` printed with LOG_ARGUMENTS, and NAMES_ARGUMENTS for the files."""
    texts = output.decode("utf-8", "surrogateescape").split("\0")
    position = 0
    while position < len(texts):
        text = texts[position].lstrip("\n")
        if not text.startswith(_BEGIN) or position + len(_FIELDS) > len(texts):
            position += 1
            continue
        commit = _commit(text.removeprefix(_BEGIN), texts[position + 1 : position + len(_FIELDS)])
        position += len(_FIELDS)
        files = []
        while position < len(texts) and not texts[position].lstrip("\n").startswith(_BEGIN):
            if name := texts[position].removeprefix("\n"):
                files.append(name)
            position += 1
        yield LoggedCommit(commit=commit, files=tuple(files))


def newest_touching(
    log: Sequence[LoggedCommit], origins: Mapping[FileKey, Sequence[str]]
) -> dict[FileKey, Commit]:
    """For each file the newest commit that touched one of its *origins*; newest commits first.

    What no commit touched is not in it.
    """
    first: dict[str, int] = {}
    for number, logged in enumerate(log):
        for file in logged.files:
            first.setdefault(file, number)
    found = {
        key: min(first[path] for path in paths if path in first)
        for key, paths in origins.items()
        if any(path in first for path in paths)
    }
    return {key: log[found[key]].commit for key in sorted(found, key=lambda key: (found[key], key))}


def _commit(commit_id: str, fields: Sequence[str]) -> Commit:
    parents, *written = fields
    author, email, seconds, subject = map(_clean, written)
    return Commit(
        id=RevisionId(commit_id),
        parent=RevisionId(parents.split(" ")[0]) if parents else None,
        author=author,
        author_email=email,
        subject=subject,
        committed_at=_time(seconds),
    )


def _clean(text: str) -> str:
    """Text fit for terminals and JSON: on one line, without control characters, all UTF-8, and not too long."""
    clean = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _CONTROL.sub(" ", clean)[:_MAX_LENGTH]


def _time(seconds: str) -> datetime | None:
    """None for a time no calendar has, which git lets through."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
