"""TIGER: generative retrieval by semantic ids (Rajput et al., NeurIPS 2023).

Suffixes: `P` events of all rows, `Q` asked events, `X` pairs of an asked event and an item, `N` items, `L` codes of an
item, `K` codes of a level, `E` nodes of the trie at one depth, `F` those above, `W` kept nodes, `M` children of one
node, `D` width, `C` candidates, `V` width of a vector of an item.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.data.arrays import IntArray
from ensue.data.cooccurrence import cooccurrence_vectors
from ensue.data.semantic_ids import distinct_codes, nearest_codes, numbered_codes, residual_kmeans
from ensue.data.split import Sequences
from ensue.errors import ArtefactError, ConfigError, DataError
from ensue.models.base import MODELS, ModelConfig, ModelEntry
from ensue.models.catalogue import Catalogue
from ensue.nn.code_trie import CodeDecoder, CodeTrie, Depth, log_shares
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import PositionEmbedding, lookup
from ensue.nn.model import Model, columns_of
from ensue.nn.trunk import Trunk, TrunkConfig


class TIGERConfig(TrunkConfig, ModelConfig):
    """Settings of TIGER; the levels and codes are the paper's."""

    name: Literal["tiger"] = "tiger"
    code_levels: int = Field(3, ge=1, le=8, description="codes of an item, without the one that separates equal ones")
    code_size: int = Field(256, ge=2, le=65_536, description="different codes of a level")
    ids_from: Literal["log", "content", "both"] = Field(
        "log", description="vectors that give the codes: of items near each other in the log, of the content, or both"
    )
    id_vectors: tuple[str, ...] = Field(
        (), description="content and both: the item vectors to use, such as text; by default all"
    )
    id_width: int = Field(64, ge=1, description="log and both: width of the vectors of the log")

    @model_validator(mode="after")
    def _check_vectors(self) -> Self:
        if self.id_vectors and self.ids_from == "log":
            raise ValueError("id_vectors needs ids_from = 'content' or 'both' (got 'log')")
        return self


class TIGER(Model):
    """log P(i | h) = sum_l log softmax(d_l . C_l)[c_l] over the valid codes c_l that follow c_1 .. c_{l-1} of item i.

    An event is the sum of the vectors of its item's codes; the trunk is SASRec's. Scores are log-probabilities, which
    sum to one over the catalogue.

    Where we differ from the paper: a causal trunk over events, each one vector, and a decoder that is linear in the
    state, where theirs are an encoder and a decoder of 4 layers over single codes; codes by residual k-means instead of
    an RQ-VAE; probabilities only over valid ids; no vector of the user.
    """

    log_probabilities = True

    def __init__(self, config: TIGERConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen)
        levels, size, width = config.code_levels, config.code_size, config.hidden_units
        if size ** (levels + 1) < self.num_items:
            raise ConfigError(
                f"code_size {size} and code_levels {levels} give {size ** (levels + 1):,} ids, fewer than "
                f"{self.num_items:,} items: raise code_size"
            )
        self.config = config
        self.content = _content(config, catalogue)
        content_width = sum(each.shape[1] for each in self.content)
        vector_width = content_width + (config.id_width if config.ids_from != "content" else 0)
        self.register_buffer("codes_NL", torch.from_numpy(numbered_codes(self.num_items, levels, size)))
        self.register_buffer("centres", torch.zeros(levels, size, vector_width))
        self.codes_NL: Tensor
        self.centres: Tensor
        self.codes = nn.ParameterList(nn.Parameter(torch.empty(size, width)) for _ in range(levels + 1))
        self.prefixes = nn.ParameterList(nn.Parameter(torch.empty(size, width)) for _ in range(levels))
        self.root = nn.Parameter(torch.empty(1, width))
        self.positions = PositionEmbedding(config.maxlen, width, "learned")
        self.dropout = Dropout(config.dropout_rate)
        self.trunk = Trunk(config, config.maxlen)
        self.decoders = nn.ModuleList(CodeDecoder(width) for _ in range(levels + 1))
        self._trie: CodeTrie | None = None

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load the weights and the codes, from which the trie follows.

        Raises:
            ArtefactError: a code is out of range, or two items have the same codes.
        """
        codes_NL = state_dict.get("codes_NL")
        if codes_NL is not None and codes_NL.shape == self.codes_NL.shape:
            is_valid = int(codes_NL.min()) >= 0 and int(codes_NL.max()) < self.config.code_size
            if not is_valid or len(codes_NL.unique(dim=0)) < self.num_items:
                raise ArtefactError("the codes of the items must be different and in range: the file was altered")
        self._trie = None
        return super().load_state_dict(state_dict, *args, **kwargs)

    def study(self, train: Sequences) -> None:
        """Give every item its codes, from the vectors of the log or of the content."""
        super().study(train)
        parts = [_unit(each) for each in self.content]
        if self.config.ids_from != "content":
            parts.insert(0, _unit(cooccurrence_vectors(train, self.config.id_width)))
        vectors_NV = np.concatenate(parts, 1)
        centres = residual_kmeans(vectors_NV, self.config.code_levels, self.config.code_size)
        self.centres.copy_(torch.from_numpy(centres))
        codes = distinct_codes(nearest_codes(vectors_NV, centres), self.config.code_size)
        self.codes_NL.copy_(torch.from_numpy(codes))
        self._trie = None

    def codes_of(self, content_XV: np.ndarray) -> IntArray:
        """The codes of new items by their content, without the last one: the nearest centres, int64 [X, code_levels].

        Args:
            content_XV: their content vectors, those of several names side by side in the order of the names.

        Raises:
            DataError: the codes come from the log alone, or the width is another one.
        """
        if self.config.ids_from == "log":
            raise DataError("the codes of this model come from the log alone: train with ids_from = content or both")
        widths = [each.shape[1] for each in self.content]
        if content_XV.ndim != 2 or content_XV.shape[1] != sum(widths):
            raise DataError(f"the content vectors must have the shape [X, {sum(widths)}] (got {content_XV.shape})")
        parts = [_unit(each) for each in np.split(content_XV, np.cumsum(widths)[:-1], 1)]
        unknown = self.centres.shape[2] - sum(widths)
        log_XV = np.full((len(content_XV), unknown), np.nan, np.float32)
        return nearest_codes(np.concatenate((log_XV, *parts), 1), self.centres.cpu().numpy())

    @property
    def trie(self) -> CodeTrie:
        """The trie of the items' codes."""
        if self._trie is None or self._trie.item_E.device != self.codes_NL.device:
            self._trie = CodeTrie(self.codes_NL, self.config.code_size)
        return self._trie

    def states(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D]."""
        x_PD = _sum_of(self.codes, self.codes_NL[batch.items_P - 1])
        h_QD: Tensor = self.trunk(self.dropout(self.positions(x_PD, batch.layout.age_P)), batch.layout)
        return h_QD

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        """Log-probabilities of the candidates; see `Model.logits`."""
        h_QD = self.states(batch)
        # A candidate's own path costs a product with all codes of each level, the whole trie one for each node.
        few = 0 if items_QC is None else items_QC.shape[1] * self.codes_NL.shape[1] * self.config.code_size
        if items_QC is None or shared_K is not None or few > self.trie.nodes:
            return columns_of(self._of_all(h_QD), items_QC, shared_K)
        row_X = torch.arange(len(h_QD), device=h_QD.device).repeat_interleave(items_QC.shape[1])
        return self._of_paths(h_QD[row_X], items_QC.flatten()).view(items_QC.shape)

    def _of_paths(self, h_XD: Tensor, item_X: Tensor) -> Tensor:
        """The log-probabilities of pairs of a state and an item, code by code: [X]."""
        codes_XL = self.codes_NL[item_X - 1]
        above_X = torch.zeros_like(item_X)
        total_X = h_XD.new_zeros(len(item_X), dtype=torch.float32)
        for level, depth in enumerate(self.trie.depths):
            prefix_XD = self._prefix(codes_XL[:, :level])
            logits_XK = self.decoders[level](h_XD, prefix_XD, self.codes[level]).float()
            logits_XK = logits_XK.masked_fill(~depth.allowed_FK[above_X], torch.finfo(torch.float32).min)
            total_X = total_X + logits_XK.log_softmax(1).gather(1, codes_XL[:, level, None])[:, 0]
            above_X = depth.node_N[item_X - 1]
        return total_X

    def _of_all(self, h_QD: Tensor) -> Tensor:
        """The log-probabilities of all items, [Q, N]: depth by depth of the trie."""
        total_EQ = h_QD.new_zeros(1, len(h_QD), dtype=torch.float32)
        for level, depth in enumerate(self.trie.depths):
            total_EQ = total_EQ[depth.parent_E] + log_shares(self._of_nodes(h_QD, level, depth.codes_EL), depth)
        return total_EQ[self.trie.depths[-1].node_N].T.contiguous()

    def _of_nodes(self, h_QD: Tensor, level: int, codes_EL: Tensor) -> Tensor:
        """The logits of nodes of one depth, by their codes from the root: [E, Q]."""
        decoder = self.decoders[level]
        assert isinstance(decoder, CodeDecoder)
        code_ED = lookup(self.codes[level], codes_EL[:, level])
        return decoder.of_nodes(h_QD, self._prefix(codes_EL[:, :level]), code_ED).float()

    def _prefix(self, codes_XL: Tensor) -> Tensor:
        """The vectors of prefixes, [X, D]."""
        return self.root + _sum_of(self.prefixes, codes_XL)

    def beam(self, batch: SequenceBatch, width: int) -> tuple[Tensor, Tensor]:
        """The items of the `width` most likely paths, code by code; exact if no depth has more nodes than `width`.

        Returns:
            log-probabilities [Q, W], descending, -inf if there are fewer items, and item numbers [Q, W].
        """
        h_QD = self.states(batch)
        node_QW = torch.zeros(len(h_QD), 1, dtype=torch.int64, device=h_QD.device)
        total_QW = h_QD.new_zeros(len(h_QD), 1, dtype=torch.float32)
        for level, depth in enumerate(self.trie.depths):
            child_QE, total_QE = self._children(h_QD, level, depth, node_QW, total_QW)
            total_QW, place_QW = total_QE.topk(min(width, total_QE.shape[1]), dim=1)
            node_QW = child_QE.gather(1, place_QW)
        return total_QW, self.trie.item_E[node_QW]

    def _children(
        self, h_QD: Tensor, level: int, depth: Depth, node_QW: Tensor, total_QW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The children of the kept nodes and their log-probabilities, both [Q, W M]; -inf where a node has fewer."""
        first_QW, size_QW = depth.first_F1[node_QW], depth.first_F1[node_QW + 1] - depth.first_F1[node_QW]
        most = int(size_QW.max())
        child_QWM = first_QW[..., None] + torch.arange(most, device=h_QD.device)
        is_child_QWM = child_QWM < (first_QW + size_QW)[..., None]
        child_QWM = torch.where(is_child_QWM, child_QWM, first_QW[..., None])
        prefix_QWD = self._prefix(depth.codes_EL[first_QW.flatten(), :level])
        row_X = torch.arange(len(h_QD), device=h_QD.device).repeat_interleave(node_QW.shape[1])
        logits_XK = self.decoders[level](h_QD[row_X], prefix_QWD, self.codes[level]).float()
        code_XM = depth.codes_EL[:, level][child_QWM].flatten(0, 1)
        logits_QWM = logits_XK.gather(1, code_XM).view(child_QWM.shape)
        shares_QWM = logits_QWM.masked_fill(~is_child_QWM, float("-inf")).log_softmax(-1)
        return child_QWM.flatten(1), (total_QW[..., None] + shares_QWM).flatten(1)


def _sum_of(tables: nn.ParameterList, codes_XL: Tensor) -> Tensor | Any:
    """The sum of each code's vector in the table of its level, [X, D]; zero without codes."""
    vectors = [lookup(tables[level], codes_XL[:, level]) for level in range(codes_XL.shape[1])]
    return sum(vectors[1:], vectors[0]) if vectors else codes_XL.new_zeros(len(codes_XL), 1, dtype=torch.float32)


def _content(config: TIGERConfig, catalogue: Catalogue) -> list[np.ndarray]:
    """The content vectors that give the codes.

    Raises:
        DataError: the data has none.
    """
    if config.ids_from == "log":
        return []
    names = config.id_vectors or tuple(sorted(catalogue.vector_arrays))
    if not names:
        raise DataError(
            f"ids_from {config.ids_from}: the data has no vectors of its items: store them with ensue prepare --items "
            "FILE and --item-text title or --item-vectors COLUMN, or train with --ids-from log"
        )
    return [catalogue.vectors(name) for name in names]


def _unit(vectors_NV: np.ndarray) -> np.ndarray:
    """The vectors divided by their lengths, float32; NaN, which is unknown, for zero ones."""
    length_N1 = np.linalg.norm(vectors_NV, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        unit_NV: np.ndarray = (vectors_NV / np.where(length_N1 > 0, length_N1, np.nan)).astype(np.float32)
    return unit_NV


MODELS.register("tiger")(ModelEntry(TIGERConfig, TIGER))
