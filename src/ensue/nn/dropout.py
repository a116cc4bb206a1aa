"""The dropout layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ensue.nn.ops.dropout import ByteDropout, threshold


class Dropout(nn.Module):
    """Zero each value with probability `rate` in training and scale the others by 1 / (1 - rate).

    Source: Srivastava et al., JMLR 2014.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        drop_below = threshold(self.rate)
        if not self.training or drop_below == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        dropped: Tensor = ByteDropout.apply(x, drop_below)  # type: ignore[no-untyped-call]
        return dropped
