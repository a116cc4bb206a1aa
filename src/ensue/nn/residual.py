"""Residual connections: two protocols, `Stream` and `Residual`, so that a block works with any of them.

Suffixes: `P` events of all rows, `D` width, `S` residual streams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from ensue.registry import OWN, Registry

if TYPE_CHECKING:
    from ensue.nn.trunk import TrunkConfig

State = tuple[Tensor, ...]


class Stream(Protocol):
    """The stream of a trunk, opened before the first block and closed after the last. close(open(x)) equals x.

    A state is a tuple of tensors. All of them have the events in their first dimension, so that events can be selected
    from any state.
    """

    def open(self, x_PD: Tensor) -> State:
        """The initial state, from the events `x_PD`."""
        ...

    def look(self, state: State) -> Tensor:
        """The stream, [P, D], or the streams, [P, S, D], in a state."""
        ...

    def close(self, state: State) -> Tensor:
        """The output of the trunk, [P, D], from its last state."""
        ...


class Residual(Protocol):
    """How one sublayer reads from the stream and writes to it."""

    def read(self, state: State) -> tuple[Tensor, State]:
        """The sublayer's input, [P, D], and the values carried past the sublayer, a tuple like a state."""
        ...

    def write(self, carry: State, y_PD: Tensor, replaces: Tensor | None = None) -> State:
        """The state after the sublayer.

        Args:
            carry: the second result of `read`.
            y_PD: the output to add; or, with `replaces`, the new value of the input.
            replaces: the input that `y_PD` replaces: y - replaces is added. With this argument, normalisation after
                the sum works for every residual.
        """
        ...


@dataclass(frozen=True, slots=True)
class ResidualEntry:
    """A kind of residual connection, built from the trunk's settings.

    Attributes:
        stream: creates the stream of a trunk.
        residual: creates the residual of a sublayer; sublayers are numbered from 0, two per block.
    """

    stream: Callable[[TrunkConfig], Stream]
    residual: Callable[[TrunkConfig, int], Residual]


_HYPER = "ensue.nn.hyper_connections"
RESIDUALS: Registry[ResidualEntry] = Registry(
    "residual", {"plain": __name__, "gated": __name__, "hc": _HYPER, "mhc": _HYPER, "mhc_lite": _HYPER}, OWN
)


class PlainStream:
    """One stream: the events themselves."""

    def open(self, x_PD: Tensor) -> State:
        """The events themselves."""
        return (x_PD,)

    def look(self, state: State) -> Tensor:
        """The events themselves."""
        return state[0]

    def close(self, state: State) -> Tensor:
        """The events themselves."""
        return state[0]


class PlainResidual(nn.Module):
    """x + F(x). Source: He et al., CVPR 2016."""

    def read(self, state: State) -> tuple[Tensor, State]:
        """The events, twice: as the input and as the carried value."""
        return state[0], state

    def write(self, carry: State, y_PD: Tensor, replaces: Tensor | None = None) -> State:
        """The carried value plus the output; an output that replaces the input already is the sum."""
        return (carry[0] + y_PD if replaces is None else y_PD,)


class GatedResidual(PlainResidual):
    """x + sigmoid(W x + b) * F(x).

    Source: LiGR, Borisyuk et al. 2025 (arXiv 2502.03417); eSASRec, Tikhonovich et al., RecSys 2025.
    """

    def __init__(self, hidden_units: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden_units, hidden_units)

    def write(self, carry: State, y_PD: Tensor, replaces: Tensor | None = None) -> State:
        """The carried value plus the gated output."""
        (x_PD,) = carry
        added_PD = y_PD if replaces is None else y_PD - replaces
        return (torch.addcmul(x_PD, torch.sigmoid(self.gate(x_PD)), added_PD),)


def _gated(config: TrunkConfig, sublayer: int) -> GatedResidual:
    return GatedResidual(config.hidden_units)


RESIDUALS.register("plain")(ResidualEntry(lambda _: PlainStream(), lambda *_: PlainResidual()))
RESIDUALS.register("gated")(ResidualEntry(lambda _: PlainStream(), _gated))
