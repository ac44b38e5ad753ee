"""What all requests share: tokens, the newest state as it was at one index, the cap on who waits, and counters."""

import threading
from collections.abc import Callable, Sequence

from api.access import Access
from api.doors import ApiDeps
from api.nudges import AT_ONCE, Paced
from api.request_metrics import RequestMetrics
from api.routing import Route
from api.views.status import Summary, summarize
from api.waiting import Waiter, Watchers
from trueup.models.revision import SourceStatus
from trueup.models.state import ClusterState


class Snapshots:
    """Copies of the store's state and their sums, one for each index that was asked for.

    So readers lock the writer out for one copy an index, not for the making of an answer.
    """

    def __init__(self, take: Callable[[], ClusterState]) -> None:
        """*take* makes an independent copy of the newest committed state."""
        self._take = take
        self._lock = threading.Lock()
        self._state: ClusterState | None = None
        self._summary: tuple[ClusterState, Summary] | None = None

    def at(self, index: int) -> ClusterState:
        """The state at *index* or newer. Not to be changed by the caller."""
        with self._lock:
            if self._state is None or self._state.index < index:
                self._state = self._take()
            return self._state

    def summary(self, state: ClusterState) -> Summary:
        """The sums of *state*, which came from here."""
        with self._lock:
            if self._summary is None or self._summary[0] is not state:
                self._summary = (state, summarize(state))
            return self._summary[1]


class Shared:
    """One app's worth of what outlives a request."""

    def __init__(self, deps: ApiDeps, routes: Sequence[Route]) -> None:
        store = deps.store
        self.deps = deps
        self.routes = routes
        self.access = Access(
            read_token=deps.read_token, cluster_token=deps.cluster_token, allowed_hosts=deps.allowed_hosts
        )
        self.snapshots = Snapshots(store.snapshot)
        self.watchers = Watchers(deps.watch_cap)
        self.waiter = Waiter(
            index=lambda: store.state.index,
            wait_newer=store.wait_newer,
            clock=deps.clock,
            stopping=deps.stopping,
        )
        self.notifying = threading.BoundedSemaphore(AT_ONCE)
        self.nudge = Paced(deps.nudge)
        self.metrics = RequestMetrics()

    @property
    def source(self) -> SourceStatus:
        """How the spec source does now. Its successes change no index, so no snapshot has the newest."""
        kept, live = self.deps.store.state.source, self.deps.source_status
        return kept if live is None else live().with_success_of(kept)

    @property
    def index(self) -> int:
        """The store's index now."""
        return self.deps.store.state.index
