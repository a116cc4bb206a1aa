"""Attention by features: softmax's exponential is replaced by an inner product of features, phi(q) . phi(k).

The sum over keys is then a matrix that is carried along the history, so an event costs the same at any length. It is
computed by blocks of W events: the events of the query's own block directly, those before through the matrix.

Suffixes: `G` rows of a group, `H` heads, `T` events of the group's longest row, `A` asked events of the row that has
the most, `N` blocks, `B` blocks of queries, `W` queries of a block, `F` features, `d` width of a head.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from ensue.nn.attention import ATTENTIONS, AttentionConfig, Heads
from ensue.nn.block_attention import Places, WindowAttention, cut

# Added to the sum of the weights, as the authors of the linear transformer do.
EPSILON = 1e-6
# Added to random features, as the authors of Performer do (theirs is 1e-4).
FLOOR = 1e-6


class KernelAttention(WindowAttention):
    """out_i = sum_j w_ij v_j / sum_j w_ij, w_ij = phi(q_i) . phi(k_j): O(T (W + F) d). Weights have no dropout."""

    @abstractmethod
    def features(self, x_GHTd: Tensor, is_query: bool) -> Tensor:
        """phi, positive: [G, H, T, F]. Queries may be scaled, each by a number of its own."""

    def few(self, width: int) -> int:
        """The number of blocks: a query alone reads as much as a block of queries does together."""
        return math.ceil(width / self.window)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, place_GA: Tensor | None, length_G: Tensor) -> Tensor:
        """See `RectangleAttention.attend`."""
        width = k.shape[2]
        q, k = self.features(q, True), self.features(k, False)
        # A column of ones gives the sum of the weights.
        v1 = F.pad(v, (0, 1), value=1.0)
        if not self.heads.causal:
            is_event_GT = torch.arange(width, device=k.device) < length_G[:, None]
            return _mean(q @ ((k * is_event_GT[:, None, :, None]).transpose(-1, -2) @ v1))
        blocks = math.ceil(width / self.window)
        size = self.window if blocks > 1 else width
        k_GHNWF, v_GHNWd = cut(k, blocks, size), cut(v1, blocks, size)
        sums_GHNFd = (k_GHNWF.transpose(-1, -2) @ v_GHNWd).cumsum(2)
        sums_GHNFd = F.pad(sums_GHNFd, (0, 0, 0, 0, 1, 0))[:, :, :-1]
        step_W = torch.arange(size, device=k.device)
        if place_GA is None:
            q_GHNWF, is_seen = cut(q, blocks, size), step_W <= step_W[:, None]
        else:
            places = Places(place_GA // size, place_GA[..., None], length_G, False)
            k_GHNWF, v_GHNWd, sums_GHNFd = (places.pick(x) for x in (k_GHNWF, v_GHNWd, sums_GHNFd))
            q_GHNWF, is_seen = q[:, :, :, None], (step_W <= places.place_GBW % size)[:, None, :, None]
        weights = (q_GHNWF @ k_GHNWF.transpose(-1, -2)) * is_seen
        out = _mean(weights @ v_GHNWd + q_GHNWF @ sums_GHNFd)
        return out[:, :, :, 0] if place_GA is not None else out.flatten(2, 3)[:, :, :width]


def _mean(sums: Tensor) -> Tensor:
    """Sums of weighted values divided by the sums of the weights, which are the last column."""
    return sums[..., :-1] / (sums[..., -1:] + EPSILON)


class LinearAttention(KernelAttention):
    """phi(x) = elu(x) + 1.

    Source: Katharopoulos et al., Transformers are RNNs, ICML 2020, eq. 7 and 9 to 12.
    """

    def features(self, x_GHTd: Tensor, is_query: bool) -> Tensor:
        """elu(x) + 1, as wide as a head."""
        return F.elu(x_GHTd) + 1


class PerformerAttention(KernelAttention):
    """phi(x) = exp(w_f . x - |x|^2 / 2) for F random directions w_f: in expectation, w_ij is softmax's exponential.

    The directions are orthogonal within each `d` of them. They are drawn with the initial weights and saved with them.
    The largest exponent of a query is subtracted from its exponents, which changes no result; keys keep theirs, since
    the largest of a row would depend on later events.

    Source: Choromanski et al., Rethinking Attention with Performers, ICLR 2021, lemma 1 and section 2.4.
    """

    directions_Fd: Tensor

    def __init__(self, heads: Heads, window: int, size: int) -> None:
        super().__init__(heads, window)
        self.register_buffer("directions_Fd", torch.zeros(size, heads.width))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the directions."""
        count, width = self.directions_Fd.shape
        square = torch.randn(math.ceil(count / width), width, width, generator=generator, dtype=torch.float64)
        length_F1 = torch.randn(count, width, generator=generator, dtype=torch.float64).norm(dim=1, keepdim=True)
        orthogonal_Fd = torch.linalg.qr(square).Q.flatten(0, 1)[:count]
        self.directions_Fd.copy_(orthogonal_Fd * length_F1)

    def features(self, x_GHTd: Tensor, is_query: bool) -> Tensor:
        """Positive random features; the scale 1 / sqrt(d) of the scores is divided between queries and keys."""
        x = x_GHTd * x_GHTd.shape[-1] ** -0.25
        exponent_GHTF: Tensor = x @ self.directions_Fd.to(x.dtype).T - x.square().sum(-1, keepdim=True) / 2
        if is_query:
            exponent_GHTF = exponent_GHTF - exponent_GHTF.detach().amax(-1, keepdim=True)
        features: Tensor = exponent_GHTF.exp() + FLOOR
        return features


def _performer(config: AttentionConfig, heads: Heads) -> PerformerAttention:
    return PerformerAttention(heads, config.attention_window, config.attention_size)


ATTENTIONS.register("linear")(lambda config, heads: LinearAttention(heads, config.attention_window))
ATTENTIONS.register("performer")(_performer)
