"""How a sublayer's output joins the stream: one protocol, so that no block knows which residual it has."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

Carry = tuple[Tensor, ...]


class Residual(Protocol):
    """Open the stream once, read and write at every sublayer, close once. Law: close(open(x)) == x.

    A carry is a tuple of tensors that all have the events in their first dimension, so that rows can be chosen
    from it without knowing what it is.
    """

    def open(self, x_PD: Tensor) -> Tensor:
        """The stream state that starts as the events `x_PD`."""
        ...

    def read(self, state: Tensor) -> tuple[Tensor, Carry]:
        """What the sublayer sees, [P, D], and what must be carried past it."""
        ...

    def write(self, carry: Carry, y_PD: Tensor) -> Tensor:
        """The stream after the sublayer gave `y_PD`."""
        ...

    def close(self, state: Tensor) -> Tensor:
        """The events, [P, D], at the end of the trunk."""
        ...


class PlainResidual(nn.Module):
    """x + F(x). Source: He et al., CVPR 2016."""

    def open(self, x_PD: Tensor) -> Tensor:
        """The events themselves."""
        return x_PD

    def read(self, state: Tensor) -> tuple[Tensor, Carry]:
        """The events, and the events to add to."""
        return state, (state,)

    def write(self, carry: Carry, y_PD: Tensor) -> Tensor:
        """Carry plus output."""
        return carry[0] + y_PD

    def close(self, state: Tensor) -> Tensor:
        """The events themselves."""
        return state
