"""Logits of many candidates, forward and backward: gathered vectors against products with the whole catalogue.

    python benchmarks/candidates.py

Both methods are timed alternately on one thread. The table shows the median of the rounds, in milliseconds of processor
time for 512 states. `CATALOGUE` in ensue/nn/ops/candidates.py is the size from which gathering is faster.

Suffixes: `P` states, `C` candidates of a state, `D` width.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from ensue.nn.embedding import ItemEmbedding, dense_gradients
from ensue.nn.ops import candidates

STATES = 512
WAYS = {"gathered": 0, "products": 10**9}  # the smallest catalogue, in items per candidate, that is gathered


def step(items: ItemEmbedding, h_PD: torch.Tensor, items_PC: torch.Tensor, catalogue: int) -> float:
    """Processor seconds of the logits and of their gradients."""
    candidates.CATALOGUE = catalogue
    items.weight.grad = h_PD.grad = None
    began = time.process_time()
    logits_PC = candidates.candidate_logits(
        h_PD, items_PC, lambda of=None: items.catalogue() if of is None else items(of), items.num_embeddings - 1
    )
    logits_PC.square().sum().backward()  # type: ignore[no-untyped-call]
    dense_gradients(items.parameters())
    return time.process_time() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{'width':>5} {'items':>6} {'candidates':>10} {'items each':>10} {'gathered':>9} {'products':>9}")
    for width in (50, 128):
        for num_items in (3416, 23715):
            for count in (17, 65, 129, 257, 1025):
                items = ItemEmbedding(num_items, width)
                h_PD = torch.randn(STATES, width, requires_grad=True)
                items_PC = torch.randint(1, num_items + 1, (STATES, count))
                times: dict[str, list[float]] = {way: [] for way in WAYS}
                for _ in range(rounds + 1):
                    for way, catalogue in WAYS.items():
                        times[way].append(step(items, h_PD, items_PC, catalogue))
                gathered, products = (1000 * statistics.median(times[way][1:]) for way in WAYS)
                print(f"{width:5} {num_items:6} {count:10} {num_items / count:10.1f} {gathered:9.1f} {products:9.1f}")


if __name__ == "__main__":
    main()
