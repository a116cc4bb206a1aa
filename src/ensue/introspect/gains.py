"""Measurements of the residual streams by depth: norms, mixing, gains and gates.

Source of the gains: mHC (DeepSeek-AI 2025, arXiv 2512.24880). The forward gain of a mixing matrix H_res is its largest
absolute row sum, which bounds the growth of a signal; the backward gain is its largest absolute column sum, which
bounds the growth of a gradient. The composite is the product of an event's matrices from the first sublayer on.

Suffixes: `P` events of all rows, `S` residual streams, `D` width, `X` any further dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import Layout
from ensue.introspect.tally import Tally
from ensue.introspect.transformer import evaluating, event_places, transformer_of
from ensue.nn.block import Block
from ensue.nn.hyper_connections import HyperConnection
from ensue.nn.model import Model
from ensue.nn.residual import GatedResidual, Residual, State, Stream

Part = Literal["attention", "feed-forward"]


@dataclass(frozen=True, slots=True)
class Gains:
    """The gains of one matrix per event.

    Attributes:
        forward: largest absolute row sum, mean over events.
        backward: largest absolute column sum, mean over events.
        forward_max: largest forward gain of any event.
        backward_max: largest backward gain of any event.
    """

    forward: float
    backward: float
    forward_max: float
    backward_max: float


@dataclass(frozen=True, slots=True)
class MixingReport:
    """How one sublayer reads, mixes and writes S streams, as means over events.

    Attributes:
        h_pre: weights of the streams in the sublayer's input, [S].
        h_res: weights of the streams before (column) in the streams after (row), [S, S].
        h_post: weights of the sublayer's output in the streams, [S].
        off_diagonal: share of H_res's absolute mass off its diagonal.
        gain: gains of H_res.
        composite: gains of the product of H_res from the first sublayer to this one.
        similarity: mean cosine of the pairs of streams before the sublayer.
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
    """The measurements of one sublayer, as means over events.

    Attributes:
        block: number of the block, from 1.
        part: which sublayer of the block.
        stream_norm: Euclidean norm of the incoming stream; for several streams, the mean of their norms.
        output_norm: Euclidean norm of the sublayer's output, before gates and H_post.
        gate: mean gate; None unless the residual is gated.
        mixing: mixing of the streams; None for a single stream.
    """

    block: int
    part: Part
    stream_norm: float
    output_norm: float
    gate: float | None
    mixing: MixingReport | None


@dataclass(frozen=True, slots=True)
class GainReport:
    """The measurements of a trunk's sublayers, first to last.

    Attributes:
        events: number of events.
        sublayers: two for each block.
        final_norm: norm of the stream after the last sublayer.
    """

    events: int
    sublayers: tuple[SublayerReport, ...]
    final_norm: float

    @property
    def composite(self) -> Gains | None:
        """The gains of the product over the whole depth; None for a single stream."""
        last = self.sublayers[-1].mixing
        return None if last is None else last.composite


def gain_report(model: Model, *batches: SequenceBatch) -> GainReport:
    """Run a model on histories and measure its residual streams.

    It may be called during training: gradients, random streams and the model's mode do not change.

    Arguments and errors are those of `attention_report`.
    """
    transformer = transformer_of(model)
    shared = _Shared(transformer.trunk.stream)
    with evaluating(model), _measured(transformer.blocks, shared) as residuals:
        for batch in (each.asking_all() for each in batches):
            with _events_of(batch, transformer.blocks[0], shared):
                transformer.run(batch)
    sublayers = tuple(_sublayer(number, residual.tally) for number, residual in enumerate(residuals))
    last = residuals[-1].tally
    return GainReport(last.count("stream"), sublayers, last.mean("stream after"))


class _Shared:
    """The state shared by the measured residuals of a trunk.

    Attributes:
        stream: the trunk's stream.
        places_P: the places of the batch's events in the layout of the blocks.
        product_PSS: the product of each event's mixing matrices so far, float64 on the CPU; None before the first.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.places_P = torch.zeros(0, dtype=torch.long)
        self.product_PSS: Tensor | None = None

    def extend(self, res_PSS: Tensor) -> Tensor:
        res_PSS = res_PSS.cpu().double()
        self.product_PSS = res_PSS if self.product_PSS is None else res_PSS @ self.product_PSS
        return self.product_PSS


class _MeasuredResidual(nn.Module):
    """A residual that calls another residual and records what it reads and writes."""

    def __init__(self, inner: Residual, shared: _Shared) -> None:
        super().__init__()
        self.inner = inner
        self.shared = shared
        self.tally = Tally()

    def read(self, state: State) -> tuple[Tensor, State]:
        streams = self._events(self.shared.stream.look(state))
        self.tally.add("stream", _norm(streams))
        if isinstance(self.inner, HyperConnection):
            self._tally_mixing(self.inner, streams)
        elif isinstance(self.inner, GatedResidual):
            self.tally.add("gate", torch.sigmoid(self.inner.gate(streams)).mean(-1))
        return self.inner.read(state)

    def write(self, carry: State, y_PD: Tensor, replaces: Tensor | None = None) -> State:
        state = self.inner.write(carry, y_PD, replaces)
        self.tally.add("output", _norm(self._events(y_PD if replaces is None else y_PD - replaces)))
        self.tally.add("stream after", _norm(self._events(self.shared.stream.look(state))))
        return state

    def _events(self, values_PX: Tensor) -> Tensor:
        """Select the batch's events. The last block returns only these, without the padding of models that pad."""
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
def _measured(blocks: list[Block], shared: _Shared) -> Iterator[list[_MeasuredResidual]]:
    """Replace the residuals of the blocks by measured ones, two per block, and restore them at the end."""
    originals = [(block.attention_residual, block.feed_forward_residual) for block in blocks]
    residuals: list[_MeasuredResidual] = []
    for block, (attention, feed_forward) in zip(blocks, originals, strict=True):
        pair = _MeasuredResidual(attention, shared), _MeasuredResidual(feed_forward, shared)
        block.attention_residual, block.feed_forward_residual = pair
        residuals += pair
    try:
        yield residuals
    finally:
        for block, pair_before in zip(blocks, originals, strict=True):
            block.attention_residual, block.feed_forward_residual = pair_before


@contextmanager
def _events_of(batch: SequenceBatch, first: Block, shared: _Shared) -> Iterator[None]:
    """Record the places of a batch's events, from the layout passed to the first block."""

    def set_places(_: nn.Module, given: tuple[State, Layout, object]) -> None:
        shared.places_P = event_places(batch, given[1])
        shared.product_PSS = None

    with first.register_forward_pre_hook(set_places):
        yield


def _norm(streams: Tensor) -> Tensor:
    """The norm of each event's stream, or the mean norm of its streams, [P]."""
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
