"""The cost of a fitted model, and the catalogue coverage of its lists.

Suffix: `B` cases.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ensue.batches.batch import case_batch
from ensue.data.featured import with_inputs
from ensue.data.split import Cases, make_split
from ensue.data.store import SequenceStore
from ensue.evaluation.lists import recommended
from ensue.evaluation.metrics import coverage
from ensue.recommender import Recommender
from ensue.retrieval.retriever import Exhaustive, Retriever
from ensue.rng import stream
from ensue.runs.folder import MODEL
from ensue.runs.results import read_metrics
from ensue.runs.run import Run
from ensue.runtime.devices import cpu_threads
from ensue.runtime.memory import peak_memory

# Length of the lists, and the number of single requests that are timed after the first ones.
LENGTH, REQUESTS, WARM_UP = 10, 50, 3


def measured(recommender: Recommender, store: SequenceStore, folder: Path) -> dict[str, Any]:
    """Evaluate a run on the test part and measure its cost.

    Args:
        recommender: the fitted model.
        store: its data.
        folder: its run folder, to which the evaluation is added.

    Returns:
        `metrics` and `cases` of the evaluation; `coverage`: share of the catalogue in the lists of all cases;
        `rank_seconds`: of ranking all cases; `request_ms`: median and 99th percentile of single requests;
        `parameters`: their number; `disk_bytes`: of the weights; `peak_bytes`: largest resident memory of the process.
    """
    run, config = recommender.run, recommender.config
    assert run is not None
    cases = make_split(with_inputs(store, run.features), config.split).test
    began = time.perf_counter()
    recommender.evaluate(store, "test", config.evaluate, folder)
    ranked = time.perf_counter() - began
    retriever = Exhaustive(run.model.eval())
    with cpu_threads(config.train.threads):
        lists = recommended(retriever, cases, config.evaluate, LENGTH)
        latency = request_ms(retriever, cases, config.evaluate.query_time)
    entry = read_metrics(folder)[f"test/{config.evaluate.key}"]
    return {
        "metrics": entry["metrics"],
        "cases": entry["cases"],
        f"coverage@{LENGTH}": coverage(lists, store.num_items),
        "rank_seconds": round(ranked, 3),
        "request_ms": latency,
        **size(run, folder),
        "peak_bytes": peak_memory(),
    }


def size(run: Run, folder: Path) -> dict[str, int]:
    """`parameters`: their number; `disk_bytes`: of the weights."""
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    return {"parameters": parameters, "disk_bytes": (folder / MODEL).stat().st_size}


@torch.inference_mode()
def request_ms(retriever: Retriever, cases: Cases, query_time: bool) -> dict[str, float]:
    """Milliseconds of requests for one user each: median `p50` and 99th percentile `p99`."""
    rows = stream(0, "requests").choice(len(cases), min(len(cases), REQUESTS + WARM_UP), replace=False)
    seconds = []
    for row in rows:
        began = time.perf_counter()
        batch = case_batch(cases, np.array([row]), retriever.model.maxlen, query_time).to(retriever.model.device)
        retriever(batch, LENGTH)[1].cpu()
        seconds.append(time.perf_counter() - began)
    timed = np.array(seconds[WARM_UP:] or seconds) * 1000
    return {"p50": round(float(np.median(timed)), 3), "p99": round(float(np.quantile(timed, 0.99)), 3)}
