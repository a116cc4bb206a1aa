"""Rows of tables in the native library: products with candidates, and sums of gradients by row.

Suffixes: `P` positions, `C` candidates, `D` width, `R` rows of a table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ensue.nn.native.library import at, compute, load


def is_native(*tensors: Tensor) -> bool:
    """Whether the library can compute with these tensors: float32 on the CPU, outside mixed precision and export."""
    return (
        compute().is_native
        and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
    )


def candidates(h_PD: Tensor, vectors_PCD: Tensor) -> Tensor:
    """Products of each state with the vectors of its own candidates, [P, C]; both must be `is_native`."""
    if h_PD.dim() != 2 or vectors_PCD.dim() != 3 or vectors_PCD.shape[::2] != h_PD.shape:
        raise ValueError(f"shapes {list(h_PD.shape)} and {list(vectors_PCD.shape)} must be [P, D] and [P, C, D]")
    logits_PC: Tensor = _Candidates.apply(h_PD.contiguous(), vectors_PCD.contiguous())  # type: ignore[no-untyped-call]
    return logits_PC


class _Candidates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_PD: Tensor, vectors_PCD: Tensor) -> Tensor:
        ctx.save_for_backward(h_PD, vectors_PCD)
        ctx.library = load(compute().name)
        logits_PC = h_PD.new_empty(vectors_PCD.shape[:2])
        sizes = (torch.get_num_threads(), *vectors_PCD.shape)
        ctx.library.ensue_candidates(*sizes, *map(at, (h_PD, vectors_PCD, logits_PC)))
        return logits_PC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        h_PD, vectors_PCD = ctx.saved_tensors
        grad_h, grad_vectors = torch.empty_like(h_PD), torch.empty_like(vectors_PCD)
        sizes = (torch.get_num_threads(), *vectors_PCD.shape)
        tensors = (h_PD, vectors_PCD, grads[0].contiguous(), grad_h, grad_vectors)
        ctx.library.ensue_candidates_backward(*sizes, *map(at, tensors))
        return grad_h, grad_vectors


def add_rows(table_RD: Tensor, rows_P: Tensor, values_PD: Tensor) -> None:
    """table[rows[p]] += values[p] in ascending order, in place; the same bits for any number of threads.

    Raises:
        ValueError: a row is not in the table, or the shapes do not fit.
    """
    if rows_P.dtype != torch.int64 or values_PD.shape != (len(rows_P), *table_RD.shape[1:]):
        raise ValueError(f"values of shape {list(values_PD.shape)} do not fit {len(rows_P)} rows of {rows_P.dtype}")
    if len(rows_P) and not (int(rows_P.min()) >= 0 and int(rows_P.max()) < len(table_RD)):
        raise ValueError(f"rows must be in 0..{len(table_RD) - 1}")
    rows_P, values_PD = rows_P.contiguous(), values_PD.contiguous()
    width = table_RD[0].numel()
    sizes = (torch.get_num_threads(), len(table_RD), width, len(rows_P))
    load(compute().name).ensue_add_rows(*sizes, *map(at, (rows_P, values_PD, table_RD)))
