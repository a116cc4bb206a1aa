"""Attention heads: conversion between packed columns and one matrix per row and head.

Suffixes: `G` rows of a rectangle, `T` its events, `H` heads, `X` rows and heads (G * H), `d` width of a head, `S` parts
side by side (such as queries, keys and values), `E` all columns (S * H * d).
"""

from __future__ import annotations

from torch import Tensor


def heads_first(x_GTE: Tensor, parts: int, heads: int) -> Tensor:
    """A view of [G, T, S * H * d] as [S, G, H, T, d]."""
    rows, width, columns = x_GTE.shape
    return x_GTE.view(rows, width, parts, heads, columns // (parts * heads)).permute(2, 0, 3, 1, 4)


def split_heads(x_GTE: Tensor, parts: int, heads: int) -> Tensor:
    """[G, T, S * H * d] -> [S, G * H, T, d]; a view if there is one head."""
    return heads_first(x_GTE, parts, heads).flatten(1, 2)


def join_heads(x_SXTd: Tensor, heads: int) -> Tensor:
    """[S, G * H, T, d] -> [G, T, S * H * d], the inverse of `split_heads`."""
    parts, count, width, size = x_SXTd.shape
    return x_SXTd.view(parts, count // heads, heads, width, size).permute(1, 3, 0, 2, 4).flatten(2)
