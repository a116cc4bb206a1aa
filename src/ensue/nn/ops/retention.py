"""Linear recurrence with decay: a state that each event fades and writes to, computed by chunks.

    S_t = exp(a_t) S_{t-1} + k_t v_t^T        o_t = q_t S_t        a_t <= 0, one per event and head

Source: RetNet, Sun et al. 2023 (arXiv 2307.08621), section 2.2, with a decay per event as in Mamba-2 (Dao & Gu, ICML
2024). `naive_retention` is the recurrence.

Suffixes: `G` rows, `H` heads, `T` events, `N` chunks, `W` events of a chunk, `d` width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64


def retention(q_GHTd: Tensor, k_GHTd: Tensor, v_GHTd: Tensor, decay_GHT: Tensor, chunk: int = CHUNK) -> Tensor:
    """What every event reads, [G, H, T, d], in O(T (W + d) d): within a chunk by pairs, across chunks by the state.

    Args:
        q_GHTd: queries.
        k_GHTd: keys.
        v_GHTd: values.
        decay_GHT: a_t, at most 0.
        chunk: W.
    """
    width = q_GHTd.shape[2]
    size = min(chunk, width)
    count = math.ceil(width / size)
    missing = count * size - width
    q, k, v = (torch.unflatten(F.pad(x, (0, 0, 0, missing)), 2, (count, size)) for x in (q_GHTd, k_GHTd, v_GHTd))
    since_GHNW = torch.unflatten(F.pad(decay_GHT, (0, missing)), 2, (count, size)).cumsum(-1)
    future_WW = torch.ones(size, size, dtype=torch.bool, device=q.device).triu(1)
    between = (since_GHNW[..., :, None] - since_GHNW[..., None, :]).masked_fill(future_WW, float("-inf"))
    out = (q @ k.transpose(-1, -2) * between.exp()) @ v
    if count > 1:
        whole_GHN = since_GHNW[..., -1]
        fading = (whole_GHN[..., None] - since_GHNW).exp()[..., None]
        written = (k * fading).transpose(-1, -2) @ v
        state = torch.zeros_like(written[:, :, 0])
        before = [state]
        for number in range(count - 1):
            state = whole_GHN[:, :, number, None, None].exp() * state + written[:, :, number]
            before.append(state)
        out = out + since_GHNW.exp()[..., None] * (q @ torch.stack(before, 2))
    read: Tensor = out.flatten(2, 3)[:, :, :width]
    return read


def step(state_GHdd: Tensor, q_GHd: Tensor, k_GHd: Tensor, v_GHd: Tensor, decay_GH: Tensor) -> tuple[Tensor, Tensor]:
    """One event: the state after it, [G, H, d, d], and what it reads, [G, H, d]."""
    state_GHdd = decay_GH.exp()[..., None, None] * state_GHdd + k_GHd[..., :, None] * v_GHd[..., None, :]
    return state_GHdd, (q_GHd[..., None, :] @ state_GHdd).squeeze(-2)


def naive_retention(q_GHTd: Tensor, k_GHTd: Tensor, v_GHTd: Tensor, decay_GHT: Tensor) -> Tensor:
    """The plain form of `retention`, one event after another."""
    state = q_GHTd.new_zeros(*q_GHTd.shape[:2], q_GHTd.shape[-1], v_GHTd.shape[-1])
    outs = []
    for t in range(q_GHTd.shape[2]):
        state, out = step(state, q_GHTd[:, :, t], k_GHTd[:, :, t], v_GHTd[:, :, t], decay_GHT[:, :, t])
        outs.append(out)
    return torch.stack(outs, 2)
