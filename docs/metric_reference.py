"""The reference page of `/metrics`, made from the metrics themselves."""

from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import Metric

from api.metrics import StateCollector
from api.request_metrics import RequestMetrics
from api.views.status import summarize
from trueup.models.revision import SourceStatus
from trueup.models.state import ClusterState

_HEAD: Final = """\
# Metrics

<!-- Made by `make docs` from the metrics; edit them in `api/` instead. -->

`GET /metrics` answers in Prometheus's text form. Beside these there are its usual ones of the process and of Python
(`process_…`, `python_info`). `/services?format=prometheus` lists targets for its HTTP service discovery.

| metric | type | |
| --- | --- | --- |
"""


def metric_page() -> str:
    """The page, Markdown."""
    state = ClusterState()
    source = SourceStatus(last_success_at=datetime.now(UTC))
    gauges = StateCollector(state, summarize(state), source, 0).collect()
    return _HEAD + "".join(_row(metric) for metric in (*gauges, *RequestMetrics().registry.collect()))


def _row(metric: Metric) -> str:
    # A counter is exposed under its name and this.
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    return f"| `{name}` | {metric.type} | {metric.documentation} |\n"
