"""`/metrics` for Prometheus: the API's own counters, and gauges of the state made at scrape."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from flask import Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from api.ask import Ask
from api.routing import Answer, Route
from api.views.status import Summary
from trueup.models.ids import NodeId
from trueup.models.node import NodeUse
from trueup.models.revision import SourceStatus
from trueup.models.state import ClusterState


def show_metrics(ask: Ask) -> Answer:
    """Everything there is to measure, in Prometheus's text form."""
    state = ask.state
    gauges = CollectorRegistry()
    gauges.register(
        StateCollector(
            state,
            ask.shared.snapshots.summary(state),
            ask.shared.source,
            ask.shared.watchers.count,
            ask.deps.node_use,
        )
    )
    ProcessCollector(registry=gauges)
    PlatformCollector(registry=gauges)
    text = generate_latest(ask.shared.metrics.registry) + generate_latest(gauges)
    return Response(text, content_type=CONTENT_TYPE_LATEST)


class StateCollector(Collector):
    """Gauges of one state, and of what is in use on its nodes now."""

    def __init__(
        self,
        state: ClusterState,
        summary: Summary,
        source: SourceStatus,
        watchers: int,
        node_use: Callable[[NodeId], NodeUse | None] = lambda _node_id: None,
    ) -> None:
        self._state = state
        self._summary = summary
        self._source = source
        self._watchers = watchers
        self._node_use = node_use

    def collect(self) -> Iterable[Metric]:
        """All gauges."""
        yield from self._whole()
        yield from self._jobs()
        yield from self._nodes()

    def _whole(self) -> Iterator[Metric]:
        state, summary, source = self._state, self._summary, self._source
        yield GaugeMetricFamily("trueup_index", "The store's change counter.", value=state.index)
        yield GaugeMetricFamily("trueup_epoch", "The store's epoch.", value=state.epoch)
        yield GaugeMetricFamily("trueup_held", "Whether a revision is held.", value=state.held is not None)
        yield GaugeMetricFamily(
            "trueup_spec_errors", "Errors in documents of the newest revision.", value=len(state.errors)
        )
        yield GaugeMetricFamily("trueup_source_up", "Whether the source can be read.", value=not source.error)
        if source.last_success_at is not None:
            yield GaugeMetricFamily(
                "trueup_source_last_success_timestamp_seconds",
                "When the source was last read.",
                value=source.last_success_at.timestamp(),
            )
        yield GaugeMetricFamily("trueup_watchers", "Requests that wait for news.", value=self._watchers)
        yield _by_word("trueup_jobs", "Jobs by health.", "health", summary.jobs_by_health)
        yield _by_word("trueup_jobs_sync", "Jobs by sync.", "sync", summary.jobs_by_sync)
        yield _by_word(
            "trueup_allocations", "Allocations by client status.", "client_status", summary.allocations
        )
        yield _by_word("trueup_nodes", "Nodes by status.", "status", summary.nodes)

    def _jobs(self) -> Iterator[Metric]:
        sums = GaugeMetricFamily(
            "trueup_group_allocations",
            "Allocations of a group: desired, placed, running, healthy, failed.",
            labels=("job", "group", "state"),
        )
        health = GaugeMetricFamily(
            "trueup_job_health", "1 for the health a job is in.", labels=("job", "health")
        )
        for job in self._summary.jobs:
            health.add_metric((job.name, job.health), 1)
            for group in job.groups:
                for state in ("desired", "placed", "running", "healthy", "failed"):
                    sums.add_metric((job.name, group.name, state), getattr(group, state))
        yield sums
        yield health

    def _nodes(self) -> Iterator[Metric]:
        cores = GaugeMetricFamily(
            "trueup_node_cpu_cores",
            "Cores a node gives (total), those allocated, and those in use.",
            labels=("node", "state"),
        )
        memory = GaugeMetricFamily(
            "trueup_node_memory_bytes",
            "Memory a node gives (total), that allocated, and that in use.",
            labels=("node", "state"),
        )
        disk = GaugeMetricFamily(
            "trueup_node_disk_bytes",
            "The disk of a node's data folder: total, and free.",
            labels=("node", "state"),
        )
        for node in self._state.nodes.values():
            used = self._state.usage(node.id)
            cores.add_metric((node.name, "total"), node.resources.cpu_millicores / 1000)
            cores.add_metric((node.name, "allocated"), used.cpu_millicores / 1000)
            memory.add_metric((node.name, "total"), node.resources.memory_bytes)
            memory.add_metric((node.name, "allocated"), used.memory_bytes)
            measured = self._node_use(node.id)
            if measured is not None:
                cores.add_metric((node.name, "used"), measured.cpu_millicores / 1000)
                memory.add_metric((node.name, "used"), measured.memory_bytes)
                disk.add_metric((node.name, "total"), measured.disk_bytes)
                disk.add_metric((node.name, "free"), measured.disk_free_bytes)
        yield cores
        yield memory
        yield disk


def _by_word(name: str, about: str, label: str, sums: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=(label,))
    for word, count in sums.items():
        family.add_metric((word,), count)
    return family


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/metrics",
        handler=show_metrics,
        about="Metrics for Prometheus.",
        media_type="text/plain",
    ),
)
