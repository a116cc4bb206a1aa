"""Hyper-connections: S residual streams that every sublayer reads from, mixes and writes to.

Sources: HC, Zhu et al., ICLR 2025 (arXiv 2409.19606); mHC, DeepSeek-AI 2025 (arXiv 2512.24880), whose mixing matrices
are doubly stochastic, so that no depth of them amplifies; mHC-lite (arXiv 2601.05732), which reaches those matrices as
averages of permutations, without iterations.
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ensue.nn.residual import Carry
from ensue.nn.sinkhorn import sinkhorn

Mixture = Literal["hc", "mhc", "mhc_lite"]
RMS_EPS = 1e-6
GATE_START = 0.01
PHI_STD = 0.02
# Starting logits off the identity: each stream keeps about six sevenths of itself.
OFF_DIAGONAL = -3.0
OFF_IDENTITY = -5.0
MAX_STREAMS_OF_PERMUTATIONS = 5


class _NormalisedProjection(torch.autograd.Function):
    """phi @ RMSNorm(x)^T: [E, P]. The norm is one factor per event, so it is applied to the small product."""

    @staticmethod
    def forward(ctx: Any, x_PF: Tensor, phi_EF: Tensor) -> Tensor:
        scale_P = torch.linalg.vector_norm(x_PF, dim=1).square_().div_(x_PF.shape[1]).add_(RMS_EPS).rsqrt_()
        raw_EP = (x_PF @ phi_EF.T).T.contiguous()
        ctx.save_for_backward(x_PF, phi_EF, scale_P, raw_EP)
        product: Tensor = raw_EP * scale_P
        return product

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x_PF, phi_EF, scale_P, raw_EP = ctx.saved_tensors
        inner_P = (grads[0] * raw_EP).sum(0).mul_(scale_P.pow(3)).div_(x_PF.shape[1])
        grad_EP = grads[0] * scale_P
        grad_x = (grad_EP.T.contiguous() @ phi_EF).addcmul_(x_PF, inner_P[:, None], value=-1)
        return grad_x, grad_EP @ x_PF


class _Write(torch.autograd.Function):
    """carry + post (outer) y: [P, S, D]. By hand, for the gradient needs no product of the streams' size."""

    @staticmethod
    def forward(ctx: Any, carry_PSD: Tensor, post_PS: Tensor, y_PD: Tensor) -> Tensor:
        ctx.save_for_backward(post_PS, y_PD)
        return torch.addcmul(carry_PSD, post_PS[:, :, None], y_PD[:, None])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        post_PS, y_PD = ctx.saved_tensors
        streams_SPD = grads[0].unbind(1)
        grad_y = streams_SPD[0] * post_PS[:, :1]
        for stream in range(1, len(streams_SPD)):
            grad_y.addcmul_(streams_SPD[stream], post_PS[:, stream, None])
        return grads[0], torch.bmm(grads[0], y_PD[:, :, None])[..., 0], grad_y


class Mixing(nn.Module):
    """The coefficients of one sublayer, from the streams themselves: one fused projection S D -> 2 S + (S S or S!).

    Args:
        hidden_units: width of a stream, D.
        streams: S, at least 2.
        mixture: how the coefficients are made of the projection.
        iterations: Sinkhorn's, for `mhc`.
        sublayer: number of the sublayer in the trunk; `hc` starts by reading stream `sublayer mod S`.
    """

    permutation_EM: Tensor

    def __init__(self, hidden_units: int, streams: int, mixture: Mixture, iterations: int, sublayer: int) -> None:
        super().__init__()
        self.streams, self.mixture, self.iterations, self.sublayer = streams, mixture, iterations, sublayer
        if mixture == "mhc_lite":
            table = torch.stack([torch.eye(streams)[list(order)].flatten() for order in permutations(range(streams))])
            self.register_buffer("permutation_EM", table.T.contiguous(), persistent=False)
        count = math.factorial(streams) if mixture == "mhc_lite" else streams * streams
        self.sizes = [streams, streams, count]
        self.phi = nn.Parameter(torch.empty(2 * streams + count, streams * hidden_units))
        self.gates = nn.Parameter(torch.empty(3))
        self.start = nn.Parameter(torch.empty(2 * streams + count))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Start as the plain residual network, gates all but closed, streams free to part."""
        self.phi.normal_(0.0, PHI_STD, generator=generator)
        self.gates.fill_(GATE_START)
        pre_S, post_S, res = torch.split(self.start, self.sizes)
        if self.mixture == "hc":
            pre_S.zero_()[self.sublayer % self.streams] = 1.0
            post_S.fill_(1.0)
            res.copy_(torch.eye(self.streams).flatten())
        else:
            pre_S.fill_(-math.log(self.streams - 1))
            post_S.zero_()
            if self.mixture == "mhc":
                res.copy_(((1 - torch.eye(self.streams)) * OFF_DIAGONAL).flatten())
            else:
                res.fill_(OFF_IDENTITY)[0] = 0.0

    def forward(self, state_PSD: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients for a state.

        Returns:
            weights [P, 1 + S, S], float32: row 0 is H_pre, the others are H_res; and H_post, [P, S].
        """
        # In float32 under mixed precision too: Sinkhorn's sums and the gates need it.
        with torch.autocast(state_PSD.device.type, enabled=False):
            x_PF = state_PSD.flatten(1).to(self.phi.dtype)
            raw_EP = _NormalisedProjection.apply(x_PF, self.phi)  # type: ignore[no-untyped-call]
            gates_E = self.gates.repeat_interleave(torch.tensor(self.sizes, device=self.gates.device))
            make = {"hc": self._unconstrained, "mhc": self._manifold, "mhc_lite": self._permutations}[self.mixture]
            pre_SP, post_SP, res_MP = make(raw_EP, gates_E[:, None])
            weights_PM = torch.cat((pre_SP, res_MP)).T.contiguous()
            return weights_PM.view(-1, 1 + self.streams, self.streams), post_SP.T.contiguous()

    def _unconstrained(self, raw_EP: Tensor, gates: Tensor) -> tuple[Tensor, ...]:
        """HC, eq. 6 to 8: start + gate * tanh(projection)."""
        parts: tuple[Tensor, ...] = torch.split(torch.addcmul(self.start[:, None], gates, raw_EP.tanh()), self.sizes)
        return parts

    def _bounded(self, raw_EP: Tensor, gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """mHC, eq. 7 and 8: sigmoid for reading, twice that for writing; the logits of the mixing matrix."""
        pre_SP, post_SP, logits = torch.split(torch.addcmul(self.start[:, None], gates, raw_EP), self.sizes)
        return torch.sigmoid(pre_SP), 2 * torch.sigmoid(post_SP), logits

    def _manifold(self, raw_EP: Tensor, gates: Tensor) -> tuple[Tensor, ...]:
        pre_SP, post_SP, logits = self._bounded(raw_EP, gates)
        matrix = sinkhorn(logits.view(self.streams, self.streams, -1), self.iterations)
        return pre_SP, post_SP, matrix.flatten(0, 1)

    def _permutations(self, raw_EP: Tensor, gates: Tensor) -> tuple[Tensor, ...]:
        pre_SP, post_SP, logits = self._bounded(raw_EP, gates)
        return pre_SP, post_SP, self.permutation_EM @ torch.softmax(logits, 0)


class HyperConnection(nn.Module):
    """x <- H_res x + H_post^T F(H_pre x), for S streams; they open as S copies and close as their mean.

    `sublayer` counts attention and feed-forward of every block; every sublayer has coefficients of its own.
    """

    def __init__(self, hidden_units: int, streams: int, mixture: Mixture, iterations: int, sublayer: int) -> None:
        super().__init__()
        self.streams = streams
        self.mixing = Mixing(hidden_units, streams, mixture, iterations, sublayer)

    def open(self, x_PD: Tensor) -> Tensor:
        """S copies: [P, S, D]."""
        return x_PD[:, None].expand(-1, self.streams, -1).contiguous()

    def read(self, state: Tensor) -> tuple[Tensor, Carry]:
        """H_pre x, [P, D]; H_res x, [P, S, D], and H_post, [P, S], are carried."""
        weights_PQS, post_PS = self.mixing(state)
        # The streams stay float32 under mixed precision, as the sum x + F(x) does.
        with torch.autocast(state.device.type, enabled=False):
            mixed_PQD = torch.bmm(weights_PQS, state.to(weights_PQS.dtype))
        x_PQD, carry_PSD = torch.split(mixed_PQD, [1, self.streams], 1)
        # Contiguous, for what comes next makes several passes over it.
        return x_PQD[:, 0].contiguous(), (carry_PSD, post_PS)

    def write(self, carry: Carry, y_PD: Tensor, replaces: Tensor | None = None) -> Tensor:
        """Each stream gets its share of what the sublayer adds."""
        carry_PSD, post_PS = carry
        added_PD = (y_PD if replaces is None else y_PD - replaces).to(carry_PSD.dtype)
        state: Tensor = _Write.apply(carry_PSD, post_PS, added_PD)  # type: ignore[no-untyped-call]
        return state

    def close(self, state: Tensor) -> Tensor:
        """The mean of the streams."""
        return state.mean(1)
