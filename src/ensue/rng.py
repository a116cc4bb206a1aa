"""All randomness: one seed, and a stream for every (purpose, epoch, step).

A stream depends only on its key, never on earlier draws. A resumed run therefore makes the same draws as an
uninterrupted one, for any number of workers and any batch size.

Suffixes: `B` keys, `K` places.
"""

from __future__ import annotations

import hashlib

import numpy as np


def _key(seed: int, purpose: str, epoch: int, step: int) -> tuple[int, int]:
    digest = hashlib.blake2b(f"{seed}/{purpose}/{epoch}/{step}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def stream(seed: int, purpose: str, epoch: int = 0, step: int = 0) -> np.random.Generator:
    """Return the numpy generator of (seed, purpose, epoch, step): Philox, which is counter-based.

    >>> bool(stream(1, "order", 3).integers(1 << 60) == stream(1, "order", 3).integers(1 << 60))
    True
    """
    return np.random.Generator(np.random.Philox(key=np.array(_key(seed, purpose, epoch, step), dtype=np.uint64)))


def torch_seed(seed: int, purpose: str, epoch: int = 0, step: int = 0) -> int:
    """Return a seed for `torch.manual_seed` or a `torch.Generator`, keyed like `stream`; in [0, 2**63)."""
    return _key(seed, purpose, epoch, step)[0] >> 1


def hashed_uniform(seed: int, purpose: str, keys_B: np.ndarray, first: int, count: int) -> np.ndarray:
    """Return random numbers that depend only on (seed, purpose, key, place), for many keys at once.

    Unlike the draws of a stream, the numbers of a key do not depend on the other keys of the call.

    Args:
        seed: the seed.
        purpose: the use of the numbers.
        keys_B: integers, [B].
        first: the first place.
        count: number of places, K.

    Returns:
        float64 [B, K] in [0, 1): SplitMix64 (Steele et al., OOPSLA 2014), applied twice, to key and place.
    """
    base = np.uint64(_key(seed, purpose, 0, 0)[0])
    mixed_B = _splitmix(keys_B.astype(np.uint64) ^ base)
    places_K = np.arange(first, first + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    words = _splitmix(mixed_B[:, None] + places_K)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _splitmix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed
