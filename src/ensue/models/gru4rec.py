"""GRU4Rec: recurrent networks for sessions (Hidasi et al., ICLR 2016; Hidasi & Karatzoglou, CIKM 2018).

Suffixes: `P` events of all rows, `Q` asked events, `G` rows of a group, `T` events of its longest row, `D` width, `L`
layers, `B` histories to advance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ensue.batches.batch import Lanes, SequenceBatch
from ensue.batches.tasks import Task, next_items
from ensue.models.base import MODELS, CausalConfig, ModelEntry
from ensue.models.biased import BiasedEncoder, with_one
from ensue.models.catalogue import Catalogue
from ensue.nn.dropout import Dropout
from ensue.nn.embedding import ItemEmbedding

Input = Literal["tied", "separate", "none"]


class GRU4RecConfig(CausalConfig):
    """Settings of GRU4Rec; the values of `input` are the authors' constrained embedding, embedding and one-hot."""

    name: Literal["gru4rec"] = "gru4rec"
    hidden_units: int = Field(100, ge=1, description="width of item vectors and states")
    num_layers: int = Field(1, ge=1, description="stacked GRU layers")
    input: Input = Field(
        "tied", description="input vectors: the scoring vectors (tied), separate ones, or none (one-hot)"
    )
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="dropout on the input vectors")
    hidden_dropout_rate: float = Field(0.0, ge=0, lt=1, description="dropout on the states of every layer")
    lane_steps: int = Field(
        0,
        ge=0,
        description="0: whole windows; n: session-parallel lanes, n events of each a step (the authors': 1)",
    )

    @model_validator(mode="after")
    def _check_lanes(self) -> Self:
        if self.lane_steps and self.task != "next":
            raise ValueError(f"lane_steps {self.lane_steps} needs task next (got {self.task!r})")
        return self

    def make_task(self) -> Task:
        """The task named by `task`, or the next item in session-parallel lanes."""
        return Task(next_items, "sliding", self.lane_steps) if self.lane_steps else super().make_task()


class OneHotGRU(nn.Module):
    """A GRU layer with one-hot input: the product of an item with the input weights W is a row of W, [3 D].

    The layer receives these rows instead of x, so torch's recurrence gets the identity for W.
    """

    def __init__(self, hidden_units: int) -> None:
        super().__init__()
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden_units, hidden_units))
        self.bias_ih, self.bias_hh = (nn.Parameter(torch.empty(3 * hidden_units)) for _ in range(2))

    def forward(self, gates_GTD: Tensor, before_1GD: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows of input weights, [G, T, 3 D], and the states before to states, [G, T, D]; second, the newest states."""
        if before_1GD is None:
            before_1GD = self.weight_hh.new_zeros(1, len(gates_GTD), self.weight_hh.shape[1])
        identity = torch.eye(gates_GTD.shape[2], dtype=gates_GTD.dtype, device=gates_GTD.device)
        weights = [identity, self.weight_hh, self.bias_ih, self.bias_hh]
        return torch.gru(gates_GTD, before_1GD, weights, True, 1, 0.0, self.training, False, True)


class GRU4Rec(BiasedEncoder):
    """h = dropout(GRU(dropout(E[items]))), score(h, i) = h . W[i] + b_i, with W = E for tied input.

    With `lane_steps`, a row of a training batch continues from the state of its lane, through which no gradient passes,
    and `carried` has the newest states of all lanes: [L, lanes, D].

    Differences from the authors' code: by default whole histories (windows of `maxlen` events) are unrolled (theirs
    processes parallel sessions one event at a time: `lane_steps = 1`); Adam instead of Adagrad; Xavier-normal weights.
    Their negatives, other targets of the batch and draws by popularity, are settings of the objective.
    """

    def __init__(self, config: GRU4RecConfig, catalogue: Catalogue) -> None:
        width, num_items = config.hidden_units, catalogue.num_items
        super().__init__(num_items, config.maxlen, width)
        is_one_hot = config.input == "none"
        self.inputs = None
        if config.input != "tied":
            self.inputs = ItemEmbedding(num_items, 3 * width if is_one_hot else width)
        self.dropout = Dropout(config.dropout_rate)
        self.hidden_dropout = Dropout(config.hidden_dropout_rate)
        self.layers = nn.ModuleList(
            OneHotGRU(width) if is_one_hot and not number else nn.GRU(width, width, batch_first=True)
            for number in range(config.num_layers)
        )
        self.after_step: dict[str, Tensor] = {}

    def step_taken(self) -> None:
        """Keep the states that the lanes had at the end of the step."""
        self.carried = self.after_step

    @property
    def input_table(self) -> ItemEmbedding:
        """The input vectors, which are those that score for `input = "tied"`."""
        return self.items if self.inputs is None else self.inputs

    def encode(self, batch: SequenceBatch) -> Tensor:
        """States at the asked events, [Q, D + 1]."""
        *_, rectangles = self._layers(batch)
        return with_one(batch.layout.choose(batch.layout.unpad(rectangles)))

    def states(self, batch: SequenceBatch) -> Tensor:
        """The states of every layer at the asked events, [L, Q, D], with which `advance` continues a history."""
        layout = batch.layout
        return torch.stack([layout.choose(layout.unpad(rectangles)) for rectangles in self._layers(batch)])

    def _layers(self, batch: SequenceBatch) -> Iterator[list[Tensor]]:
        """The outputs of each layer, [G, T, D] per group: for a GRU they are its states."""
        layout, lanes, after = batch.layout, batch.lanes, []
        rectangles = layout.pad(self.dropout(self.events(batch)))
        before_LBD = None if lanes is None else self._before(lanes)
        for number, layer in enumerate(self.layers):
            if before_LBD is None:
                outputs = [layer(x_GTD)[0] for x_GTD in rectangles]
            else:
                before = layout.split_rows(before_LBD[number])
                outputs = [layer(x_GTD, h_GD[None])[0] for x_GTD, h_GD in zip(rectangles, before, strict=True)]
                after.append(layout.unpad(outputs)[layout.last_B].detach())
            rectangles = [self.hidden_dropout(h_GTD) for h_GTD in outputs]
            yield rectangles
        if lanes is not None:
            self.after_step = {"states": self._after(lanes, torch.stack(after))}

    def _before(self, lanes: Lanes) -> Tensor:
        """The states from which the rows of a batch continue, [L, B, D]; zero for a new history."""
        states = self.carried["states"] if self.carried else self.begin(lanes.count)
        return states[:, lanes.lane_B].masked_fill(lanes.is_new_B[:, None], 0.0)

    def _after(self, lanes: Lanes, states_LBD: Tensor) -> Tensor:
        """The states of all lanes after a batch: that of the last row of each, [L, lanes, D]."""
        is_last_B = torch.ones_like(lanes.is_new_B)
        is_last_B[:-1] = lanes.lane_B[1:] != lanes.lane_B[:-1]
        after = self.begin(lanes.count)
        after[:, lanes.lane_B[is_last_B]] = states_LBD[:, is_last_B].to(after.dtype)
        return after

    def begin(self, rows: int) -> Tensor:
        """The states of histories without events: [layers, rows, D]."""
        width = self.items.weight.shape[1]
        return self.items.weight.new_zeros(len(self.layers), rows, width)

    def advance(
        self, states_LBD: Tensor, items_B: Tensor, codes: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """One more event of each history, for the cost of one step.

        Args:
            states_LBD: the states before, from `begin` or `advance`; the rows of different requests may be mixed.
            items_B: the item number of each history's new event.
            codes: name -> the codes of its features, [B], if the model reads any (see `SequenceBatch.features`).

        Returns:
            The states after, [L, B, D], and what `encode` gives for the whole histories, [B, D + 1]; for histories of
            more than `maxlen` events, of which `encode` reads the newest, it remembers the older ones too.
        """
        x_BD = self.input_table(items_B)
        if self.features is not None:
            x_BD = self.features(x_BD, items_B, codes)
        x_B1D, after = self.dropout(x_BD)[:, None], []
        for layer, before_BD in zip(self.layers, states_LBD, strict=True):
            x_B1D, after_1BD = layer(x_B1D, before_BD[None])
            x_B1D = self.hidden_dropout(x_B1D)
            after.append(after_1BD[0])
        return torch.stack(after), with_one(x_B1D[:, 0])


MODELS.register("gru4rec")(ModelEntry(GRU4RecConfig, GRU4Rec))
