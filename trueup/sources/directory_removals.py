"""What must be gone for a while before it counts as removed: documents of a directory.

Editors, `rsync` and `git checkout` take files away for a moment. So a document that vanished stays in the desired
state until it was absent from every look for the settle time, while all other changes go ahead. What goes away
together is removed together: a tree that is emptied file by file is one loss, and held as one. Pure.
"""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import msgspec

from trueup.models.desired import DesiredJob, DesiredState, InvalidDocument
from trueup.models.ids import RevisionId
from trueup.models.template import ClusterSettings, NodePolicy, Template

REMOVAL_SETTLE: Final = timedelta(seconds=2)

_Key = tuple[str, ...]
"""Kind and name; of a document without a name, and of a file nobody could read, the file."""
_Held = DesiredJob | Template | NodePolicy | ClusterSettings | InvalidDocument | str


class Removals:
    """Remembers what the looks so far have seen."""

    def __init__(self, settle: timedelta = REMOVAL_SETTLE) -> None:
        self._settle_seconds = settle.total_seconds()
        self._known: dict[_Key, _Held] = {}
        self._absent_since: dict[_Key, float] = {}
        self._given: DesiredState | None = None
        self._withheld = False

    def settle(self, seen: DesiredState, now: float, *, waits: bool) -> DesiredState:
        """*seen* with what vanished too lately to be removed. *now* in monotonic seconds.

        *waits*: a file is still being written, which may hold what is missing, so that nothing is removed.
        """
        present = _documents(seen)
        self._withheld = waits or bool(seen.unreadable_files)
        absent = {key: held for key, held in self._known.items() if key not in present}
        self._absent_since = {key: self._absent_since.get(key, now) for key in absent}
        if self._withheld or any(now - since < self._settle_seconds for since in self._absent_since.values()):
            kept = absent
        else:
            kept = {}
            self._absent_since = {}
        self._known = present | kept
        self._given = self._with(seen, kept)
        return self._given

    def due_in(self, now: float) -> timedelta | None:
        """How long until the next document counts as removed; None if none will without another change."""
        if self._withheld or not self._absent_since:
            return None
        left = max(self._absent_since.values()) + self._settle_seconds - now
        return timedelta(seconds=max(left, 0))

    def _with(self, seen: DesiredState, kept: Mapping[_Key, _Held]) -> DesiredState:
        """*seen* and what is kept; the very state given before if a removal is all that is new.

        It also stays where the absence makes other documents invalid: they would be so for a moment only.
        """
        if (
            not kept or seen.unreadable_files
        ):  # with those, whoever registers the state removes nothing anyway
            return seen
        before = self._given
        if before is not None and not set(seen.errors) <= set(before.errors):
            return before
        digest = hashlib.sha256(seen.commit.id.encode())
        for key in sorted(kept):
            digest.update("\0".join(key).encode() + b"\0\0")
        commit = msgspec.structs.replace(seen.commit, id=RevisionId(f"dir-{digest.hexdigest()[:40]}"))
        state = _with_documents(seen, kept)
        if before is not None and state == msgspec.structs.replace(before, commit=seen.commit):
            return before
        return msgspec.structs.replace(state, commit=commit)


def _documents(state: DesiredState) -> dict[_Key, _Held]:
    found: dict[_Key, _Held] = {}
    found.update({("Job", name): held for name, held in state.jobs.items()})
    found.update({("Template", name): held for name, held in state.templates.items()})
    found.update({("Node", name): held for name, held in state.nodes.items()})
    if state.cluster is not None:
        found["Cluster", ""] = state.cluster
    for invalid in state.invalid:
        name = "" if invalid.kind == "Cluster" else invalid.name
        key = (invalid.kind, name) if invalid.kind == "Cluster" or name else ("", invalid.file)
        found.setdefault(key, invalid)
    found.update({("unreadable", file): file for file in state.unreadable_files})
    return found


def _with_documents(state: DesiredState, kept: Mapping[_Key, _Held]) -> DesiredState:
    jobs = {key[1]: held for key, held in kept.items() if isinstance(held, DesiredJob)}
    templates = {key[1]: held for key, held in kept.items() if isinstance(held, Template)}
    nodes = {key[1]: held for key, held in kept.items() if isinstance(held, NodePolicy)}
    settings = [held for held in kept.values() if isinstance(held, ClusterSettings)]
    invalid = [held for held in kept.values() if isinstance(held, InvalidDocument)]
    unreadable = [held for held in kept.values() if isinstance(held, str)]
    return msgspec.structs.replace(
        state,
        jobs=jobs | state.jobs,
        templates=templates | state.templates,
        nodes=nodes | state.nodes,
        cluster=state.cluster or (settings[0] if settings else None),
        invalid=(*state.invalid, *invalid),
        unreadable_files=(*state.unreadable_files, *unreadable),
    )
