"""Vectors of items from their content: text, pictures, or any vectors that the store has of its items.

Suffixes: `R` rows of a table of items, `N` items, `D` width of the model, `C` width of a content vector, `F` kinds of
content vectors, `P` items to look up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ensue.config import Config
from ensue.nn.embedding import ItemEmbedding, lookup
from ensue.nn.ops.dropout import keep_mask, random_bytes, threshold

# How a row of a table takes its vector: as an item that training had, as one it had not, or as no item (like [MASK]).
TRAINED, COLD, SPECIAL = 0, 1, 2


class ItemVectorConfig(Config):
    """How a model uses the vectors that a store has of its items."""

    item_vectors: Literal["none", "frozen", "tuned"] = Field(
        "none", description="vectors of the items' content (prepare --item-vectors, --item-text): fixed, or trained too"
    )
    vector_names: tuple[str, ...] = Field((), description="item vectors to use, such as text,picture; by default all")
    vector_mix: Literal["sum", "dual", "only"] = Field(
        "sum", description="projected content: added to the vector of the id, in place of it for some items, or always"
    )
    vector_rate: float = Field(
        0.2, ge=0, lt=1, description="training: probability that an item has its projected content alone"
    )
    vector_fusion: Literal["sum", "gate"] = Field(
        "sum", description="several item vectors: projections are summed, or weighed by a learned softmax"
    )

    @model_validator(mode="after")
    def _check_vectors(self) -> Self:
        if self.vector_names and self.item_vectors == "none":
            raise ValueError("vector_names needs item_vectors = 'frozen' or 'tuned' (got 'none')")
        return self


class ItemContent(nn.Module):
    """x_i = E_i + c_i (sum) or c_i for some items (dual), with c_i = sum_f W_f v_fi of the content vectors v_fi.

    Content vectors are centred over the items and scaled to unit length. An item without one has a learned default in
    place of W_f v_fi. In training an item has c_i alone with probability `vector_rate`, drawn anew for each lookup. An
    item without training events has c_i alone, and c_i gets no gradient from it: as a candidate that never is the
    target, it would otherwise teach the projection to make such items unlikely. Source: DenseRec's dual path (2025).

    Args:
        config: the settings.
        vectors: the content vectors, each float32 [N, C], zero for items without one.
        table: the vectors of ids that the content joins.
    """

    def __init__(self, config: ItemVectorConfig, vectors: Sequence[np.ndarray], table: ItemEmbedding) -> None:
        super().__init__()
        self.given, self.num_items = tuple(vectors), table.num_items
        self.mix, self.drop_below = config.vector_mix, threshold(config.vector_rate)
        rows, width = table.weight.shape
        self.is_tuned = config.item_vectors == "tuned"
        self.projections, self.defaults = nn.ModuleList(), nn.ParameterList()
        for number, vectors_NC in enumerate(self.given):
            content_RC = torch.empty(rows, vectors_NC.shape[1])
            if self.is_tuned:
                self.register_parameter(f"content_{number}", nn.Parameter(content_RC))
            else:
                self.register_buffer(f"content_{number}", content_RC)
            self.register_buffer(f"known_{number}", torch.zeros(rows, 1))
            self.projections.append(nn.Linear(vectors_NC.shape[1], width, bias=False))
            self.defaults.append(nn.Parameter(torch.empty(1, width)))
        is_gated = config.vector_fusion == "gate" and len(self.given) > 1
        self.gate = nn.Linear(width, 1, bias=False) if is_gated else None
        self.register_buffer("kind_R", torch.zeros(rows, dtype=torch.int64))
        self.kind_R: Tensor

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Set the content vectors; draw projections with which their products are as large as initial item vectors."""
        items = slice(1, self.num_items + 1)
        self.kind_R.fill_(SPECIAL)
        self.kind_R[items] = TRAINED
        for number, vectors_NC in enumerate(self.given):
            is_known_N = (vectors_NC != 0).any(1)
            content_RC, projection = self._rows(number), self.projections[number]
            assert isinstance(projection, nn.Linear)
            content_RC.zero_()
            content_RC[items] = torch.from_numpy(_centred(vectors_NC, is_known_N))
            self.get_buffer(f"known_{number}")[items, 0] = torch.from_numpy(is_known_N.astype(np.float32))
            deviation = (2 / (len(self.kind_R) + len(projection.weight))) ** 0.5
            projection.weight.normal_(0, deviation, generator=generator)
            self.defaults[number].normal_(0, deviation, generator=generator)

    def study(self, counts_N: np.ndarray) -> None:
        """Note which items have no training events.

        Args:
            counts_N: training events of each item.
        """
        self.kind_R[1 : self.num_items + 1] = torch.from_numpy(np.where(counts_N > 0, TRAINED, COLD)).to(self.kind_R)

    def forward(self, ids: Tensor, items: Tensor | None = None) -> Tensor:
        """The items' vectors from those of their ids, [..., D]; without `items` those of the catalogue, [N, D]."""
        whole = slice(1, self.num_items + 1)
        if items is None:
            kind, content = self.kind_R[whole], self._of_all()[whole]
        else:
            # Projecting each item once is cheaper if more items are looked up than there are.
            kind = self.kind_R[items]
            content = self._of_all()[items] if items.numel() >= self.num_items else self._of(items)
        is_cold, is_special = (kind == COLD)[..., None], (kind == SPECIAL)[..., None]
        content = torch.where(is_cold, content.detach(), content)
        if self.mix == "only":
            return torch.where(is_special, ids, content)
        keeps_id = ~is_cold
        if self.training and self.drop_below:
            kept = keep_mask(random_bytes(kind.shape, kind.device), self.drop_below).bool()[..., None]
            keeps_id = keeps_id & (kept | is_special)
        mixed = ids + content if self.mix == "sum" else ids
        return torch.where(is_special, ids, torch.where(keeps_id, mixed, content))

    def _of(self, items: Tensor) -> Tensor:
        """The content of some items, [..., D]."""
        contents = [lookup(self._rows(number), items) for number in range(len(self.given))]
        return self._joined(contents, [self.get_buffer(f"known_{number}")[items] for number in range(len(contents))])

    def _of_all(self) -> Tensor:
        """The content of all rows, [R, D]."""
        numbers = range(len(self.given))
        return self._joined(
            [self._rows(number) for number in numbers], [self.get_buffer(f"known_{number}") for number in numbers]
        )

    def _rows(self, number: int) -> Tensor:
        name = f"content_{number}"
        return self.get_parameter(name) if self.is_tuned else self.get_buffer(name)

    def _joined(self, contents: list[Tensor], known: list[Tensor]) -> Tensor:
        """The sum of the projections or defaults, or with a gate their weighted mean: [..., D]."""
        parts = [
            torch.where(is_known.bool(), projection(content), default)
            for content, is_known, projection, default in zip(
                contents, known, self.projections, self.defaults, strict=True
            )
        ]
        if self.gate is None:
            return sum(parts[1:], parts[0])
        parts_FD = torch.stack(parts, -2)
        joined: Tensor = (self.gate(torch.tanh(parts_FD)).softmax(-2) * parts_FD).sum(-2)
        return joined


def _centred(vectors_NC: np.ndarray, is_known_N: np.ndarray) -> np.ndarray:
    """The vectors minus their mean, divided by their lengths, float32; zero for items without one."""
    if not is_known_N.any():
        return np.zeros(vectors_NC.shape, np.float32)
    mean_C = vectors_NC[is_known_N].mean(0, dtype=np.float64)
    moved_NC = (vectors_NC - mean_C) * is_known_N[:, None]
    length_N1 = np.linalg.norm(moved_NC, axis=1, keepdims=True)
    centred_NC: np.ndarray = (moved_NC / np.maximum(length_N1, 1e-12)).astype(np.float32)
    return centred_NC
