"""Hyper-connections: S residual streams that every sublayer reads from, mixes and writes to.

Sources: HC, Zhu et al., ICLR 2025 (arXiv 2409.19606); mHC, DeepSeek-AI 2025 (arXiv 2512.24880), where mixing matrices
are doubly stochastic, so that products of them do not amplify signals; mHC-lite (arXiv 2601.05732), which builds such
matrices as averages of permutations, without iterations.

Suffixes: `P` events, `D` width, `S` streams, `K` streams and the sublayer's output, `E` coefficients, `M` entries of a
mixing matrix, `1` a dimension of one.
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from ensue.nn.ops.sinkhorn import sinkhorn
from ensue.nn.ops.streams import project, read_streams, write_streams
from ensue.nn.residual import RESIDUALS, ResidualEntry, State

if TYPE_CHECKING:
    from ensue.nn.trunk import TrunkConfig

Mixture = Literal["hc", "mhc", "mhc_lite"]
GATE_START = 0.01
PHI_STD = 0.02
# Initial off-diagonal logits: each stream keeps about six sevenths of itself.
OFF_DIAGONAL = -3.0
OFF_IDENTITY = -5.0
MAX_STREAMS_OF_PERMUTATIONS = 5


class Mixing(nn.Module):
    """The coefficients of one sublayer, computed from the streams by one fused projection S D -> 2 S + (S S or S!).

    Args:
        hidden_units: width of a stream, D.
        streams: S, at least 2.
        mixture: how the coefficients follow from the projection.
        iterations: number of Sinkhorn iterations, for `mhc`.
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
        """Start close to a plain residual network: small gates, and streams that can diverge."""
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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Coefficients for S streams, [P, S, D], or for S copies of one stream, [P, D].

        Returns:
            H_pre, [P, S], H_res, [P, S, S], and H_post, [P, S], at least float32; and x for the next reader.
        """
        # In float32 under mixed precision too, which the Sinkhorn sums and the gates need.
        with torch.autocast(x.device.type, enabled=False):
            # The copies have equal norms, and each is multiplied by its own columns of phi.
            phi = self.phi.view(len(self.phi), self.streams, -1).sum(1) if x.dim() == 2 else self.phi
            raw_EP, x = project(x.to(phi.dtype), phi)
            gates_E = self.gates.repeat_interleave(torch.tensor(self.sizes, device=self.gates.device))
            make = {"hc": self._unconstrained, "mhc": self._manifold, "mhc_lite": self._permutations}[self.mixture]
            pre_PS, post_PS, res_PM = (part.T.contiguous() for part in make(raw_EP, gates_E[:, None]))
            return pre_PS, res_PM.view(-1, self.streams, self.streams), post_PS, x

    def _unconstrained(self, raw_EP: Tensor, gates: Tensor) -> tuple[Tensor, ...]:
        """HC, eq. 6 to 8: start + gate * tanh(projection)."""
        parts: tuple[Tensor, ...] = torch.split(torch.addcmul(self.start[:, None], gates, raw_EP.tanh()), self.sizes)
        return parts

    def _bounded(self, raw_EP: Tensor, gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """mHC, eq. 7 and 8: a sigmoid for reading, twice a sigmoid for writing, and the logits of the mixing matrix."""
        pre_SP, post_SP, logits = torch.split(torch.addcmul(self.start[:, None], gates, raw_EP), self.sizes)
        return torch.sigmoid(pre_SP), 2 * torch.sigmoid(post_SP), logits

    def _manifold(self, raw_EP: Tensor, gates: Tensor) -> tuple[Tensor, ...]:
        pre_SP, post_SP, logits = self._bounded(raw_EP, gates)
        matrix = sinkhorn(logits.view(self.streams, self.streams, -1), self.iterations)
        return pre_SP, post_SP, matrix.flatten(0, 1)

    def _permutations(self, raw_EP: Tensor, gates: Tensor) -> tuple[Tensor, ...]:
        pre_SP, post_SP, logits = self._bounded(raw_EP, gates)
        return pre_SP, post_SP, self.permutation_EM @ torch.softmax(logits, 0)


class CopiedStreams:
    """S streams that start as copies of the events; the result is their mean.

    A state is either `(x,)`, where all streams are copies of the vector x [P, D], or a pending write
    `(weights, past, y)`, where the streams are weights @ (past, y) and `past` is the common vector or the earlier
    streams.
    """

    def __init__(self, streams: int) -> None:
        self.streams = streams

    def open(self, x_PD: Tensor) -> State:
        """S copies."""
        return (x_PD,)

    def look(self, state: State) -> Tensor:
        """The streams: [P, S, D]."""
        x = _made(state)
        return x[:, None].expand(-1, self.streams, -1) if x.dim() == 2 else x

    def close(self, state: State) -> Tensor:
        """The mean of the streams."""
        if len(state) == 1:
            return state[0]
        weights_PSK, past, y_PD = state
        old_PK, new_P1 = weights_PSK.mean(1).tensor_split([-1], 1)
        kept_PD = old_PK * past if past.dim() == 2 else read_streams(old_PK, past)[0]
        return torch.addcmul(kept_PD, new_P1, y_PD)


class HyperConnection(nn.Module):
    """x <- H_res x + H_post^T F(H_pre x), for the streams of `CopiedStreams`.

    Streams are computed only when a sublayer reads them. The first sublayer therefore reads the copies without creating
    them, and the streams after the last sublayer are never created: their mean is a sum with the mean weights.

    `sublayer` numbers the attention and feed-forward layers of all blocks; each sublayer has its own coefficients.
    """

    def __init__(self, hidden_units: int, streams: int, mixture: Mixture, iterations: int, sublayer: int) -> None:
        super().__init__()
        self.mixing = Mixing(hidden_units, streams, mixture, iterations, sublayer)

    def read(self, state: State) -> tuple[Tensor, State]:
        """H_pre x, [P, D], and the carried state: H_res, H_post and x."""
        pre_PS, res_PSS, post_PS, x = self.mixing(_made(state))
        if x.dim() == 2:
            return x * pre_PS.sum(1, keepdim=True), (res_PSS.sum(2, keepdim=True), post_PS, x)
        x_PD, x = read_streams(pre_PS, x)
        return x_PD, (res_PSS, post_PS, x)

    def write(self, carry: State, y_PD: Tensor, replaces: Tensor | None = None) -> State:
        """Add to each stream its share of the sublayer's output."""
        res_PSK, post_PS, past = carry
        added_PD = (y_PD if replaces is None else y_PD - replaces).to(past.dtype)
        return torch.cat((res_PSK, post_PS[:, :, None]), 2), past, added_PD


def _made(state: State) -> Tensor:
    """The streams, [P, S, D], or, if all are copies of one vector, that vector, [P, D]."""
    # The streams stay in float32 under mixed precision, as the sum x + F(x) does.
    with torch.autocast(state[0].device.type, enabled=False):
        x: Tensor = state[0] if len(state) == 1 else write_streams(*state)
    return x


def _entry(mixture: Mixture) -> ResidualEntry:
    def residual(config: TrunkConfig, sublayer: int) -> HyperConnection:
        streams, iterations = config.mhc_expansion_rate, config.mhc_sinkhorn_iter
        return HyperConnection(config.hidden_units, streams, mixture, iterations, sublayer)

    return ResidualEntry(lambda config: CopiedStreams(config.mhc_expansion_rate), residual)


for name in get_args(Mixture):
    RESIDUALS.register(name)(_entry(name))
