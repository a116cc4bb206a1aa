"""Time of intervals and tests over users: python benchmarks/significance.py [--users 50000] [--draws 10000]"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from ensue.evaluation.significance import bootstrap_interval, permutation_test


def samples(users: int) -> dict[str, np.ndarray]:
    """Differences of two models per user: of NDCG@10, with few distinct values, and of reciprocal ranks, with many."""
    rng = np.random.default_rng(0)
    ranks = rng.geometric(0.02, (2, users))
    gains = np.where(ranks <= 10, 1 / np.log2(1.0 + ranks), 0.0)
    return {"ndcg@10": gains[0] - gains[1], "distinct": rng.normal(0.01, 1.0, users)}


def seconds(call: Callable[[], object]) -> float:
    """The fastest of three calls, in seconds of processor time."""
    times = []
    for _ in range(3):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--draws", type=int, default=10_000)
    chosen = parser.parse_args()
    for name, values in samples(chosen.users).items():
        interval = seconds(partial(bootstrap_interval, values, num_draws=chosen.draws))
        test = seconds(partial(permutation_test, values, np.zeros_like(values), chosen.draws))
        print(f"{name}, {chosen.users:,} users, {chosen.draws:,} draws: bootstrap {interval:.2f} s, test {test:.2f} s")


if __name__ == "__main__":
    main()
