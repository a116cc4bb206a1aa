"""The contrastive term is its definition, and any encoder may carry it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ensue.batches.batch import SequenceBatch
from ensue.batches.tasks import TASKS, make_windows
from ensue.data.split import Split
from ensue.errors import ConfigError
from ensue.models import Catalogue, Encoder, build_model
from ensue.models.bert4rec import BERT4RecConfig
from ensue.models.gru4rec import GRU4RecConfig
from ensue.models.sasrec import SASRecConfig
from ensue.models.tisasrec import TiSASRecConfig
from ensue.nn.embedding import initialise
from ensue.nn.model import Model
from ensue.objectives.auxiliary import info_nce
from ensue.objectives.objective import Objective, ObjectiveConfig
from ensue.rng import stream
from ensue.runs.config import RunConfig, TrainConfig
from ensue.testing import ModelContract
from ensue.train.loop import Trainer

ALL = ("crop", "mask", "reorder", "substitute", "insert")
CONTRASTIVE = ObjectiveConfig(loss="ce", auxiliary="contrastive", augmentations=ALL, contrastive_temperature=0.5)


def test_the_term_is_its_definition() -> None:
    """Pair by pair in float64; rows 0 and 2 are no negatives of each other."""
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    is_same = torch.eye(4, dtype=torch.bool)
    is_same[0, 2] = is_same[2, 0] = True
    expected = torch.zeros(4, dtype=torch.float64)
    for row in range(4):
        for side in range(2):
            one = views[side, row]
            positive = (one @ views[1 - side, row] / 0.5).exp()
            others = [views[any_side, c] for any_side in range(2) for c in range(4) if not is_same[row, c]]
            negative = sum((one @ other / 0.5).exp() for other in others)
            expected[row] -= (positive / (positive + negative)).log() / 2
    torch.testing.assert_close(info_nce(*views, is_same, 0.5).double(), expected, rtol=1e-5, atol=1e-6)


def test_without_a_negative_the_term_is_zero_and_its_gradient_too() -> None:
    view = (1e3 * torch.ones(2, 3)).requires_grad_()
    term = info_nce(view, view, torch.ones(2, 2, dtype=torch.bool), 1.0)
    term.sum().backward()  # type: ignore[no-untyped-call]
    assert term.tolist() == [0, 0]
    assert view.grad is not None
    assert not view.grad.any()


def drawn(split: Split, task: str = "next", seed: int = 0) -> tuple[Objective, SequenceBatch]:
    windows = make_windows(split.train, 6, TASKS[task].window or "last")
    chosen = np.arange(min(8, len(windows)))
    batch = TASKS[task].make(windows, chosen, stream(0, "task"))
    objective = Objective(CONTRASTIVE, split.train)
    return objective, objective.draw(windows.row_W[chosen], batch, stream(seed, "negatives"))


@pytest.mark.parametrize("task", ["next", "prefixes"])
@torch.no_grad()
def test_the_mean_loss_is_the_mean_of_both(split: Split, task: str) -> None:
    model = build_model(SASRecConfig(maxlen=6, hidden_units=8), Catalogue(split.train.store.num_items))
    initialise(model.eval(), 0)
    objective, batch = drawn(split, task)
    plain = Objective(ObjectiveConfig(loss="ce"), split.train)(model, batch).mean()
    assert batch.views is not None
    assert objective.auxiliary is not None
    assert isinstance(model, Encoder)
    term = objective.auxiliary(model, batch.views).mean()
    torch.testing.assert_close(objective(model, batch).mean(), plain + 0.1 * term)


def test_rows_of_one_user_or_one_target_are_no_negatives(split: Split) -> None:
    _, batch = drawn(split, "prefixes")
    assert batch.views is not None
    assert batch.target_Q is not None
    windows = make_windows(split.train, 6, "prefixes")
    users, targets = windows.row_W[:8], batch.target_Q.numpy()
    expected = (users[:, None] == users) | (targets[:, None] == targets)
    assert (batch.views.is_same_BB.numpy() == expected).all()
    assert expected.sum() > 8


def test_views_are_of_the_steps_stream_alone(split: Split) -> None:
    views = [drawn(split, seed=seed)[1].views for seed in (0, 0, 1)]
    first, again, other = (None if each is None else each.first.items_P.tolist() for each in views)
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "config",
    [
        GRU4RecConfig(maxlen=12, hidden_units=8),
        TiSASRecConfig(maxlen=12, hidden_units=8),
        BERT4RecConfig(maxlen=12, hidden_units=8),
    ],
)
def test_any_encoder_carries_it_and_resumes_in_every_bit(config: SASRecConfig, tmp_path: Path) -> None:
    contract = type("Contract", (ModelContract,), {"config": config, "objective": CONTRASTIVE})()
    contract.test_every_random_draw_is_keyed(tmp_path)


def test_what_it_refuses(split: Split) -> None:
    """Before anything is trained or written."""
    plain = SASRecConfig(maxlen=6, hidden_units=8)
    config = RunConfig(model=plain, objective=CONTRASTIVE, train=TrainConfig(batch_parts=2, device="cpu"))
    with pytest.raises(ConfigError, match="contrastive compares all rows of a batch: use batch_parts = 1"):
        Trainer(config, split)
    with pytest.raises(ConfigError, match="contrastive compares states, but this model ranks candidates"):
        Objective(CONTRASTIVE.replace(loss="sampled-softmax"), split.train).check(Ranker())
    with pytest.raises(ConfigError, match=r"unknown augmentation 'crip'.*crop"):
        ObjectiveConfig.parse({"augmentations": ["crip"]})
    with pytest.raises(ConfigError, match="unknown auxiliary 'contrast'"):
        ObjectiveConfig.parse({"auxiliary": "contrast"})


class Ranker(Model):
    """Scores every candidate alike."""

    def __init__(self) -> None:
        super().__init__(15, 6)

    def logits(
        self, batch: SequenceBatch, items_QC: torch.Tensor | None = None, shared_K: torch.Tensor | None = None
    ) -> torch.Tensor:
        return torch.zeros(len(batch.asked_Q), 15 if items_QC is None else items_QC.shape[1])
