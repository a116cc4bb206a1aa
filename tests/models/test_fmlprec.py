"""FMLP-Rec keeps the contract, and its filter is a circular convolution."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import make_layout
from ensue.models.fmlprec import FMLPRecConfig
from ensue.nn.embedding import initialise
from ensue.nn.frequency import LearnedFilter
from ensue.testing import ModelContract


class TestFMLPRec(ModelContract):
    config = FMLPRecConfig(maxlen=16, hidden_units=16, num_blocks=2, dropout_rate=0.1)
    train: ClassVar = ModelContract.train.replace(num_epochs=12, eval_epochs=12)


class TestOddWindow(ModelContract):
    config = FMLPRecConfig(maxlen=13, hidden_units=16, num_blocks=1, dropout_rate=0.1)
    train: ClassVar = ModelContract.train.replace(num_epochs=12, eval_epochs=12)


def naive_filter(x_TD: Tensor, weight_FD: Tensor, maxlen: int) -> Tensor:
    """y_t = sum_s w[(t - s) mod n] x_s, one term at a time, w the signal whose spectrum the weights are."""
    kernel_ND = torch.fft.irfft(weight_FD, n=maxlen, dim=0)
    return torch.stack(
        [sum(kernel_ND[(t - s) % maxlen] * x_TD[s] for s in range(len(x_TD))) for t in range(len(x_TD))]  # type: ignore[misc]
    )


@torch.no_grad()
def test_the_filter_is_a_circular_convolution() -> None:
    lengths = [5, 1, 12, 7]
    for maxlen in (12, 13):
        layer = LearnedFilter(maxlen, 3)
        initialise(layer, 0)
        layer.double()
        layout = make_layout(torch.tensor(lengths).numpy())
        rows = torch.randn(sum(lengths), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).split(
            lengths
        )
        weight_FD = torch.view_as_complex(layer.weight_FD2)
        expected = torch.cat([naive_filter(row_TD, weight_FD, maxlen) for row_TD in rows])
        torch.testing.assert_close(layer(torch.cat(rows), layout), expected)


@torch.no_grad()
def test_zeros_before_or_after_the_events_make_no_difference() -> None:
    """A window padded on the left, as the authors pad, gives the events the same values."""
    layer = LearnedFilter(10, 4)
    initialise(layer, 0)
    x_TD = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    right = layer(x_TD, SequenceBatch.from_lists([[1] * 6]).layout)
    padded = torch.cat((torch.zeros(4, 4), x_TD))
    left = layer(padded, SequenceBatch.from_lists([[1] * 10]).layout)[4:]
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)
