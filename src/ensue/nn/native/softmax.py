"""Full softmax cross-entropy in the native library.

Suffixes: `P` positions, `N` items, `D` width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ensue.nn.native.library import at, compute, load

# Logits of a chunk, and limits of its rows: at least as many as make the products fast.
CELLS, FEWEST, MOST = 2_000_000, 32, 128


def cross_entropy_pass(
    h_PD: Tensor, target_P: Tensor, items_ND: Tensor, upstream_P: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss [P] and, with `upstream_P`, the gradients [P, D] and [N, D]; tensors must be float32 on the CPU.

    Raises:
        ValueError: the shapes do not fit, or a target is no row of the items.
    """
    count, width = h_PD.shape
    if items_ND.dim() != 2 or items_ND.shape[1] != width or target_P.shape != (count,) or target_P.dtype != torch.int64:
        raise ValueError(f"states, targets and items do not fit: {h_PD.shape}, {target_P.shape}, {items_ND.shape}")
    if count == 0 or not (int(target_P.min()) >= 0 and int(target_P.max()) < len(items_ND)):
        raise ValueError(f"targets must be one or more rows in 0..{len(items_ND) - 1}")
    h_PD, target_P, items_ND = h_PD.contiguous(), target_P.contiguous(), items_ND.contiguous()
    loss_P = h_PD.new_empty(count)
    grad_h = grad_items = None
    if upstream_P is not None:
        upstream_P, grad_h, grad_items = upstream_P.contiguous(), torch.empty_like(h_PD), torch.empty_like(items_ND)
    chunk = min(max(FEWEST, CELLS // len(items_ND)), MOST)
    tensors = (h_PD, items_ND, target_P, upstream_P, loss_P, grad_h, grad_items)
    load(compute().name).ensue_cross_entropy(
        *(torch.get_num_threads(), count, width, len(items_ND), chunk),
        *(None if tensor is None else at(tensor) for tensor in tensors),
    )
    return loss_P, grad_h, grad_items
