"""How a sublayer's output joins the residual stream: two protocols, so that no block knows which residual it has.

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
    """The stream of a trunk, opened before its first block and closed after its last. Law: close(open(x)) == x.

    A state is a tuple of tensors that all have the events in their first dimension, so that events can be chosen from
    it whatever else it is.
    """

    def open(self, x_PD: Tensor) -> State:
        """The state that starts as the events `x_PD`."""
        ...

    def look(self, state: State) -> Tensor:
        """The stream, [P, D], or the streams, [P, S, D]."""
        ...

    def close(self, state: State) -> Tensor:
        """The events, [P, D], at the end of the trunk."""
        ...


class Residual(Protocol):
    """How one sublayer reads from the stream and writes to it."""

    def read(self, state: State) -> tuple[Tensor, State]:
        """What the sublayer sees, [P, D], and what is carried past it, a tuple like a state."""
        ...

    def write(self, carry: State, y_PD: Tensor, replaces: Tensor | None = None) -> State:
        """The state after the sublayer.

        Args:
            carry: from `read`.
            y_PD: what the sublayer adds; or, with `replaces`, what it makes of what it read.
            replaces: what it read: the sublayer adds y - replaces. So normalising after the sum needs no rule here.
        """
        ...


@dataclass(frozen=True, slots=True)
class ResidualEntry:
    """A kind of residual connection, built from the trunk's settings.

    Attributes:
        stream: makes the stream of a trunk.
        residual: makes the residual of a sublayer; sublayers are numbered from 0, two to a block.
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
        """The events, and the events to add to."""
        return state[0], state

    def write(self, carry: State, y_PD: Tensor, replaces: Tensor | None = None) -> State:
        """Carry plus output; an output that replaces the carry is the sum already."""
        return (carry[0] + y_PD if replaces is None else y_PD,)


class GatedResidual(PlainResidual):
    """x + sigmoid(W x + b) * F(x).

    Source: LiGR, Borisyuk et al. 2025 (arXiv 2502.03417); eSASRec, Tikhonovich et al., RecSys 2025.
    """

    def __init__(self, hidden_units: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden_units, hidden_units)

    def write(self, carry: State, y_PD: Tensor, replaces: Tensor | None = None) -> State:
        """Carry plus the gated share of what the sublayer adds."""
        (x_PD,) = carry
        added_PD = y_PD if replaces is None else y_PD - replaces
        return (torch.addcmul(x_PD, torch.sigmoid(self.gate(x_PD)), added_PD),)


def _gated(config: TrunkConfig, sublayer: int) -> GatedResidual:
    return GatedResidual(config.hidden_units)


RESIDUALS.register("plain")(ResidualEntry(lambda _: PlainStream(), lambda *_: PlainResidual()))
RESIDUALS.register("gated")(ResidualEntry(lambda _: PlainStream(), _gated))
