"""The server's metrics, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ensue.serving.engine import Served
from ensue.serving.schemas import Answer

# Seconds.
STEPS = (0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """Counters and histograms of one server; a registry of its own, so that several servers fit in one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("ensue_requests", "Requests.", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "ensue_request_seconds", "Time from the request to its answer.", ["route"], buckets=STEPS, registry=registry
        )
        self.stages = Histogram(
            "ensue_stage_seconds", "Time of a stage: queue, model.", ["stage"], buckets=STEPS, registry=registry
        )
        self.rows = Histogram(
            "ensue_batch_rows",
            "Queries that were computed together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.answers = Counter("ensue_answers", "Answers.", ["variant", "source"], registry=registry)
        self.known = Counter("ensue_history_events", "Events of histories.", ["variant", "known"], registry=registry)
        self.lengths = Histogram(
            "ensue_history_length",
            "Known events of a history.",
            buckets=(0, 1, 2, 5, 10, 20, 50, 100, 200, 500),
            registry=registry,
        )
        self.events = Counter("ensue_events", "Events of POST /events.", ["outcome"], registry=registry)
        self.exposures = Counter("ensue_exposures", "Exposures of experiments.", ["outcome"], registry=registry)
        self.swaps = Counter("ensue_swaps", "Attempts to serve another run.", ["outcome"], registry=registry)
        self.coverage = Gauge(
            "ensue_catalogue_coverage", "Share of the catalogue among the answers.", ["variant"], registry=registry
        )
        # Variant -> version of its model, size of its catalogue, and the items that it has shown.
        self._shown: dict[str, tuple[str, int, set[str | int]]] = {}
        self._children: dict[tuple[object, ...], Any] = {}
        self._queue, self._model = self.stages.labels("queue"), self.stages.labels("model")

    def batch(self, rows: int, seconds: float, waited: Sequence[float]) -> None:
        """Count a batch: its rows, the time of the model, and the time that each query waited."""
        self.rows.observe(rows)
        self._model.observe(seconds)
        for each in waited:
            self._queue.observe(each)

    def answer(self, served: Served, answer: Answer) -> None:
        """Count an answer."""
        variant = answer.model.variant
        self.lengths.observe(answer.known)
        self._child(self.answers, variant, answer.source).inc()
        self._child(self.known, variant, "yes").inc(answer.known)
        if answer.unknown:
            self._child(self.known, variant, "no").inc(len(answer.unknown))
        version, num_items, shown = self._shown.get(variant, ("", 0, set()))
        if version != answer.model.version:
            version, num_items, shown = answer.model.version, served.run.model.num_items, set()
            self._shown[variant] = version, num_items, shown
        shown.update([entry.item for entry in answer.items])

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._child(self.requests, route, str(status)).inc()
        self._child(self.seconds, route).observe(seconds)

    def _child(self, metric: Counter | Histogram, *labels: str) -> Any:
        """`metric.labels(...)`, which checks its arguments and takes a lock in every call."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def text(self) -> bytes:
        """The metrics as text."""
        for variant, (_, num_items, shown) in self._shown.items():
            self.coverage.labels(variant).set(len(shown) / num_items)
        return generate_latest(self.registry)
