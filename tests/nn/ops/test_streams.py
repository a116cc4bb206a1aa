"""Reading and writing streams equals the plain forms, with every gradient, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ensue.nn.ops.streams import (
    naive_project,
    naive_read_streams,
    naive_write_streams,
    project,
    read_streams,
    write_streams,
)

P, S, D, E = 7, 3, 5, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def results(make: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor]) -> list[Tensor]:
    outs = make(*inputs)
    upstream = [normal(*out.shape, seed=9 + number).detach() for number, out in enumerate(outs)]
    return [*outs, *torch.autograd.grad(outs, inputs, upstream)]


@pytest.mark.parametrize("copies", [True, False])
def test_a_chain_of_readers_equals_the_plain_forms(copies: bool) -> None:
    """Write, then two readers and a writer of the same streams: their gradients are summed in place."""
    past = normal(P, D) if copies else normal(P, S, D)
    inputs = [normal(P, S, 2 if copies else S + 1, seed=1), past, normal(P, D, seed=2), normal(E, S * D, seed=3)]
    inputs += [normal(P, S, seed=4), normal(P, S, S + 1, seed=5), normal(P, D, seed=6)]

    def fast(first: Tensor, past: Tensor, y: Tensor, phi: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        weights, second, z = others
        coefficients, streams = project(write_streams(first, past, y), phi)
        read, streams = read_streams(weights, streams)
        return coefficients, read, write_streams(second, streams, z)

    def plain(first: Tensor, past: Tensor, y: Tensor, phi: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        weights, second, z = others
        streams = naive_write_streams(first, past, y)
        read = naive_read_streams(weights, streams)
        return naive_project(streams, phi), read, naive_write_streams(second, streams, z)

    for got, expected in zip(results(fast, inputs), results(plain, inputs), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


def test_one_vector_is_projected_as_its_copies() -> None:
    x, phi = normal(P, D), normal(E, S * D, seed=1)
    shared = phi.view(E, S, D).sum(1)
    copies = x[:, None].expand(-1, S, -1)
    torch.testing.assert_close(project(x, shared)[0], naive_project(copies, phi), rtol=1e-6, atol=1e-6)
