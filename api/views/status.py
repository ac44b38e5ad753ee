"""The whole in one answer, and the sums it is made of."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, get_args

import msgspec

from api.views.history import ErrorView, HeldView, error_view, held_view
from trueup.models.allocation import ClientStatus
from trueup.models.health import ClusterHealth, Health, JobHealth, Sync, cluster_health, job_health
from trueup.models.node import NodeStatus
from trueup.models.revision import RemoteState, RemoteStatus, SourceStatus
from trueup.models.state import ClusterState

HEALTH_WORDS: Final[tuple[str, ...]] = get_args(Health)
SYNC_WORDS: Final[tuple[str, ...]] = get_args(Sync)
CLIENT_STATUS_WORDS: Final[tuple[str, ...]] = get_args(ClientStatus)
NODE_STATUS_WORDS: Final[tuple[str, ...]] = get_args(NodeStatus)


class RemoteView(msgspec.Struct, frozen=True, kw_only=True):
    """How one remote of the source's history does; *commit* is its newest. *emergency*: the server's own repository."""

    url: str
    state: RemoteState
    commit: str | None
    last_success_at: datetime | None
    error: str
    emergency: bool


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    """How the spec source does; *error* is empty while it can be read.

    With git, *remotes* are those of its history, and *paths* the folders of the repository that are read.
    """

    kind: Literal["directory", "git"]
    url: str
    last_success_at: datetime | None
    error: str
    remotes: tuple[RemoteView, ...]
    paths: tuple[str, ...]


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """The whole. *jobs* are counted by health, *allocations* by client status, *nodes* by status."""

    revision: str | None
    sync: Sync
    health: Health
    reason: str
    held: HeldView | None
    source: SourceView
    errors: tuple[ErrorView, ...]
    jobs: dict[str, int]
    allocations: dict[str, int]
    nodes: dict[str, int]
    index: int
    epoch: int
    version: str
    cluster_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What takes a walk over the whole state to say; made once an index. Removed jobs are left out once they ended."""

    cluster: ClusterHealth
    jobs: tuple[JobHealth, ...]
    jobs_by_health: Mapping[str, int]
    jobs_by_sync: Mapping[str, int]
    allocations: Mapping[str, int]
    nodes: Mapping[str, int]


def summarize(state: ClusterState) -> Summary:
    """The sums of *state*."""
    jobs = tuple(
        found
        for name in state.job_names()
        if (found := job_health(state, name)).status != "dead" or not state.jobs[name].removed
    )
    return Summary(
        cluster=cluster_health(state),
        jobs=jobs,
        jobs_by_health=_counted(HEALTH_WORDS, Counter(job.health for job in jobs)),
        jobs_by_sync=_counted(SYNC_WORDS, Counter(job.sync for job in jobs)),
        allocations=_counted(
            CLIENT_STATUS_WORDS, Counter(held.client_status for held in state.allocations.values())
        ),
        nodes=_counted(NODE_STATUS_WORDS, Counter(node.status for node in state.nodes.values())),
    )


def source_view(source: SourceStatus) -> SourceView:
    """The spec source."""
    return SourceView(
        kind=source.kind,
        url=source.url,
        last_success_at=source.last_success_at,
        error=source.error,
        remotes=tuple(_remote_view(remote) for remote in source.remotes),
        paths=source.paths,
    )


def _remote_view(remote: RemoteStatus) -> RemoteView:
    return RemoteView(
        url=remote.url,
        state=remote.state,
        commit=remote.commit,
        last_success_at=remote.last_success_at,
        error=remote.error,
        emergency=remote.emergency,
    )


def status_view(state: ClusterState, summary: Summary, source: SourceStatus, version: str) -> StatusView:
    """The whole. *source* is the newest: the time of its last success changes no index."""
    return StatusView(
        revision=state.revision,
        sync=summary.cluster.sync,
        health=summary.cluster.health,
        reason=summary.cluster.reason,
        held=held_view(state.held),
        source=source_view(source),
        errors=tuple(error_view(error) for error in state.errors),
        jobs=dict(summary.jobs_by_health),
        allocations=dict(summary.allocations),
        nodes=dict(summary.nodes),
        index=state.index,
        epoch=state.epoch,
        version=version,
        cluster_id=state.cluster_id,
    )


def _counted(words: tuple[str, ...], found: Mapping[str, int]) -> dict[str, int]:
    return {word: found.get(word, 0) for word in words}
