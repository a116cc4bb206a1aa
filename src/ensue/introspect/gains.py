"""What the residual streams do with depth: norms, mixing, gains, gates.

The gains are those of mHC (DeepSeek-AI 2025, arXiv 2512.24880): of a mixing matrix H_res, forward the largest absolute
row sum, which bounds how much a signal can grow, and backward the largest absolute column sum, which bounds how much
its gradient can. The composite is the product of an event's own matrices from the first sublayer on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.introspect.tally import Tally, answer, looking, places_of, trunk_of
from ensue.nn.hyper_connections import HyperConnection
from ensue.nn.model import Model
from ensue.nn.residual import GatedResidual, Residual, State, Stream
from ensue.nn.trunk import Trunk

Part = Literal["attention", "feed-forward"]


@dataclass(frozen=True, slots=True)
class Gains:
    """Of matrices of the events of a sample: means, and largest values.

    Attributes:
        forward: largest absolute row sum, mean over events.
        backward: largest absolute column sum, mean over events.
        forward_max: the largest of any event.
        backward_max: the largest of any event.
    """

    forward: float
    backward: float
    forward_max: float
    backward_max: float


@dataclass(frozen=True, slots=True)
class MixingReport:
    """How one sublayer joins S streams; means over events.

    Attributes:
        h_pre: weights of the streams in what the sublayer reads, [S].
        h_res: how the streams are mixed, [S, S]; row: stream after, column: stream before.
        h_post: weights of the sublayer's output in the streams, [S].
        off_diagonal: share of H_res's absolute mass off its diagonal.
        gain: of H_res.
        composite: of the product of H_res from the first sublayer to this one.
        similarity: mean cosine of the pairs of streams that enter the sublayer.
    """

    h_pre: list[float]
    h_res: list[list[float]]
    h_post: list[float]
    off_diagonal: float
    gain: Gains
    composite: Gains
    similarity: float


@dataclass(frozen=True, slots=True)
class SublayerReport:
    """One sublayer; means over events.

    Attributes:
        block: number of the block, from 1.
        part: which of its sublayers.
        stream_norm: Euclidean norm of the stream that enters; of several streams, their mean norm.
        output_norm: Euclidean norm of what the sublayer adds, before gates and H_post.
        gate: mean of the gate, for gated residuals.
        mixing: for residuals of several streams.
    """

    block: int
    part: Part
    stream_norm: float
    output_norm: float
    gate: float | None
    mixing: MixingReport | None


@dataclass(frozen=True, slots=True)
class GainReport:
    """The sublayers of a trunk, first to last.

    Attributes:
        events: events of the sample.
        sublayers: two for each block.
        final_norm: norm of the stream that leaves the last sublayer.
    """

    events: int
    sublayers: tuple[SublayerReport, ...]
    final_norm: float

    @property
    def composite(self) -> Gains | None:
        """Of the product over the whole depth; None for a single stream."""
        last = self.sublayers[-1].mixing
        return None if last is None else last.composite


def gain_report(model: Model, *batches: SequenceBatch) -> GainReport:
    """Run a model over histories and measure its residual streams.

    May be called during training: gradients, dropout, random streams and the model's mode stay as they are.

    Args:
        model: an encoder with a `Trunk`.
        batches: histories, at least one; on the model's device.

    Raises:
        ConfigError: the model has no trunk.
        DataError: the batches lack the times that the model reads.
    """
    trunk = trunk_of(model)
    shared = _Shared(trunk.stream)
    with looking(model), _witnessed(trunk, shared) as witnesses:
        for batch in (each.asking_all() for each in batches):
            with _placed(trunk, batch, shared):
                answer(model, batch)
    sublayers = tuple(_sublayer(number, witness.tally) for number, witness in enumerate(witnesses))
    last = witnesses[-1].tally
    return GainReport(last.count("stream"), sublayers, last.mean("stream after"))


class _Shared:
    """What the witnesses have in common.

    Attributes:
        stream: the trunk's.
        places_P: where the batch's events are among what the blocks work on.
        product_PSS: of each event's mixing matrices so far, float64 on the CPU; None before the first.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.places_P = torch.zeros(0, dtype=torch.long)
        self.product_PSS: Tensor | None = None

    def extend(self, res_PSS: Tensor) -> Tensor:
        res_PSS = res_PSS.cpu().double()
        self.product_PSS = res_PSS if self.product_PSS is None else res_PSS @ self.product_PSS
        return self.product_PSS


class _Witness(nn.Module):
    """A residual that passes all through to another, and tallies its events."""

    def __init__(self, inner: nn.Module, shared: _Shared) -> None:
        super().__init__()
        self.inner = inner
        self.shared = shared
        self.tally = Tally()

    @property
    def _residual(self) -> Residual:
        residual: Any = self.inner
        return residual  # type: ignore[no-any-return]

    def read(self, state: State) -> tuple[Tensor, State]:
        streams = self._events(self.shared.stream.look(state))
        self.tally.add("stream", _norm(streams))
        if isinstance(self.inner, HyperConnection):
            self._tally_mixing(self.inner, streams)
        elif isinstance(self.inner, GatedResidual):
            self.tally.add("gate", torch.sigmoid(self.inner.gate(streams)).mean(-1))
        return self._residual.read(state)

    def write(self, carry: State, y_PD: Tensor, replaces: Tensor | None = None) -> State:
        state = self._residual.write(carry, y_PD, replaces)
        self.tally.add("output", _norm(self._events(y_PD if replaces is None else y_PD - replaces)))
        self.tally.add("stream after", _norm(self._events(self.shared.stream.look(state))))
        return state

    def _events(self, values_PX: Tensor) -> Tensor:
        """The batch's own events. The last block gives the asked ones, which are just those, without any padding."""
        places_P = self.shared.places_P
        return values_PX if len(values_PX) == len(places_P) else values_PX.index_select(0, places_P)

    def _tally_mixing(self, inner: HyperConnection, streams_PSD: Tensor) -> None:
        pre_PS, res_PSS, post_PS, _ = inner.mixing(streams_PSD)
        for name, values in (("pre", pre_PS), ("res", res_PSS), ("post", post_PS)):
            self.tally.add(name, values)
        mass_P = res_PSS.abs().sum((1, 2))
        kept_P = res_PSS.diagonal(dim1=1, dim2=2).abs().sum(1)
        self.tally.add("off-diagonal", 1 - kept_P / mass_P)
        _add_gains(self.tally, "gain", res_PSS)
        _add_gains(self.tally, "composite", self.shared.extend(res_PSS))
        unit_PSD = nn.functional.normalize(streams_PSD.float(), dim=-1)
        cosine_PSS = unit_PSD @ unit_PSD.transpose(1, 2)
        streams = inner.mixing.streams
        off_P = cosine_PSS.sum((1, 2)) - cosine_PSS.diagonal(dim1=1, dim2=2).sum(1)
        self.tally.add("similarity", off_P / (streams * (streams - 1)))


@contextmanager
def _witnessed(trunk: Trunk, shared: _Shared) -> Iterator[list[_Witness]]:
    """Every residual of the trunk with a witness around it, for the time being."""
    witnesses = []
    for block in trunk.blocks:
        for name in ("attention_residual", "feed_forward_residual"):
            witness = _Witness(getattr(block, name), shared)
            witnesses.append(witness)
            setattr(block, name, witness)
    try:
        yield witnesses
    finally:
        waiting = iter(witnesses)
        for block in trunk.blocks:
            for name in ("attention_residual", "feed_forward_residual"):
                setattr(block, name, next(waiting).inner)


@contextmanager
def _placed(trunk: Trunk, batch: SequenceBatch, shared: _Shared) -> Iterator[None]:
    """The places of a batch's events for the witnesses, from the layout that the first block is called with."""

    def place(_: nn.Module, given: Any) -> None:
        shared.places_P = places_of(batch, given[1])
        shared.product_PSS = None

    handle = trunk.blocks[0].register_forward_pre_hook(place)
    try:
        yield
    finally:
        handle.remove()


def _norm(streams: Tensor) -> Tensor:
    """[P]: the norm of each event's stream, or the mean norm of its streams."""
    norm: Tensor = torch.linalg.vector_norm(streams.float(), dim=-1)
    return norm if norm.dim() == 1 else norm.mean(1)


def _add_gains(tally: Tally, name: str, matrix_PSS: Tensor) -> None:
    absolute = matrix_PSS.abs()
    tally.add(f"{name} forward", absolute.sum(2).amax(1))
    tally.add(f"{name} backward", absolute.sum(1).amax(1))


def _gains(tally: Tally, name: str) -> Gains:
    forward, backward = f"{name} forward", f"{name} backward"
    return Gains(tally.mean(forward), tally.mean(backward), tally.peak(forward), tally.peak(backward))


def _sublayer(number: int, tally: Tally) -> SublayerReport:
    mixing = None
    if "res" in tally:
        mixing = MixingReport(
            tally.mean("pre"),
            tally.mean("res"),
            tally.mean("post"),
            tally.mean("off-diagonal"),
            _gains(tally, "gain"),
            _gains(tally, "composite"),
            tally.mean("similarity"),
        )
    part: Part = "feed-forward" if number % 2 else "attention"
    gate = tally.mean("gate") if "gate" in tally else None
    return SublayerReport(number // 2 + 1, part, tally.mean("stream"), tally.mean("output"), gate, mixing)
