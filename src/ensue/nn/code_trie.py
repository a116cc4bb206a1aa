"""The trie of the items' codes: which codes may follow a prefix, and their logits and log-probabilities.

Suffixes: `N` items, `L` levels, `K` codes of a level, `E` nodes of a depth, `F` nodes of the depth above, `Q` asked
events, `X` pairs of an asked event and a prefix, `D` width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Depth:
    """The nodes of one depth, in the order of their prefixes; those of one parent are neighbours.

    Attributes:
        parent_E: int64, the node above each, in the numbering of that depth.
        codes_EL: int64, the codes from the root to each node.
        node_N: int64, the node of each item.
        allowed_FK: bool, the codes that may follow each node of the depth above.
        first_F1: int64, the first child of each node of the depth above, and the number of nodes.
    """

    parent_E: Tensor
    codes_EL: Tensor
    node_N: Tensor
    allowed_FK: Tensor
    first_F1: Tensor


class CodeTrie:
    """The trie of codes [N, L] whose rows are all different, so every item is one leaf.

    Attributes:
        depths: the nodes of each depth, the first below the root.
        item_E: int64, the item number of each leaf.
    """

    def __init__(self, codes_NL: Tensor, codes: int) -> None:
        count, levels = codes_NL.shape
        device = codes_NL.device
        above_N, above = torch.zeros(count, dtype=torch.int64, device=device), 1
        self.depths: list[Depth] = []
        for level in range(levels):
            # A node is its parent and its code; sorted, the children of a parent are neighbours.
            key_E, node_N = torch.unique(above_N * codes + codes_NL[:, level], return_inverse=True)
            parent_E, code_E = key_E // codes, key_E % codes
            allowed_FK = torch.zeros(above, codes, dtype=torch.bool, device=device)
            allowed_FK[parent_E, code_E] = True
            before = self.depths[-1].codes_EL[parent_E] if self.depths else codes_NL.new_zeros(len(key_E), 0)
            first_F1 = torch.searchsorted(parent_E, torch.arange(above + 1, device=device))
            codes_EL = torch.cat((before, code_E[:, None]), 1)
            self.depths.append(Depth(parent_E, codes_EL, node_N, allowed_FK, first_F1))
            above_N, above = node_N, len(key_E)
        self.item_E = torch.empty(above, dtype=torch.int64, device=device)
        self.item_E[above_N] = torch.arange(1, count + 1, device=device)

    @property
    def nodes(self) -> int:
        """The number of nodes below the root."""
        return sum(len(depth.parent_E) for depth in self.depths)


def log_shares(logits_EQ: Tensor, depth: Depth) -> Tensor:
    """The log-softmax of each node's logit among its siblings, [E, Q]."""
    parents, parent_E = len(depth.first_F1) - 1, depth.parent_E
    with torch.no_grad():
        size_F = depth.first_F1.diff()
        top_FQ = torch.segment_reduce(logits_EQ, "max", lengths=size_F, axis=0, unsafe=True)
    moved_EQ = logits_EQ - top_FQ[parent_E]
    sums_FQ = logits_EQ.new_zeros(parents, logits_EQ.shape[1]).index_add(0, parent_E, moved_EQ.exp())
    return moved_EQ - sums_FQ.log()[parent_E]


class CodeDecoder(nn.Module):
    """d = gate(p) * W h + shift(p): what the next code's vector is compared with, after a prefix with the vector p.

    It is linear in the state h, so the gate and the shift can be applied to the vectors of codes instead: the logits of
    all nodes of a depth are one product with all states.
    """

    def __init__(self, hidden_units: int) -> None:
        super().__init__()
        self.state = nn.Linear(hidden_units, hidden_units, bias=False)
        self.gate = nn.Linear(hidden_units, hidden_units)
        self.shift = nn.Linear(hidden_units, hidden_units)

    def forward(self, h_XD: Tensor, prefix_XD: Tensor, codes_KD: Tensor) -> Tensor:
        """The logits of all codes of the level for pairs of a state and a prefix, [X, K]."""
        d_XD = self._gate(prefix_XD) * self.state(h_XD) + self.shift(prefix_XD)
        logits_XK: Tensor = d_XD @ codes_KD.T
        return logits_XK

    def of_nodes(self, h_QD: Tensor, prefix_ED: Tensor, code_ED: Tensor) -> Tensor:
        """The logits of nodes with these prefixes and codes, [E, Q]."""
        shift_E1 = (self.shift(prefix_ED) * code_ED).sum(1, keepdim=True)
        logits_EQ: Tensor = (self._gate(prefix_ED) * code_ED) @ self.state(h_QD).T + shift_E1
        return logits_EQ

    def _gate(self, prefix: Tensor) -> Tensor:
        return 2 * torch.sigmoid(self.gate(prefix))
