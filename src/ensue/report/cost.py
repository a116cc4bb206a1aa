"""What a run costs: training, requests, memory, size and energy.

Suffix: `B` cases.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensue.data.split import Cases
from ensue.evaluation.lists import recommended
from ensue.evaluation.protocol import EvaluateConfig
from ensue.leaderboard.measure import LENGTH, request_ms, size
from ensue.recommender import Recommender
from ensue.rng import stream
from ensue.runs.log import epochs_of
from ensue.runtime.devices import cpu_threads
from ensue.runtime.energy import EnergyMeter
from ensue.runtime.memory import begin_peak, peak_memory

# Users of the measurement of throughput.
USERS = 1_000


@dataclass(frozen=True)
class Cost:
    """The cost of a run.

    Attributes:
        epochs: epochs of training; 0 for a counted model.
        train_seconds: of the epochs and their validation; None if nothing was trained here.
        request_ms: median `p50` and 99th percentile `p99` of requests of one user each.
        users_per_second: of requests in batches.
        peak_bytes: largest resident memory of the process during the requests.
        parameters: their number.
        disk_bytes: of the weights.
        joules_per_user: of the processors during the requests in batches; None where the machine does not tell.
    """

    epochs: int
    train_seconds: float | None
    request_ms: dict[str, float]
    users_per_second: float
    peak_bytes: int
    parameters: int
    disk_bytes: int
    joules_per_user: float | None


def cost(recommender: Recommender, cases: Cases, config: EvaluateConfig, folder: Path) -> Cost:
    """Measure a run.

    Args:
        recommender: the run, with its second stage if it has one.
        cases: histories of requests.
        config: the protocol, which says whether seen items are left out and whether requests have a time.
        folder: the run folder.
    """
    run = recommender.run
    assert run is not None
    epochs = epochs_of(recommender.log)
    seconds = sum(each["seconds"] + each.get("validation seconds", 0.0) for each in epochs)
    rows_B = np.sort(stream(0, "throughput").choice(len(cases), min(len(cases), USERS), replace=False))
    begin_peak()
    with cpu_threads(run.config.train.threads):
        latency = request_ms(recommender.retriever, cases, config.query_time)
        meter, began = EnergyMeter(), time.perf_counter()
        recommended(recommender.retriever, cases.take(rows_B), config, LENGTH)
        took, joules = time.perf_counter() - began, meter.joules()
    return Cost(
        len(epochs),
        float(seconds) if epochs else None,
        latency,
        len(rows_B) / max(took, 1e-9),
        peak_memory(),
        **size(run, folder),
        joules_per_user=None if joules is None else joules / len(rows_B),
    )
