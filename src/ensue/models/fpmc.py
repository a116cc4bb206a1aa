"""FPMC: factorised personalised Markov chains (Rendle, Freudenthaler & Schmidt-Thieme, WWW 2010).

Suffixes: `B` rows, `P` events of all rows, `Q` asked events, `D` width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.models.base import MODELS, CausalConfig, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.nn.embedding import ItemEmbedding, lookup
from ensue.nn.model import EventEncoder


class FPMCConfig(CausalConfig):
    """Settings of FPMC."""

    name: Literal["fpmc"] = "fpmc"
    hidden_units: int = Field(64, ge=1, description="width of the vectors of users and items, in each of the two parts")
    user_vectors: bool = Field(True, description="a vector for each user; if false, a factorised chain (FMC)")


class UserVectors(ItemEmbedding):
    """Vectors of users 1..U. All start at zero, so a user without training events has no influence."""

    def initialise(self, generator: torch.Generator) -> None:
        """Set all vectors to zero; item vectors are random, so the gradients of user vectors are not zero."""
        nn.init.zeros_(self.weight)

    def forward(self, users: Tensor) -> Tensor:
        """Vectors of user numbers, zero for 0: [...] -> [..., D]."""
        return lookup(self.weight, users) * (users > 0)[..., None]


class FPMC(EventEncoder):
    """score(u, l, i) = <V_u, V_i> + <W_l, W'_i>, with l the newest item: state (V_u, W_l), item vectors (V_i, W'_i).

    A user without training events, or whose number is not given, as in serving, has V_u = 0: only the chain counts.

    Where we differ from the authors' code: baskets have one item, so the mean over a basket is that item; the
    optimiser is Adam, and any loss of the registry may be used (BPR is theirs).
    """

    def __init__(self, config: FPMCConfig, catalogue: Catalogue) -> None:
        num_items, width = catalogue.num_items, config.hidden_units
        super().__init__(num_items, config.maxlen)
        has_users = config.user_vectors and catalogue.num_users > 0
        self.before = ItemEmbedding(num_items, width)
        self.after = ItemEmbedding(num_items, width)
        self.users = UserVectors(catalogue.num_users, width) if has_users else None
        self.liked = ItemEmbedding(num_items, width) if has_users else None

    @property
    def input_table(self) -> ItemEmbedding:
        """The vectors W of the newest items."""
        return self.before

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D], or [Q, 2 D] with users."""
        w_QD: Tensor = self.events(batch, batch.asked_Q)
        if self.users is None:
            return w_QD
        if batch.users_B is None:
            return torch.cat((torch.zeros_like(w_QD), w_QD), 1)
        return torch.cat((self.users(batch.users_B[batch.row_Q]), w_QD), 1)

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Vectors of `items`, [..., D or 2 D], or of the whole catalogue, [N, D or 2 D]."""
        tables = [self.after] if self.liked is None else [self.liked, self.after]
        vectors = [table.catalogue() if items is None else table(items) for table in tables]
        return torch.cat(vectors, -1)


MODELS.register("fpmc")(ModelEntry(FPMCConfig, FPMC))
