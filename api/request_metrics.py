"""Counters of the API's own requests, in a registry of their own."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

_BUCKETS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0)


class RequestMetrics:
    """Counts requests by route, never by what a client wrote: labels stay few."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "trueup_http_requests",
            "Requests answered, by method, route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "trueup_http_request_seconds",
            "Time until an answer began, of requests that did not wait for news.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def count(self, *, method: str, route: str, status: int, seconds: float | None) -> None:
        """Counts one answer; *seconds* None: it waited, so its time says nothing."""
        self._requests.labels(method, route, str(status)).inc()
        if seconds is not None:
            self._seconds.labels(method, route).observe(seconds)
