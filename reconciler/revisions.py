"""What history says of a revision: when it was seen and applied, what it changed; also when it is seen again. Pure."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

import msgspec

from trueup.models.errors import SpecError
from trueup.models.ids import RevisionId
from trueup.models.revision import ChangedJobs, Commit, Revision
from trueup.models.state import ClusterState

Known = Callable[[RevisionId], Revision | None]
"""What history has of a revision."""


def nothing_known(_: RevisionId) -> None:
    """An empty history."""


def applied_revision(
    commit: Commit, changed: ChangedJobs, errors: tuple[SpecError, ...], now: datetime
) -> Revision:
    """A revision that is seen and applied now."""
    return Revision(
        id=commit.id,
        parent=commit.parent,
        author=commit.author,
        author_email=commit.author_email,
        subject=commit.subject,
        committed_at=commit.committed_at,
        seen_at=now,
        applied_at=now,
        state="applied",
        jobs=changed,
        errors=errors,
    )


def seen_again(revision: Revision, state: ClusterState, known: Known) -> Revision:
    """The revision that *state* is at, looked at again, came when it first did, and did all it did then, too."""
    current = {state.revision, None if state.held is None else state.held.revision}
    earlier = known(revision.id) if revision.id in current else None
    if earlier is None:
        return revision
    names = {
        field: tuple(sorted({*getattr(earlier.jobs, field), *getattr(revision.jobs, field)}))
        for field in ("created", "updated", "removed")
    }
    return msgspec.structs.replace(
        revision,
        seen_at=earlier.seen_at,
        applied_at=earlier.applied_at or revision.applied_at,
        jobs=msgspec.structs.replace(revision.jobs, **names),
    )


def authors_revisions(authors: Iterable[Commit], known: Known, now: datetime) -> Iterator[Revision]:
    """Commits before the newest whose changes are applied with it, as history has them from now on."""
    for author in authors:
        earlier = known(author.id)
        if earlier is None:
            yield applied_revision(author, ChangedJobs(), (), now)
        elif earlier.state != "applied":  # it was held, or overtaken; now what it changed is there
            yield msgspec.structs.replace(earlier, state="applied", applied_at=now, held=None)
