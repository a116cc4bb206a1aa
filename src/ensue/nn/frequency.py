"""Layers that mix the events of a row by frequency instead of by attention.

A row is a signal over time: its events at the places 0..T - 1 of a window of `maxlen` places, followed by zeros. A
circular shift of the signal only shifts the output of these layers, so the result is the same as with the zeros before
the events, as in implementations with left padding. Every output depends on all events of the row, even later ones.

Suffixes: `P` events of all rows, `G` rows of a group, `T` events of its longest row, `F` frequencies, `D` width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ensue.batches.layout import Layout


class LowPass(nn.Module):
    """Keep the lowest frequencies of each channel: Fourier transform, cut-off, inverse transform.

    This is a circular convolution with a fixed signal, so for a row of T events it is a product with a T x T matrix for
    any `maxlen`. `naive_low_pass` is the plain form.

    Args:
        maxlen: number of places in the window.
        frequencies: number of frequencies to keep, from the lowest (the mean of the window) upwards.
    """

    kernel: Tensor

    def __init__(self, maxlen: int, frequencies: int) -> None:
        super().__init__()
        # In numpy: on the meta device, where models are measured, a cosine would load torch's compiler.
        lag = np.arange(maxlen)
        kernel = np.full(maxlen, 1 / maxlen)
        for number in range(1, min(frequencies, maxlen // 2 + 1)):
            # A frequency also represents its mirror image, except for 0 and the highest one of an even window.
            twice = 1 if 2 * number == maxlen else 2
            kernel += twice / maxlen * np.cos(2 * np.pi * number * lag / maxlen)
        self.register_buffer("kernel", torch.tensor(kernel, dtype=torch.float32), persistent=False)

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """[P, D] to [P, D]."""
        return layout.unpad([self._matrix(x_GTD) @ x_GTD for x_GTD in layout.pad(x_PD)])

    def _matrix(self, x_GTD: Tensor) -> Tensor:
        t = torch.arange(x_GTD.shape[1], device=x_GTD.device)
        return self.kernel[(t[:, None] - t).abs()].to(x_GTD.dtype)


def naive_low_pass(x_TD: Tensor, maxlen: int, frequencies: int) -> Tensor:
    """The plain form of `LowPass` for one row."""
    spectrum_FD = torch.fft.rfft(x_TD, n=maxlen, dim=0)
    spectrum_FD[frequencies:] = 0
    low_TD: Tensor = torch.fft.irfft(spectrum_FD, n=maxlen, dim=0)[: len(x_TD)]
    return low_TD


class FrequencyRescaler(nn.Module):
    """F(x) = LFC(x) + beta^2 HFC(x): low frequencies unchanged, the rest times a learned factor per channel.

    Source: BSARec (Shin et al., AAAI 2024), eq. 9.
    """

    def __init__(self, maxlen: int, hidden_units: int, frequencies: int) -> None:
        super().__init__()
        self.low_pass = LowPass(maxlen, frequencies)
        self.beta = nn.Parameter(torch.empty(hidden_units))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw beta from the standard normal distribution, as the authors do."""
        self.beta.normal_(generator=generator)

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """[P, D] to [P, D]."""
        low_PD: Tensor = self.low_pass(x_PD, layout)
        return low_PD + self.beta.square() * (x_PD - low_PD)


class LearnedFilter(nn.Module):
    """Multiply every frequency of every channel by a learned complex number.

    Source: FMLP-Rec (Zhou et al., WWW 2022), eq. 4 to 6.
    """

    def __init__(self, maxlen: int, hidden_units: int) -> None:
        super().__init__()
        self.maxlen = maxlen
        # Real and imaginary parts are separate, since checkpoints contain real numbers.
        self.weight_FD2 = nn.Parameter(torch.empty(maxlen // 2 + 1, hidden_units, 2))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights from a normal distribution with standard deviation 0.02, as the authors do."""
        self.weight_FD2.normal_(0, 0.02, generator=generator)

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """[P, D] to [P, D], in float32 under mixed precision too: Fourier transforms do not support bfloat16."""
        weight_FD = torch.view_as_complex(self.weight_FD2)
        wide_PD = x_PD.to(torch.promote_types(x_PD.dtype, torch.float32))
        rectangles = []
        for x_GTD in layout.pad(wide_PD):
            spectrum_GFD = torch.fft.rfft(x_GTD, n=self.maxlen, dim=1, norm="ortho")
            y_GTD = torch.fft.irfft(spectrum_GFD * weight_FD, n=self.maxlen, dim=1, norm="ortho")
            rectangles.append(y_GTD[:, : x_GTD.shape[1]])
        return layout.unpad(rectangles).to(x_PD.dtype)
