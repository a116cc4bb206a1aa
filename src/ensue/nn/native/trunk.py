"""A transformer trunk in the native library: states of all events, with their gradient, and those of newest events.

Suffixes: `B` rows, `P` events of all rows, `D` width, `W` parameters one after another, `X` places in memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_float, c_int32, c_uint64
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ensue.nn.native.library import at, load

NORMS = {"pre": 0, "post": 1, "original": 2}
ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2}


class Plan(ctypes.Structure):
    """The settings of a call; the struct `Plan` of plan.h.

    Fields: the width, heads, blocks, the places of norms and the activation by number, whether attention is causal,
    threads, the byte below which dropout drops (0: off), the epsilon of norms, and the seed of dropout.
    """

    _fields_ = [
        *((name, c_int32) for name in ("width", "heads", "blocks", "norm", "activation", "causal", "threads")),
        ("drop_below", c_int32),
        ("epsilon", c_float),
        ("seed", c_uint64),
    ]


def encode(name: str, plan: Plan, parameters: Sequence[Tensor], x_PD: Tensor, last_B: Tensor) -> Tensor:
    """States of all events, [P, D], with a gradient.

    Args:
        name: the instruction set.
        plan: the trunk's settings.
        parameters: in the order of `Places` in plan.h.
        x_PD: inputs of the trunk, float32 on the CPU.
        last_B: event number of each row's newest event, int64.

    Raises:
        ValueError: the arguments do not fit together.
    """
    offsets = _offsets(plan, x_PD, last_B)
    flat_W = torch.cat([parameter.reshape(-1) for parameter in parameters])
    h_PD: Tensor = _Encode.apply(x_PD.contiguous(), _checked(plan, flat_W), name, plan, offsets)  # type: ignore[no-untyped-call]
    return h_PD


def newest(name: str, plan: Plan, parameters: Sequence[Tensor], x_PD: Tensor, last_B: Tensor) -> Tensor:
    """States of each row's newest event, [B, D], without a gradient and without dropout; arguments as of `encode`."""
    library, offsets = load(name), _offsets(plan, x_PD, last_B)
    packed_X = packed(library, plan, torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
    x_PD = x_PD.detach().contiguous()
    h_BD = x_PD.new_empty(len(last_B), x_PD.shape[1])
    library.ensue_newest(byref(plan), at(packed_X), offsets.ctypes.data, len(last_B), at(x_PD), at(h_BD))
    return h_BD


def packed(library: ctypes.CDLL, plan: Plan, flat_W: Tensor) -> Tensor:
    """The parameters as the library reads them."""
    flat_W = _checked(plan, flat_W)
    packed_X = torch.zeros(library.ensue_packed_floats(byref(plan)))
    library.ensue_pack(byref(plan), at(flat_W), at(packed_X))
    return packed_X


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_PD: Tensor, flat_W: Tensor, name: str, plan: Plan, offsets: np.ndarray) -> Tensor:
        library, rows = load(name), len(offsets) - 1
        packed_X = packed(library, plan, flat_W)
        h_PD = torch.empty_like(x_PD)
        kept = None
        if any(ctx.needs_input_grad[:2]):
            kept = _Kept(len(x_PD) * library.ensue_kept_floats(byref(plan)))
        library.ensue_encode(
            byref(plan), at(packed_X), offsets.ctypes.data, rows, at(x_PD), at(h_PD), kept and at(kept.values)
        )
        ctx.library, ctx.plan, ctx.packed_X, ctx.offsets, ctx.kept = library, plan, packed_X, offsets, kept
        ctx.count = len(flat_W)
        return h_PD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_h = grads[0].contiguous()
        grad_x, grad_W = torch.empty_like(grad_h), grad_h.new_empty(ctx.count)
        ctx.library.ensue_encode_backward(
            byref(ctx.plan),
            at(ctx.packed_X),
            ctx.offsets.ctypes.data,
            len(ctx.offsets) - 1,
            *map(at, (grad_h, ctx.kept.values, grad_x, grad_W)),
        )
        return grad_x, grad_W, None, None, None


class _Kept:
    """Memory for what a forward pass keeps. The largest is kept for the next step, which then has no page faults."""

    free: Tensor | None = None

    def __init__(self, floats: int) -> None:
        values, _Kept.free = _Kept.free, None
        if values is None or len(values) < floats:
            # The next batch may be a little larger; pages that are never touched take no memory.
            values = torch.empty(floats + floats // 4)
        self.values = values

    def __del__(self) -> None:
        if _Kept.free is None or len(_Kept.free) < len(self.values):
            _Kept.free = self.values


def _offsets(plan: Plan, x_PD: Tensor, last_B: Tensor) -> np.ndarray:
    """The first event of each row, and the number of events, int64 [B + 1]; the inputs are checked too."""
    if x_PD.dim() != 2 or x_PD.shape[1] != plan.width or x_PD.dtype != torch.float32 or x_PD.device.type != "cpu":
        raise ValueError(
            f"x_PD must be float32 of {plan.width} columns on the CPU (got {x_PD.dtype} of shape {list(x_PD.shape)})"
        )
    offsets = np.zeros(len(last_B) + 1, dtype=np.int64)
    np.add(last_B.numpy(), 1, out=offsets[1:])
    if not (np.diff(offsets) > 0).all() or offsets[-1] != len(x_PD):
        raise ValueError(f"last_B must ascend from row to row and end at {len(x_PD) - 1} (got {last_B.tolist()})")
    return offsets


def _checked(plan: Plan, flat_W: Tensor) -> Tensor:
    width, blocks = plan.width, plan.blocks
    expected = blocks * (6 * width * width + 10 * width) + 2 * width
    if len(flat_W) != expected or flat_W.dtype != torch.float32 or flat_W.device.type != "cpu":
        raise ValueError(f"parameters must be {expected} float32 on the CPU (got {len(flat_W)} of {flat_W.dtype})")
    return flat_W
