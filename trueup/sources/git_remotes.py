"""Several remotes of one history as one source, the repository that the server keeps for emergencies among them.

Each remote is polled on a thread of its own, so that one that hangs holds up none of the others. Which one is followed
is decided by `remote_choice`.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf
from time import monotonic
from typing import Final

from trueup.models.clock import Clock
from trueup.models.ids import RevisionId
from trueup.models.revision import RemoteState, RemoteStatus
from trueup.models.source_error import SourceUnavailable
from trueup.sources.git import GitTree
from trueup.sources.git_emergency import EmergencyRepository
from trueup.sources.git_remote import is_commit_id
from trueup.sources.remote_choice import Choice, Seen, choose
from trueup.sources.snapshot import Snapshot

PATIENCE_SECONDS: Final = 0.5
"""How long those that answered wait for the others before they go ahead."""
FIRST_PATIENCE_SECONDS: Final = 2.0
"""The same where one was never heard of: it may be the one furthest ahead."""
_LEFT_LOOK: Final = timedelta(seconds=1)
_COPY_AGAIN: Final = timedelta(seconds=30)


@dataclass(slots=True, kw_only=True)
class _Remote:
    """A remote with what its last look said. *polling* is a look under way, *left* one that nobody waits for."""

    tree: GitTree
    polling: "Future[Snapshot] | None" = None
    left: bool = False
    snapshot: Snapshot | None = None
    error: str = ""
    last_success_at: datetime | None = None
    contains: dict[tuple[RevisionId, RevisionId], bool] = field(default_factory=dict)

    @property
    def tip(self) -> RevisionId | None:
        return None if self.snapshot is None else self.snapshot.commit.id

    def collect(self, now: datetime) -> None:
        """Takes the result of a look that is done."""
        if self.polling is None or not self.polling.done():
            return
        polling, self.polling, self.left = self.polling, None, False
        try:
            self.snapshot = polling.result()
        except SourceUnavailable as error:
            self.error = str(error)
        else:
            self.error = ""
            self.last_success_at = now

    def has(self, commit: RevisionId) -> bool:
        """Whether its tip's history contains *commit*; asked once for each pair."""
        if self.tip is None:
            return False
        pair = (self.tip, commit)
        if pair not in self.contains:
            answer = self.tree.contains(*pair)
            self.contains = {held: known for held, known in self.contains.items() if held[0] == self.tip}
            self.contains[pair] = answer
        return self.contains[pair]


@dataclass(frozen=True, slots=True, kw_only=True)
class Emergency:
    """The server's own repository, and the tree that reads what is pushed to it."""

    repository: EmergencyRepository
    tree: GitTree


class GitRemotes:
    """Snapshots of the one remote that is followed; satisfies `spec_source.SnapshotSource`."""

    kind: Final = "git"
    removals_wait: Final = False

    def __init__(self, trees: Sequence[GitTree], clock: Clock, emergency: Emergency | None = None) -> None:
        """*trees* in the order in which equal ones are preferred."""
        self._remotes = [_Remote(tree=tree) for tree in trees]
        self._emergency = emergency
        self._pushed = None if emergency is None else _Remote(tree=emergency.tree)
        self._clock = clock
        self._pool = ThreadPoolExecutor(max_workers=len(trees) + 1, thread_name_prefix="remote")
        self._changed = threading.Condition()
        self._nudged = False
        self._wake: Callable[[], None] | None = None
        self._followed: _Remote | None = None
        self._given: Snapshot | None = None
        self._loaded = False
        self._unkept: RevisionId | None = None
        self._copy_error = ""
        self._copy_at: datetime | None = None
        self._closed = False
        self.url = trees[0].url
        self.paths = trees[0].paths
        self.warning = "; ".join(dict.fromkeys(tree.warning for tree in trees if tree.warning))
        self.remotes: tuple[RemoteStatus, ...] = ()

    @property
    def next_look(self) -> datetime | None:
        """When the next poll is due, or the applied commit is to be kept."""
        looks = [self._copy_at]
        for remote in self._active():
            if remote.polling is None:
                looks.append(remote.tree.next_look)
            elif self._wake is None:
                looks.append(self._clock.now() + _LEFT_LOOK)
        return min((look for look in looks if look is not None), default=None)

    def look_now(self) -> None:
        """The next poll of all is due now."""
        for remote in self._active():
            remote.tree.look_now()
        self._nudge()

    def snapshot(self, applied: RevisionId | None) -> Snapshot:
        """The newest tree of the remote that is followed. SourceUnavailable if none can be."""
        base = applied if applied is not None and is_commit_id(applied) else None
        self._poll(applied)
        active = self._active()
        choice = self._choose(base, active)
        if choice.followed is None:
            self._copy_at = None
            self._note(active, choice, base)
            raise SourceUnavailable(choice.reason)
        self._followed = active[choice.followed]
        snapshot = self._followed.snapshot
        assert snapshot is not None  # noqa: S101 - only such are chosen
        self._keep(self._followed, snapshot, base)
        self._note(active, choice, snapshot.commit.id)
        if self._given is not None and self._loaded and self._given.commit.id == snapshot.commit.id:
            return self._given
        if self._followed.polling is not None:  # files are read through the one git of that remote
            wait([self._followed.polling])
        self._given, self._loaded = snapshot, False
        return snapshot

    def loaded(self, used: frozenset[str]) -> None:
        """The snapshot was read whole."""
        self._loaded = True
        if self._followed is not None:
            self._followed.tree.loaded(used)

    def release(self) -> None:
        """Ends the git that reads blobs."""
        if self._followed is not None:
            self._followed.tree.release()

    def start_watching(self, wake: Callable[[], None]) -> None:
        """Calls *wake* when a local remote or the emergency repository moved, or a slow look is done at last."""

        def moved() -> None:
            self._nudge()
            wake()

        self._wake = wake
        for remote in self._all():
            remote.tree.start_watching(moved)

    def close(self) -> None:
        """Ends watches and any git that runs; whoever reads gets SourceUnavailable."""
        self._closed = True
        self._wake = None
        for remote in self._all():
            remote.tree.close()
        if self._emergency is not None:
            self._emergency.repository.close()
        self._nudge()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _all(self) -> list[_Remote]:
        return [*self._remotes, *([] if self._pushed is None else [self._pushed])]

    def _active(self) -> list[_Remote]:
        """The remotes, and the emergency repository while something was pushed to it."""
        return [*self._remotes, *([self._pushed] if self._pushed is not None and self._in_use() else [])]

    def _in_use(self) -> bool:
        if self._emergency is None:
            return False
        try:
            tip = self._emergency.repository.tip()
            return tip is not None and tip != self._emergency.repository.kept()
        except OSError:
            return False

    def _nudge(self) -> None:
        with self._changed:
            self._nudged = True
            self._changed.notify_all()

    def _poll(self, applied: RevisionId | None) -> None:
        """Looks at all that are due; waits for all that answer soon, and for one that answers.

        A nudge begins anew, and nobody waits twice for one that hangs.
        """
        end = monotonic() + self._patience()
        nudged = True
        while nudged and not self._closed:
            with self._changed:
                self._nudged = False
            self._collect()
            begun = [remote for remote in self._active() if remote.polling is None]
            for remote in begun:
                self._begin(remote, applied)
            with self._changed:
                while not self._nudged and not self._may_go_on(begun, end):
                    left = max(0.001, end - monotonic())
                    self._changed.wait(left if self._one_has_answered() and left < inf else None)
                nudged = self._nudged
        self._collect()

    def _patience(self) -> float:
        if self._wake is None:  # nobody would be told of a later answer
            return inf
        heard = all(remote.snapshot is not None or remote.error for remote in self._active())
        return PATIENCE_SECONDS if heard else FIRST_PATIENCE_SECONDS

    def _collect(self) -> None:
        now = self._clock.now()
        with self._changed:
            for remote in self._all():
                remote.collect(now)
                remote.left = remote.polling is not None
            if self._pushed is not None and not self._in_use():
                self._pushed.snapshot, self._pushed.error = None, ""

    def _begin(self, remote: _Remote, applied: RevisionId | None) -> None:
        try:
            remote.polling = self._pool.submit(_look, remote.tree, applied)
        except RuntimeError:  # closed
            return
        remote.polling.add_done_callback(lambda _: self._done(remote))

    def _done(self, remote: _Remote) -> None:
        with self._changed:
            self._changed.notify_all()
            wake = self._wake if remote.left else None
        if wake is not None:
            wake()

    def _may_go_on(self, begun: Sequence[_Remote], end: float) -> bool:
        if self._closed:
            return True
        waiting = any(remote.polling is not None and not remote.polling.done() for remote in begun)
        return self._one_has_answered() and (not waiting or monotonic() >= end)

    def _one_has_answered(self) -> bool:
        """Whether there is anything to go ahead with."""
        return any(
            remote.snapshot is not None
            or remote.error
            or (remote.polling is not None and remote.polling.done())
            for remote in self._active()
        )

    def _choose(self, applied: RevisionId | None, active: Sequence[_Remote]) -> Choice:
        commits = [remote.tip for remote in active if remote.tip is not None and not remote.error]
        asked = [*commits, *([] if applied is None else [applied])] if len(active) > 1 else []
        return choose(applied, [_seen(remote, asked) for remote in active])

    def _note(self, active: Sequence[_Remote], choice: Choice, now: RevisionId | None) -> None:
        """Keeps how each remote does. *now* is the commit that is followed, else the applied one."""
        in_use = self._in_use()
        found = [
            RemoteStatus(
                url=remote.tree.url,
                state=state,
                commit=remote.tip,
                last_success_at=remote.last_success_at,
                error=_error_of(remote) or (self._copy_error if remote is self._pushed else ""),
                emergency=remote is self._pushed,
            )
            for remote, state in zip(active, choice.states, strict=True)
            if remote is not self._pushed or in_use
        ]
        if self._emergency is not None and not in_use:
            found.append(self._copy_status(self._emergency, now))
        self.remotes = tuple(found)

    def _copy_status(self, emergency: Emergency, now: RevisionId | None) -> RemoteStatus:
        tip = None
        with suppress(OSError):
            tip = emergency.repository.tip()
        state: RemoteState = "current" if tip == now and tip is not None else "behind"
        if tip is None and self._copy_error:
            state = "unreachable"
        return RemoteStatus(
            url=emergency.tree.url, state=state, commit=tip, error=self._copy_error, emergency=True
        )

    def _keep(self, followed: _Remote, snapshot: Snapshot, applied: RevisionId | None) -> None:
        """Puts the applied commit into the emergency repository. What was given is applied by the next look."""
        commit, now = snapshot.commit.id, self._clock.now()
        if self._emergency is None or followed is self._pushed:
            self._copy_at = None
            return
        if applied != commit:
            self._copy_at = now if self._unkept != commit else None
            self._unkept = commit
            return
        if self._copy_at is not None and self._copy_error and now < self._copy_at:
            return
        try:
            self._copy(self._emergency.repository, followed, commit)
        except (SourceUnavailable, OSError) as error:
            self._copy_error, self._copy_at = str(error), now + _COPY_AGAIN
        else:
            self._copy_error, self._copy_at = "", None

    def _copy(self, repository: EmergencyRepository, followed: _Remote, commit: RevisionId) -> None:
        tip = repository.tip()
        if (tip, repository.kept()) == (commit, commit):
            return
        if tip is not None and self._in_use() and not followed.has(tip):
            raise SourceUnavailable(
                f"{tip[:8]} was pushed there and is not in what is applied: merge it into that and push, or remove"
                f" {repository.folder} to give it up"
            )
        if repository.prepare(commit) and self._pushed is not None:
            self._pushed.tree.watch_anew()
        repository.put(commit, followed.tree.mirror, followed.tree.fetch_alone, over=repository.tip())


def _look(tree: GitTree, applied: RevisionId | None) -> Snapshot:
    try:
        return tree.snapshot(applied)
    finally:
        tree.release()


def _error_of(remote: _Remote) -> str:
    if not remote.error and remote.tip is None:
        return f"{remote.tree.url}: gave no answer yet"
    return remote.error


def _seen(remote: _Remote, asked: Sequence[RevisionId]) -> Seen:
    url, error = remote.tree.url, _error_of(remote)
    contains: frozenset[str] = frozenset()
    if not error:
        try:
            contains = frozenset(commit for commit in asked if remote.has(commit))
        except SourceUnavailable as failure:
            error = remote.error = str(failure)
    return Seen(name=url, tip=remote.tip or "", contains=contains, error=error)
