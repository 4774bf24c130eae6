"""What the server counts and times, for Prometheus. Labels hold neither ids nor users."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from agentlin_bridge.task import TaskStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""From a look-up to a round of an agent that thinks hard."""


@dataclass
class Outcome:
    """How a request ended: the id of the operation it reached, and the HTTP status."""

    operation: str = "none"
    status: int = 500


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "agentlin_requests", "Requests that were answered.", ["operation", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "agentlin_request_seconds",
            "How long requests took, from their first byte to the last of the answer; a create waits for its round.",
            ["operation"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._open = Gauge("agentlin_open_requests", "Requests under way.", registry=self._registry)
        self._streams = Gauge("agentlin_event_streams", "Event streams that are open.", registry=self._registry)
        self._events = Counter("agentlin_events", "Events that were sent.", registry=self._registry)
        self._tasks = Gauge("agentlin_tasks", "Tasks in the database.", ["status"], registry=self._registry)

    @contextmanager
    def request(self) -> Iterator[Outcome]:
        """A request is under way; how it ends is written into what is yielded."""
        outcome = Outcome()
        began = time.perf_counter()
        self._open.inc()
        try:
            yield outcome
        finally:
            self._open.dec()
            self._requests.labels(outcome.operation, str(outcome.status)).inc()
            self._seconds.labels(outcome.operation).observe(time.perf_counter() - began)

    @contextmanager
    def stream(self) -> Iterator[Callable[[], None]]:
        """An event stream is open; what is yielded counts an event."""
        with self._streams.track_inprogress():
            yield self._events.inc

    def tasks(self, counts: Mapping[str, int]) -> None:
        """How many tasks there are, by status."""
        for status in TaskStatus:
            self._tasks.labels(status.value).set(counts.get(status, 0))

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
