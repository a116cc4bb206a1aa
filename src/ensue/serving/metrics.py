"""The server's metrics, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

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
        self._shown: dict[str, set[str | int]] = {}
        # A child is looked up once: `labels` takes a lock and builds a key for each call.
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
        self.answers.labels(variant, answer.source).inc()
        self.lengths.observe(answer.known)
        self.known.labels(variant, "yes").inc(answer.known)
        self.known.labels(variant, "no").inc(len(answer.unknown))
        shown = self._shown.setdefault(f"{variant} {answer.model.version}", set())
        shown.update(entry.item for entry in answer.items)
        self.coverage.labels(variant).set(len(shown) / served.run.model.num_items)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """The metrics as text."""
        return generate_latest(self.registry)
