"""The parts of a model that the measurements use.

Suffixes: `B` rows of a batch, `P` events of all rows, `Q` asked events.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.batches.layout import Layout
from ensue.errors import ConfigError
from ensue.nn.block import Block
from ensue.nn.model import Model
from ensue.nn.trunk import Trunk


@dataclass(frozen=True)
class Transformer:
    """A model with a trunk.

    Attributes:
        model: the model.
        trunk: its trunk.
        blocks: the trunk's blocks.
    """

    model: Model
    trunk: Trunk
    blocks: list[Block]

    def run(self, batch: SequenceBatch) -> None:
        """Run the model on a batch, with one candidate for each asked event."""
        self.model.logits(batch, torch.ones_like(batch.asked_Q)[:, None])


def transformer_of(model: Model) -> Transformer:
    """Find the trunk of a model.

    Raises:
        ConfigError: the model has none.
    """
    trunk = next((part for part in model.modules() if isinstance(part, Trunk)), None)
    if trunk is None:
        raise ConfigError(
            f"{type(model).__name__} has no transformer blocks: inspect needs a model such as sasrec or tisasrec"
        )
    return Transformer(model, trunk, [block for block in trunk.blocks if isinstance(block, Block)])


def event_places(batch: SequenceBatch, inner: Layout) -> Tensor:
    """The places of a batch's events in the layout of a model's blocks, [P]: the newest places of each row.

    For most models these are all places. Some models pad their rows on the left (`sasrec-padded`).
    """
    return inner.last_B.repeat_interleave(batch.lengths_B) - batch.layout.age_P


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Evaluation mode without gradients; the model's mode is restored at the end."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
