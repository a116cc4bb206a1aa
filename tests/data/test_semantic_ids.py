"""Residual k-means and ids that are all different."""

from __future__ import annotations

import numpy as np

from ensue.data.semantic_ids import distinct_codes, nearest_codes, numbered_codes, residual_kmeans


def test_levels_leave_less_and_less() -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    centres = residual_kmeans(vectors, levels=3, codes=8)
    codes = nearest_codes(vectors, centres)
    left = [float(np.square(vectors).sum())]
    for level in range(3):
        vectors = vectors - centres[level][codes[:, level]]
        left.append(float(np.square(vectors).sum()))
    assert left == sorted(left, reverse=True)
    assert left[3] < 0.35 * left[0]
    assert len(np.unique(codes[:, 0])) == 8


def test_separate_clusters_are_first_codes() -> None:
    rng = np.random.default_rng(1)
    centres = 10 * np.eye(4, dtype=np.float32)
    vectors = np.repeat(centres, 25, 0) + rng.normal(scale=0.1, size=(100, 4)).astype(np.float32)
    first = nearest_codes(vectors, residual_kmeans(vectors, 1, 4))[:, 0].reshape(4, 25)
    assert (first == first[:, :1]).all()
    assert len(np.unique(first)) == 4


def test_unknown_numbers_are_left_out() -> None:
    centres = np.array([[[0, 0], [5, 1]]], np.float32)
    assert nearest_codes(np.array([[np.nan, 1], [0, 1], [np.nan, np.nan]], np.float32), centres).tolist() == [
        [1],
        [0],
        [0],
    ]


def test_fewer_vectors_than_codes() -> None:
    vectors = np.array([[1, 0], [0, 1]], np.float32)
    codes = nearest_codes(vectors, residual_kmeans(vectors, 2, 4))
    assert codes[0, 0] != codes[1, 0]
    assert not residual_kmeans(np.full((2, 2), np.nan, np.float32), 1, 4).any()


def test_equal_codes_are_told_apart_and_overfull_ones_spill() -> None:
    codes = distinct_codes(np.array([[0, 1], [1, 1], [0, 1], [0, 1]]), codes=2)
    assert codes.tolist() == [[0, 1, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0]]
    every = distinct_codes(np.zeros((27, 2), np.int64), codes=3)
    assert len(np.unique(every, axis=0)) == 27
    assert every.max() == 2


def test_numbers_in_base() -> None:
    assert numbered_codes(5, 2, 2).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert len(np.unique(numbered_codes(500, 8, 65_536), axis=0)) == 500
