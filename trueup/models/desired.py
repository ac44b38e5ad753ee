"""The desired state of one revision: every valid document rendered, every invalid one named.

Made by `trueup.sources`, registered by `reconciler.register`; plain data in between.
"""

from trueup.models.codec import Model
from trueup.models.errors import SpecError
from trueup.models.job import Job
from trueup.models.revision import Commit
from trueup.models.template import ClusterSettings, NodePolicy, Template


class Place(Model, frozen=True, kw_only=True):
    """Where a document stands: *file* relative to its root, *line* from 1, *root* the number of that root from 0."""

    file: str
    line: int
    root: int = 0


class DesiredJob(Model, frozen=True, kw_only=True):
    """A rendered job with what it is made from: *files* are those whose change may change it.

    *commit* is the newest one since the last applied revision that touched any of them (for git; None where the
    source could not tell: the revision's own commit then).
    """

    job: Job
    place: Place
    files: tuple[str, ...]
    template: str = ""
    commit: Commit | None = None


class InvalidDocument(Model, frozen=True, kw_only=True):
    """A document that stays at its last good version. *name* is empty where it could not be read."""

    kind: str
    name: str
    file: str


class DesiredState(Model, frozen=True, kw_only=True):
    """All of one revision. *unreadable_files* held documents nobody could read: what they last held is kept.

    *invalid* names the documents with errors, and jobs without a document that a valid one depends on (*file* is
    empty then). `complete` is False when a file could not be parsed, so that an absence proves nothing.
    """

    commit: Commit
    jobs: dict[str, DesiredJob] = {}
    templates: dict[str, Template] = {}
    nodes: dict[str, NodePolicy] = {}
    cluster: ClusterSettings | None = None
    invalid: tuple[InvalidDocument, ...] = ()
    unreadable_files: tuple[str, ...] = ()
    errors: tuple[SpecError, ...] = ()
    warnings: tuple[str, ...] = ()
    files: dict[str, str] = {}

    @property
    def complete(self) -> bool:
        """Whether every document could be read, so that what is absent is gone."""
        return not self.unreadable_files
