"""Rotary positions: queries and keys rotated by their age, so that attention depends on the distance of two events.

Source: Su et al., RoFormer, Neurocomputing 2024 (arXiv 2104.09864), eq. 34, with the two halves of a head as the pairs.

Suffixes: `P` events, `A` ages, `F` pairs of a head, `E` columns of all heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BASE = 10_000.0


class Rotary(nn.Module):
    """Rotate coordinates i and i + d/2 of every query and key by the angle age * BASE^(-2 i / d).

    Ages count from the newest event of a row; an inner product depends only on the difference of two ages.

    Args:
        maxlen: ages are 0 .. maxlen - 1.
        head_width: d, even.
    """

    cos_AF: Tensor
    sin_AF: Tensor

    def __init__(self, maxlen: int, head_width: int) -> None:
        super().__init__()
        rate = BASE ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angle_AF = torch.arange(maxlen, dtype=torch.float64)[:, None] * rate
        self.register_buffer("cos_AF", angle_AF.cos().float(), persistent=False)
        self.register_buffer("sin_AF", angle_AF.sin().float(), persistent=False)

    def forward(self, x_PE: Tensor, age_P: Tensor) -> Tensor:
        """Rotate heads side by side, [P, H d] (queries, or queries and keys), each by the age of its event."""
        half = self.cos_AF.shape[1]
        cos, sin = (table[age_P].to(x_PE.dtype)[:, None] for table in (self.cos_AF, self.sin_AF))
        first, second = x_PE.reshape(len(age_P), -1, 2, half).unbind(2)
        return torch.stack((first * cos - second * sin, second * cos + first * sin), 2).flatten(1)
