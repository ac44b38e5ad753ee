"""A revision: one state of the spec source, who made it, and what became of it."""

from datetime import datetime
from typing import Literal

import msgspec

from trueup.models.codec import Model
from trueup.models.errors import SpecError
from trueup.models.ids import RevisionId

RevisionState = Literal["pending", "applied", "held", "superseded", "invalid"]
RemoteState = Literal["followed", "current", "behind", "diverged", "unreachable"]
"""Of several remotes of one history: *current* has the very commit that is followed elsewhere."""


class Commit(Model, frozen=True, kw_only=True):
    """A commit's own record: who, when and why. For a directory, the digest and the time it was seen."""

    id: RevisionId
    parent: RevisionId | None = None
    author: str = ""
    author_email: str = ""
    subject: str = ""
    committed_at: datetime | None = None


class ChangedJobs(Model, frozen=True, kw_only=True):
    """Names of the jobs a revision created, updated, removed, or left invalid."""

    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()


class Held(Model, frozen=True, kw_only=True):
    """Why a revision is held, what it would remove, and the digest that confirms exactly that loss."""

    revision: RevisionId
    reason: str
    removes: tuple[str, ...] = ()
    confirm: str = ""


class Revision(Model, frozen=True, kw_only=True):
    """A revision as stored, in order of arrival."""

    id: RevisionId
    parent: RevisionId | None = None
    author: str = ""
    author_email: str = ""
    subject: str = ""
    committed_at: datetime | None = None
    seen_at: datetime
    applied_at: datetime | None = None
    state: RevisionState = "pending"
    jobs: ChangedJobs = ChangedJobs()
    errors: tuple[SpecError, ...] = ()
    held: Held | None = None


class RemoteStatus(Model, frozen=True, kw_only=True):
    """How one remote of the source's history does. *emergency* is the repository that the server keeps itself."""

    url: str
    state: RemoteState
    commit: RevisionId | None = None
    last_success_at: datetime | None = None
    error: str = ""
    emergency: bool = False


class SourceStatus(Model, frozen=True, kw_only=True):
    """How the spec source does: *error* empty while it can be read.

    *remotes* are those of a git source, *paths* the folders of the repository that it reads, which are its roots.
    """

    kind: Literal["directory", "git"] = "directory"
    url: str = ""
    last_success_at: datetime | None = None
    error: str = ""
    remotes: tuple[RemoteStatus, ...] = ()
    paths: tuple[str, ...] = ()

    def with_success_of(self, earlier: "SourceStatus") -> "SourceStatus":
        """Itself; before its first success since a restart, with the last one of *earlier*, if of the same source."""
        if self.last_success_at is not None or (self.kind, self.url) != (earlier.kind, earlier.url):
            return self
        return msgspec.structs.replace(self, last_success_at=earlier.last_success_at)
