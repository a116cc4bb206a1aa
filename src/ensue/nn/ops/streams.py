"""Reading and writing residual streams, with hand-written gradients.

`project` and `read_streams` return their input together with their result, and the next reader uses that input. In the
backward pass each reader therefore adds its share to one gradient in place; autograd would create a tensor of the
streams' size for each reader and sum them. This is safe because only readers use that gradient: streams come from
`write_streams` and are passed from one reader to the next, and nothing else may use them.

Suffixes: `P` events, `S` streams, `D` width, `F` S D (or D, for copies of one stream), `K` streams and the sublayer's
output (S + 1, or 2 for copies of one stream), `E` coefficients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

RMS_EPS = 1e-6


def project(x: Tensor, phi_EF: Tensor) -> tuple[Tensor, Tensor]:
    """phi @ RMSNorm(x)^T, [E, P], and x itself, for streams [P, S, D] or one vector [P, D] copied to all of them."""
    projected: tuple[Tensor, Tensor] = _Project.apply(x, phi_EF)  # type: ignore[no-untyped-call]
    return projected


def read_streams(weights_PS: Tensor, streams_PSD: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted sum of the streams, [P, D], and the streams themselves."""
    read: tuple[Tensor, Tensor] = _Read.apply(weights_PS, streams_PSD)  # type: ignore[no-untyped-call]
    return read


def write_streams(weights_PSK: Tensor, past: Tensor, y_PD: Tensor) -> Tensor:
    """weights @ (past, y), [P, S, D].

    Args:
        weights_PSK: weights of the past streams and of y.
        past: the past streams, [P, S, D], or one vector [P, D] copied to all of them.
        y_PD: the sublayer's output.
    """
    streams_PSD: Tensor = _Write.apply(weights_PSK, past, y_PD)  # type: ignore[no-untyped-call]
    return streams_PSD


def naive_project(x: Tensor, phi_EF: Tensor) -> Tensor:
    """The plain form of `project`."""
    x_PF = x.flatten(1)
    return phi_EF @ (x_PF * (x_PF.square().mean(1, keepdim=True) + RMS_EPS).rsqrt()).T


def naive_read_streams(weights_PS: Tensor, streams_PSD: Tensor) -> Tensor:
    """The plain form of `read_streams`."""
    return (weights_PS[:, :, None] * streams_PSD).sum(1)


def naive_write_streams(weights_PSK: Tensor, past: Tensor, y_PD: Tensor) -> Tensor:
    """The plain form of `write_streams`."""
    past_PKD = past if past.dim() == 3 else past[:, None]
    return weights_PSK @ torch.cat((past_PKD, y_PD[:, None]), 1)


class _Project(torch.autograd.Function):
    """phi @ RMSNorm(x)^T, [E, P], and x. The norm is a factor per event, so it is applied to the small product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, phi_EF: Tensor) -> tuple[Tensor, Tensor]:
        x_PF = x.flatten(1)
        scale_P = torch.linalg.vector_norm(x_PF, dim=1).square_().div_(x_PF.shape[1]).add_(RMS_EPS).rsqrt_()
        raw_EP = (x_PF @ phi_EF.T).T.contiguous()
        ctx.save_for_backward(x, phi_EF, scale_P, raw_EP)
        ctx.set_materialize_grads(False)
        return raw_EP * scale_P, x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        grad_EP, grad_x = grads
        if grad_EP is None:
            return grad_x, None
        x, phi_EF, scale_P, raw_EP = ctx.saved_tensors
        x_PF = x.flatten(1)
        inner_P = (grad_EP * raw_EP).sum(0).mul_(scale_P.pow(3)).div_(x_PF.shape[1])
        grad_EP = grad_EP * scale_P
        grad_PE = grad_EP.T.contiguous()
        grad_PF = grad_PE @ phi_EF if grad_x is None else grad_x.flatten(1).addmm_(grad_PE, phi_EF)
        return grad_PF.addcmul_(x_PF, inner_P[:, None], value=-1).view_as(x), grad_EP @ x_PF


class _Read(torch.autograd.Function):
    """The weighted sum of the streams, [P, D], and the streams."""

    @staticmethod
    def forward(ctx: Any, weights_PS: Tensor, streams_PSD: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weights_PS, streams_PSD)
        ctx.set_materialize_grads(False)
        return _weighted(weights_PS, streams_PSD), streams_PSD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        grad_PD, grad_PSD = grads
        if grad_PD is None:
            return None, grad_PSD
        weights_PS, streams_PSD = ctx.saved_tensors
        grad_weights = _inner(streams_PSD, grad_PD)
        if grad_PSD is None:
            return grad_weights, weights_PS[:, :, None] * grad_PD[:, None]
        return grad_weights, grad_PSD.addcmul_(weights_PS[:, :, None], grad_PD[:, None])


class _Write(torch.autograd.Function):
    """weights @ (past, y): [P, S, D], where `past` is one vector or S streams and y is the sublayer's output.

    With a hand-written gradient, neither pass needs (past, y) as one tensor, or a product of the streams' size.
    """

    @staticmethod
    def forward(ctx: Any, weights_PSK: Tensor, past: Tensor, y_PD: Tensor) -> Tensor:
        ctx.save_for_backward(weights_PSK, past, y_PD)
        old, new = weights_PSK[..., :-1], weights_PSK[..., -1:]
        streams = torch.bmm(old, past) if past.dim() == 3 else old * past[:, None]
        return streams.addcmul_(new, y_PD[:, None])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (grad_PSD,) = grads
        weights_PSK, past, y_PD = ctx.saved_tensors
        old, new = weights_PSK[..., :-1], weights_PSK[..., -1]
        several = past.dim() == 3
        grad_past = torch.bmm(old.transpose(1, 2), grad_PSD) if several else _weighted(old[..., 0], grad_PSD)
        grad_old = torch.bmm(grad_PSD, past.transpose(1, 2)) if several else _inner(grad_PSD, past)[..., None]
        grad_weights = torch.cat((grad_old, _inner(grad_PSD, y_PD)[..., None]), 2)
        return grad_weights, grad_past, _weighted(new, grad_PSD)


def _inner(streams_PSD: Tensor, y_PD: Tensor) -> Tensor:
    """Inner products of each stream with y: [P, S]."""
    return torch.bmm(y_PD[:, None], streams_PSD.transpose(1, 2)).squeeze(1)


def _weighted(weights_PS: Tensor, streams_PSD: Tensor) -> Tensor:
    """The weighted sum of the streams, [P, D], stream by stream, since a matrix product with one row is slower."""
    streams_SPD = streams_PSD.unbind(1)
    total = streams_SPD[0] * weights_PS[:, :1]
    for stream in range(1, len(streams_SPD)):
        total.addcmul_(streams_SPD[stream], weights_PS[:, stream, None])
    return total
