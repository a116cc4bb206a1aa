"""Retrieve and re-rank against retrieve alone, with the re-ranker's share of the order chosen on validation.

python benchmarks/reranking.py RUN RUN2 --candidates 30 --cases 5000 --out build/reranking.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ensue.data.featured import with_inputs
from ensue.data.split import Cases, make_split
from ensue.data.store import SequenceStore
from ensue.recommender import Recommender
from ensue.reranking import Reranking
from ensue.retrieval.retriever import Exhaustive
from ensue.rng import stream

METRIC = "ndcg@10"
WEIGHTS = (0.1, 0.25, 0.5, 1.0)


def some(cases: Cases, count: int, part: str) -> Cases:
    """At most `count` cases, drawn once."""
    if count >= len(cases):
        return cases
    return cases.take(np.sort(stream(0, f"reranking {part}").choice(len(cases), count, replace=False)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    first, second = Recommender.load(chosen.first).run, Recommender.load(chosen.second).run
    assert first is not None
    assert second is not None
    assert first.store is not None
    stages = [Reranking(first, second, chosen.candidates, weight) for weight in WEIGHTS]
    store = with_inputs(SequenceStore.open(first.store), stages[0].features)
    split = make_split(store, first.config.split)
    config = stages[0].protocol(first.config.evaluate).replace(metrics=(METRIC, "hr@10"))
    retriever = Exhaustive(first.model)
    cases = some(split.validation, chosen.cases, "validation")
    on_validation = [float(each.evaluate(retriever, cases, config)[0].metric(METRIC).mean()) for each in stages]
    best = stages[int(np.argmax(on_validation))]
    cases = some(split.test, chosen.cases, "test")
    results: dict[str, Any] = {
        "validation": dict(zip(map(str, WEIGHTS), on_validation, strict=True)),
        "cases": len(cases),
        "alone": stages[-1].evaluate(retriever, cases, config)[1],
        "mixed": best.evaluate(retriever, cases, config)[1],
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(results, indent=1) + "\n")
    for name in ("alone", "mixed"):
        entry = results[name]
        print(name, entry["rerank"], entry["first_stage"], f"recall {entry['recall']:.4f}", entry["gain"][METRIC])


if __name__ == "__main__":
    main()
