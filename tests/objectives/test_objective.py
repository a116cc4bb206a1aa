"""What is minimised: each choice of negatives and loss against the same thing written out."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ensue.batches.batch import SequenceBatch
from ensue.batches.tasks import make_windows, next_items
from ensue.data.split import Sequences, Split
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError
from ensue.models import Catalogue, Encoder, build_model
from ensue.models.sasrec import SASRecConfig
from ensue.nn.embedding import initialise
from ensue.nn.model import Model
from ensue.objectives.losses import LOSSES, SampledLoss, bce, gbce, gbce_beta, register_loss, sampled_softmax
from ensue.objectives.negatives import SeenItems, WholeBatchNegatives
from ensue.objectives.objective import Objective, ObjectiveConfig
from ensue.rng import stream


@pytest.fixture
def world(split: Split) -> tuple[Encoder, np.ndarray, SequenceBatch]:
    """An encoder, and a batch with its training rows."""
    model = build_model(SASRecConfig(maxlen=6, hidden_units=8), Catalogue(15))
    initialise(model, 0)
    assert isinstance(model, Encoder)
    chosen = np.array([3, 0, 7, 9])
    windows = make_windows(split.train, 6)
    return model.eval(), windows.row_W[chosen], next_items(windows, chosen, stream(0, "task"))


World = tuple[Encoder, np.ndarray, SequenceBatch]


def losses_of(world: World, split: Split, drawn: Tensor | None = None, **settings: Any) -> tuple[Tensor, Tensor | None]:
    model, rows_B, batch = world
    objective = Objective(ObjectiveConfig(**settings), split.train)
    if drawn is None:
        batch = objective.draw(rows_B, batch, stream(0, "negatives"))
    else:
        batch = replace(batch, negatives=drawn)
    with torch.no_grad():
        return objective(model, batch), batch.negatives


def logits(world: World, items: Tensor) -> Tensor:
    model, _, batch = world
    with torch.no_grad():
        return torch.stack([model.item_vectors(row) @ h for row, h in zip(items, model.encode(batch), strict=True)])


ALL = [name for name in LOSSES if name not in ("ce", "likelihood")]


@pytest.mark.parametrize(
    ("loss", "negatives", "shared"),
    list(itertools.product(ALL, ["uniform", "popularity", "in-batch", "mixed"], [False, True])),
)
def test_every_combination_gives_a_finite_loss_for_each_asked_event(
    world: World, split: Split, loss: str, negatives: str, shared: bool
) -> None:
    settings = {"loss": loss, "negatives": negatives, "share_negatives": shared, "num_negatives": 4}
    if (loss, negatives, shared) == ("gbce", "in-batch", True):
        with pytest.raises(ConfigError, match="gbce needs a fixed number of negatives"):
            losses_of(world, split, **settings)
        return
    value, drawn = losses_of(world, split, **settings)
    asked = len(world[2].asked_Q)
    assert value.shape == (asked,)
    assert value.isfinite().all()
    assert drawn is not None
    if negatives != "in-batch" or not shared:
        assert drawn.shape == ((4,) if shared else (asked, 4))


@pytest.mark.parametrize("further", [0, 4])
@pytest.mark.parametrize("name", [name for name in ALL if name != "gbce"])
def test_shared_in_batch_negatives_are_the_other_targets_and_further_draws(
    world: World, split: Split, name: str, further: int
) -> None:
    """The loss of each event is that of the other items of the list, written out event by event."""
    model, rows_B, batch = world
    config = ObjectiveConfig(
        loss=name, negatives="in-batch", share_negatives=True, num_negatives=further, bpr_max_regularisation=0.5
    )
    objective = Objective(config, split.train)
    batch = objective.draw(rows_B, batch, stream(0, "negatives"))
    assert batch.negatives is not None
    assert batch.target_Q is not None
    drawn, targets = batch.negatives.tolist(), batch.target_Q.tolist()
    assert drawn == sorted(set(drawn))
    assert set(targets) <= set(drawn)
    assert len(set(drawn) - set(targets)) <= further
    loss = LOSSES[name](config, 15)
    assert isinstance(loss, SampledLoss)
    expected = []
    with torch.no_grad():
        scores_QN = model.logits(batch)
        value = objective(model, batch)
    for scores_N, target in zip(scores_QN, targets, strict=True):
        others = [place for place, item in enumerate(drawn) if item != target]
        neg_K = scores_N[torch.tensor([drawn[place] - 1 for place in others])]
        if batch.log_rate_K is not None:
            neg_K = neg_K - batch.log_rate_K[others]
        expected.append(loss.function(scores_N[target - 1, None], neg_K[None]))
    assert (batch.log_rate_K is not None) == (name == "sampled-softmax")
    torch.testing.assert_close(value, torch.cat(expected))


def test_the_rate_of_shared_in_batch_negatives_is_how_often_they_are_drawn() -> None:
    counts_N = np.array([50, 30, 15, 4, 1])
    rows = np.repeat(np.arange(1, 6), counts_N).astype(np.int32)
    store = SequenceStore.from_arrays(offsets=np.array([0, 100]), items=rows)
    seen = SeenItems(Sequences(store, np.array([0]), np.array([0]), np.array([100])))
    negatives = WholeBatchNegatives(seen, counts_N, 0.5, 2)
    rng, drawn_N = stream(0, "negatives"), np.zeros(5)
    for _ in range(4_000):
        drawn_N[negatives.draw(rng.choice(5, 3, p=counts_N / 100) + 1, rng) - 1] += 1
    np.testing.assert_allclose(np.exp(negatives.log_rate(np.arange(1, 6), 3)), drawn_N / 4_000, atol=0.06)
    assert len(negatives.draw(np.array([2, 2]), rng)) >= 2
    alone = WholeBatchNegatives(seen, counts_N, 0.5, 0)
    assert alone.draw(np.array([3, 1, 3]), rng).tolist() == [1, 3]
    assert len(alone.draw(np.array([2, 2]), rng)) >= 2


def test_own_negatives(world: World, split: Split) -> None:
    target_Q = world[2].target_Q
    for name, loss in (("bce", bce), ("gbce", gbce(gbce_beta(3, 15, 0.75)))):
        value, drawn = losses_of(world, split, loss=name, num_negatives=3)
        expected = loss(logits(world, target_Q[:, None])[:, 0], logits(world, drawn))
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"setting 'loss': unknown loss 'bec': did you mean 'bce'\? Known: bce, bpr"):
        ObjectiveConfig(loss="bec")
    with pytest.raises(ConfigError, match="setting 'negatives': unknown negatives 'unifrom': did you mean 'uniform'"):
        ObjectiveConfig(negatives="unifrom")


def test_a_registered_loss_is_used(world: World, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOSSES, "_entries", dict(LOSSES._entries))

    @register_loss("hinge")
    def hinge(pos_Q: Tensor, neg_QK: Tensor) -> Tensor:
        return (1 - pos_Q[:, None] + neg_QK).relu().sum(-1)

    value, drawn = losses_of(world, split, loss="hinge", num_negatives=3)
    expected = hinge(logits(world, world[2].target_Q[:, None])[:, 0], logits(world, drawn))
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_full_softmax_draws_nothing(world: World, split: Split) -> None:
    value, drawn = losses_of(world, split, loss="ce")
    assert drawn is None
    positions = value.shape[0]
    every = logits(world, torch.arange(1, 16).expand(positions, -1))
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(every, world[2].target_Q - 1, reduction="none"))


def test_a_shared_negative_that_is_the_target_is_replaced_by_its_neighbour(world: World, split: Split) -> None:
    target_Q = world[2].target_Q
    shared = torch.tensor([int(target_Q[0]), 2, int(target_Q[5]), 9])
    assert len(set(shared.tolist())) == 4
    value, _ = losses_of(world, split, shared, num_negatives=4, share_negatives=True)
    rows = []
    for target in target_Q.tolist():
        own = shared.tolist()
        rows.append([own[k - 1] if item == target else item for k, item in enumerate(own)])
        assert target not in rows[-1]
    expected = bce(logits(world, target_Q[:, None])[:, 0], logits(world, torch.tensor(rows)))
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_hard_negatives_are_the_highest_of_the_pool(world: World, split: Split) -> None:
    value, drawn = losses_of(world, split, hard_pool=8, num_negatives=2)
    assert drawn.shape[1] == 8
    hardest = logits(world, drawn).sort(1, descending=True).values[:, :2]
    expected = bce(logits(world, world[2].target_Q[:, None])[:, 0], hardest)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_logq_makes_sampled_softmax_an_estimate_of_the_full_one(world: World, split: Split) -> None:
    """The mean over many draws by popularity of sum exp(corrected logit) is sum over the catalogue of exp(logit)."""
    objective = Objective(ObjectiveConfig(loss="sampled-softmax", negatives="popularity", num_negatives=5), split.train)
    log_q = torch.from_numpy(objective.negatives.log_q())
    generator = torch.Generator().manual_seed(0)
    drawn = 1 + torch.multinomial(log_q[1:].exp(), 200_000 * 5, True, generator=generator).view(-1, 5)
    score_N = torch.randn(16, generator=generator)
    corrected = objective._corrected(score_N[drawn], drawn)
    assert float(corrected.exp().sum(1).mean()) == pytest.approx(float(score_N[1:].exp().sum()), rel=0.01)


@pytest.mark.parametrize("negatives", ["popularity", "mixed", "uniform"])
def test_logq_of_shared_negatives(negatives: str) -> None:
    """Distinct draws: the estimate of the full sum is unbiased for popular items too."""
    log_counts_N = -1.2 * np.log(np.arange(1, 301))
    counts_N = np.round(20_000 * np.exp(log_counts_N)).astype(np.int64)
    items = np.repeat(np.arange(1, 301), counts_N)
    store = SequenceStore.from_arrays(np.array([0, len(items)]), items)
    train = Sequences(store, np.array([0]), store.offsets[:1], store.offsets[1:])
    config = ObjectiveConfig(
        loss="sampled-softmax", negatives=negatives, num_negatives=60, share_negatives=True, popularity_alpha=1.0
    )
    objective = Objective(config, train)
    rng = np.random.default_rng(0)
    drawn = torch.from_numpy(np.stack([objective.negatives.draw_shared(60, rng) for _ in range(6000)]))
    # What each item counts for in the mean of the sum; an unbiased estimate gives every item 1.
    corrected = objective._corrected(torch.zeros(drawn.shape), drawn)
    weight_N = torch.bincount(drawn.view(-1), corrected.exp().double().view(-1), minlength=301)[1:] / len(drawn)
    assert float(weight_N[:30].mean()) == pytest.approx(1.0, abs=0.03)
    assert float(weight_N.mean()) == pytest.approx(1.0, abs=0.03)


def test_logq_off_leaves_the_logits(world: World, split: Split) -> None:
    value, drawn = losses_of(world, split, loss="sampled-softmax", num_negatives=3, logq=False)
    expected = sampled_softmax(logits(world, world[2].target_Q[:, None])[:, 0], logits(world, drawn))
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    corrected, _ = losses_of(world, split, drawn, loss="sampled-softmax", num_negatives=3)
    # Uniform draws: every negative's logit falls by log(K / N).
    shift = float(np.log(3 / 15))
    expected = sampled_softmax(logits(world, world[2].target_Q[:, None])[:, 0], logits(world, drawn) - shift)
    torch.testing.assert_close(corrected, expected, rtol=1e-5, atol=1e-6)


def test_negatives_of_a_step_are_unseen_and_keyed_by_the_stream(world: World, split: Split) -> None:
    _, rows_B, batch = world
    objective = Objective(ObjectiveConfig(num_negatives=5), split.train)
    drawn, again, other = (objective.draw(rows_B, batch, stream(0, "negatives", 1, s)).negatives for s in (2, 2, 3))
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)
    store, train = split.train.store, split.train
    for row, items in zip(np.repeat(rows_B, batch.lengths_B.numpy()), drawn.tolist(), strict=True):
        assert not set(items) & set(store.items[train.start_R[row] : train.stop_R[row]].tolist())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share_negatives": True}, "share_negatives needs num_negatives of at least 2"),
        ({"num_negatives": 0}, "num_negatives must be at least 1, or 0 with shared in-batch negatives"),
        (
            {"share_negatives": True, "negatives": "in-batch", "hard_pool": 3},
            "hard_pool must be 0 with shared in-batch negatives",
        ),
        ({"hard_pool": 3, "num_negatives": 4}, "hard_pool 3 must be at least num_negatives 4"),
        ({"loss": "bcee"}, "loss"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig.parse(settings)


def test_too_small_a_catalogue_for_shared_negatives(split: Split) -> None:
    with pytest.raises(ConfigError, match="15 distinct negatives need a larger catalogue than 15 items"):
        Objective(ObjectiveConfig(share_negatives=True, num_negatives=15), split.train)


def test_a_ranker_is_trained_through_its_logits(world: World, split: Split) -> None:
    """A model without item vectors has the same losses by its scores of candidates, but for the full softmax."""
    model, rows_B, batch = world

    class Ranker(Model):
        def logits(
            self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None
        ) -> Tensor:
            return model.logits(batch, items_QC, shared_K)

    ranker: World = (Ranker(15, 6), rows_B, batch)  # type: ignore[assignment]
    for settings in ({"num_negatives": 3}, {"loss": "sampled-softmax", "num_negatives": 3, "share_negatives": True}):
        assert torch.equal(losses_of(ranker, split, **settings)[0], losses_of(world, split, **settings)[0])
    with pytest.raises(ConfigError, match="loss ce needs item vectors"):
        Objective(ObjectiveConfig(loss="ce"), split.train).check(ranker[0])
