"""What the published programs compute, written from their equations: one row, one position after another, float64.

Both fill a history on the left with item 0 to `maxlen` and let every place see all places up to itself, padding too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Weights = dict[str, np.ndarray]


def layer_norm(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-8)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def feed_forward(x: np.ndarray, w: Weights, i: int, activation: str = "relu") -> np.ndarray:
    first = x @ w[f"forward_layers.{i}.conv1.weight"][..., 0].T + w[f"forward_layers.{i}.conv1.bias"]
    first = np.maximum(first, 0) if activation == "relu" else first
    return first @ w[f"forward_layers.{i}.conv2.weight"][..., 0].T + w[f"forward_layers.{i}.conv2.bias"]


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max())
    return e / e.sum()


def heads_of(width: int, heads: int) -> list[slice]:
    size = width // heads
    return [slice(h * size, (h + 1) * size) for h in range(heads)]


def filled(history: Sequence[int], maxlen: int) -> np.ndarray:
    row = np.zeros(maxlen, dtype=np.int64)
    kept = list(history)[-maxlen:]
    row[maxlen - len(kept) :] = kept
    return row


def blocks(w: Weights) -> int:
    return sum(name.startswith("attention_layernorms.") and name.endswith("weight") for name in w)


def sasrec_scores(
    w: Weights,
    history: Sequence[int],
    maxlen: int,
    norm: str,
    heads: int,
    of_2020: bool,
    activation: str = "relu",
) -> np.ndarray:
    """Scores of items 1..N after a history, by SASRec.pytorch.

    of_2020: positions 0..maxlen-1 by place, padding's states set to zero before and after every block; later code has
    positions 1..maxlen, 0 for padding, and leaves the padding alone.
    """
    row = filled(history, maxlen)
    real = (row != 0)[:, None]
    width = w["item_emb.weight"].shape[1]
    place = np.arange(maxlen) if of_2020 else np.arange(1, maxlen + 1) * (row != 0)
    x = w["item_emb.weight"][row] * np.sqrt(width) + w["pos_emb.weight"][place]
    x = x * real if of_2020 else x
    for i in range(blocks(w)):
        attention_norm, forward_norm = f"attention_layernorms.{i}", f"forward_layernorms.{i}"
        if norm == "original":
            q = layer_norm(x, w, attention_norm)
            x = layer_norm(q + attend(w, i, q, x, heads), w, forward_norm)
            x = x + feed_forward(x, w, i, activation)
        elif norm == "post":
            x = layer_norm(x + attend(w, i, x, x, heads), w, attention_norm)
            x = layer_norm(x + feed_forward(x, w, i, activation), w, forward_norm)
        else:
            normed = layer_norm(x, w, attention_norm)
            x = x + attend(w, i, normed, normed, heads)
            x = x + feed_forward(layer_norm(x, w, forward_norm), w, i, activation)
        x = x * real if of_2020 else x
    return w["item_emb.weight"][1:] @ layer_norm(x, w, "last_layernorm")[-1]


def attend(w: Weights, i: int, queries: np.ndarray, others: np.ndarray, heads: int) -> np.ndarray:
    at = f"attention_layers.{i}."
    weight, bias = np.split(w[f"{at}in_proj_weight"], 3), np.split(w[f"{at}in_proj_bias"], 3)
    q, k, v = (x @ a.T + b for x, a, b in zip((queries, others, others), weight, bias, strict=True))
    out = np.zeros_like(q)
    for part in heads_of(q.shape[1], heads):
        for t in range(len(q)):
            scores = k[: t + 1, part] @ q[t, part] / np.sqrt(part.stop - part.start)
            out[t, part] = softmax(scores) @ v[: t + 1, part]
    return out @ w[f"{at}out_proj.weight"].T + w[f"{at}out_proj.bias"]


def tisasrec_scores(
    w: Weights, history: Sequence[int], units: Sequence[int], maxlen: int, heads: int, activation: str = "relu"
) -> np.ndarray:
    """Scores of items 1..N after a history, by TiSASRec.pytorch; `units` are its times, counted from 1."""
    row, times = filled(history, maxlen), filled(units, maxlen)
    real = (row != 0)[:, None]
    width = w["item_emb.weight"].shape[1]
    span = len(w["time_matrix_V_emb.weight"]) - 1
    x = w["item_emb.weight"][row] * np.sqrt(width) * real
    for i in range(blocks(w)):
        query = layer_norm(x, w, f"attention_layernorms.{i}")
        x = layer_norm(query + attend_in_time(w, i, query, x, times, span, heads), w, f"forward_layernorms.{i}")
        x = (x + feed_forward(x, w, i, activation)) * real
    return w["item_emb.weight"][1:] @ layer_norm(x, w, "last_layernorm")[-1]


def attend_in_time(
    w: Weights, i: int, queries: np.ndarray, others: np.ndarray, times: np.ndarray, span: int, heads: int
) -> np.ndarray:
    def linear(x: np.ndarray, part: str) -> np.ndarray:
        return x @ w[f"attention_layers.{i}.{part}_w.weight"].T + w[f"attention_layers.{i}.{part}_w.bias"]

    q = linear(queries, "Q")
    k = linear(others, "K") + w["abs_pos_K_emb.weight"]
    v = linear(others, "V") + w["abs_pos_V_emb.weight"]
    out = np.zeros_like(q)
    for t in range(len(q)):
        interval = np.minimum(np.abs(times[t] - times[: t + 1]), span)
        keys = k[: t + 1] + w["time_matrix_K_emb.weight"][interval]
        values = v[: t + 1] + w["time_matrix_V_emb.weight"][interval]
        for part in heads_of(q.shape[1], heads):
            scores = keys[:, part] @ q[t, part] / np.sqrt(part.stop - part.start)
            out[t, part] = softmax(scores) @ values[:, part]
    return out
