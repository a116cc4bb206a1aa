"""FMLP-Rec: learned frequency filters instead of attention (Zhou et al., WWW 2022).

Suffixes: `P` events of all rows, `Q` asked events, `D` width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ensue.batches.layout import Layout
from ensue.models.base import MODELS, ModelEntry
from ensue.models.bsarec import AddAndNorm, FrequencyConfig, FrequencyEncoder
from ensue.models.catalogue import Catalogue
from ensue.nn.frequency import LearnedFilter


class FMLPRecConfig(FrequencyConfig):
    """Settings of FMLP-Rec."""

    name: Literal["fmlprec"] = "fmlprec"


class Filter(nn.Module):
    """The learned filter, at the asked events."""

    def __init__(self, config: FMLPRecConfig) -> None:
        super().__init__()
        self.filter = LearnedFilter(config.maxlen, config.hidden_units)

    def forward(self, x_PD: Tensor, layout: Layout) -> Tensor:
        """The asked events, [Q, D], from all events, [P, D]."""
        return layout.choose(self.filter(x_PD, layout))


class FMLPRec(FrequencyEncoder):
    """Blocks whose mixing layer multiplies every frequency of every channel by a learned complex number.

    Difference from the authors' code: any objective can be used (theirs ranks the target against one negative).
    """

    def __init__(self, config: FMLPRecConfig, catalogue: Catalogue) -> None:
        width, rate = config.hidden_units, config.dropout_rate
        super().__init__(config, catalogue, lambda: AddAndNorm(Filter(config), width, rate))


MODELS.register("fmlprec")(ModelEntry(FMLPRecConfig, FMLPRec))
