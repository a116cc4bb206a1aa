"""Semantic ids: items as tuples of codes, by residual k-means of their vectors.

A vector has a code on each of `L` levels: the nearest centre of what the centres before it leave. One more code
distinguishes the items that share those. Numbers of a vector that are NaN are unknown, and are left out of distances.

Suffixes: `N` items, `L` levels, `K` codes of a level, `C` width of a vector.
"""

from __future__ import annotations

import numpy as np

from ensue.data.arrays import IntArray
from ensue.rng import stream

ITERATIONS = 20
# Distances that are computed at once.
CELLS = 1 << 24


def residual_kmeans(vectors_NC: np.ndarray, levels: int, codes: int) -> np.ndarray:
    """The centres of each level, float32 [L, K, C]: k-means of the residuals of the level before.

    A centre without vectors moves to the vector that is farthest from its own centre. Only vectors without unknown
    numbers are used. The same vectors have the same centres.
    """
    residual_NC = vectors_NC[~np.isnan(vectors_NC).any(1)]
    centres_LKC = np.zeros((levels, codes, vectors_NC.shape[1]), np.float32)
    for level in range(levels if len(residual_NC) else 0):
        centres_LKC[level] = _kmeans(residual_NC, codes, level)
        residual_NC = residual_NC - centres_LKC[level][nearest(residual_NC, centres_LKC[level])[0]]
    return centres_LKC


def _kmeans(vectors_NC: np.ndarray, codes: int, level: int) -> np.ndarray:
    rng = stream(0, "semantic ids", level)
    # With fewer vectors than centres, some start at the same vector; the nearest is the first of them.
    start_K = np.resize(rng.permutation(len(vectors_NC)), codes)
    centres_KC: np.ndarray = vectors_NC[start_K]
    for _ in range(ITERATIONS):
        code_N, distance_N = nearest(vectors_NC, centres_KC)
        count_K = np.bincount(code_N, minlength=codes)
        sums_KC = np.zeros(centres_KC.shape, np.float64)
        np.add.at(sums_KC, code_N, vectors_NC)
        centres_KC = (sums_KC / np.maximum(count_K, 1)[:, None]).astype(np.float32)
        empty = np.flatnonzero(count_K == 0)
        farthest = np.argsort(-distance_N, kind="stable")[: len(empty)]
        centres_KC[empty[: len(farthest)]] = vectors_NC[farthest]
    return centres_KC


def nearest(vectors_NC: np.ndarray, centres_KC: np.ndarray) -> tuple[IntArray, np.ndarray]:
    """The nearest centre of each vector, int64 [N], and the squared distance, [N]; unknown numbers are left out."""
    code_N = np.zeros(len(vectors_NC), np.int64)
    distance_N = np.zeros(len(vectors_NC), np.float32)
    rows = max(1, CELLS // len(centres_KC))
    for start in range(0, len(vectors_NC), rows):
        part_NC = vectors_NC[start : start + rows]
        known_NC = (~np.isnan(part_NC)).astype(np.float32)
        value_NC = np.nan_to_num(part_NC)
        square_NK = known_NC @ np.square(centres_KC).T - 2 * value_NC @ centres_KC.T
        code_N[start : start + rows] = square_NK.argmin(1)
        distance_N[start : start + rows] = square_NK.min(1) + np.square(value_NC).sum(1)
    return code_N, distance_N


def nearest_codes(vectors_NC: np.ndarray, centres_LKC: np.ndarray) -> IntArray:
    """The codes of vectors, int64 [N, L]: on each level the centre nearest to the residual."""
    residual_NC, levels = vectors_NC, []
    for centres_KC in centres_LKC:
        code_N, _ = nearest(residual_NC, centres_KC)
        residual_NC = residual_NC - centres_KC[code_N]
        levels.append(code_N)
    return np.stack(levels, 1)


def distinct_codes(codes_NL: IntArray, codes: int) -> IntArray:
    """The codes and one more that counts the items with the same ones, int64 [N, L + 1]: all rows are different.

    The extra code is below `codes`. Items beyond that, such as many without a vector, take the next codes that have
    room, where the codes of a row are read as a number.

    Args:
        codes_NL: codes, below `codes`.
        codes: K; there must be at most K^(L + 1) items.
    """
    count, levels = codes_NL.shape
    tuples, group_N = np.unique(codes_NL, axis=0, return_inverse=True)
    group_N = group_N.reshape(-1)
    order = np.argsort(group_N, kind="stable")
    rank_N = np.empty(count, np.int64)
    rank_N[order] = np.arange(count) - np.searchsorted(group_N[order], group_N[order])
    result = np.concatenate((codes_NL, rank_N[:, None]), 1)
    surplus = np.flatnonzero(rank_N >= codes)
    if not len(surplus):
        return result
    used = {tuple(each): int(size) for each, size in zip(tuples.tolist(), np.bincount(group_N), strict=True)}
    for item in surplus:
        place = tuple(codes_NL[item].tolist())
        while used.get(place, 0) >= codes:
            place = _following(place, codes)
        result[item] = (*place, used.get(place, 0))
        used[place] = used.get(place, 0) + 1
    assert result.shape == (count, levels + 1)
    return result


def _following(place: tuple[int, ...], codes: int) -> tuple[int, ...]:
    """The next tuple of codes, as the number that follows; after the last one comes the first."""
    digits = list(place)
    for level in reversed(range(len(digits))):
        digits[level] += 1
        if digits[level] < codes:
            break
        digits[level] = 0
    return tuple(digits)


def numbered_codes(count: int, levels: int, codes: int) -> IntArray:
    """The codes of items without any vectors: their numbers in base K, int64 [N, L + 1]."""
    power = codes ** np.arange(levels, -1, -1, dtype=object)
    digits = [np.arange(count) // min(int(each), 1 << 62) % codes for each in power]
    numbered: IntArray = np.stack(digits, 1).astype(np.int64)
    return numbered
