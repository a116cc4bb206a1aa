"""The contract that every model must fulfil, as tests that are part of the package.

A model's own test file needs a few lines:

    class TestSASRec(ModelContract):
        config = SASRecConfig(maxlen=16, hidden_units=16, dropout_rate=0.1)

Tests that do not apply to a kind of model, such as gradients of a counted model, are skipped. Supported kinds are
encoders, rankers, counted models, bidirectional models, and models that predict only after the newest event of a row
(`answers_everywhere = False`). Needs pytest.

Suffixes: `B` rows, `P` events of all rows, `Q` asked events, `C` candidates, `K` shared candidates, `N` items, `D`
width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ensue.batches.batch import SequenceBatch, query_times
from ensue.data.split import Split, SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.datasets.simulate import ordered_sequences, shuffled
from ensue.errors import EnsueError
from ensue.evaluation.evaluate import evaluate
from ensue.models import Catalogue, CountedModel, Encoder, Model, ModelConfig, build_model
from ensue.nn.embedding import ItemEmbedding, dense_gradients, initialise
from ensue.objectives.objective import ObjectiveConfig
from ensue.runs.config import RunConfig, TrainConfig
from ensue.runs.log import Records
from ensue.train.loop import Trainer

NUM_ITEMS = 40
TOLERANCE = 1e-5
HISTORIES = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7], [40, 39], [7, 7, 7], [1, 40, 2, 39, 3]]
# Seconds between events: ties, sessions, days. Longer rows have longer gaps, so that rows differ in their smallest gap,
# which is between the two oldest events.
FIRST_TIME = 1_600_000_000
GAPS = np.array([0, 60, 0, 7_200, 86_400, 300, 0, 500_000])


class ModelContract:
    """Tests of a model's contract: subclass it and set `config`.

    Attributes:
        config: the model's settings; `maxlen` must be at least 12, and dropout low enough to learn in seconds.
        objective: the objective with which encoders are trained.
        train: the settings with which encoders are trained.
        reads_order: whether the model can learn that one item determines the next.
        has_fixed_shapes: whether shapes do not depend on times; if they do, later events may change a state's rounding.
    """

    config: ClassVar[ModelConfig]
    objective: ClassVar[ObjectiveConfig] = ObjectiveConfig(loss="ce")
    train: ClassVar[TrainConfig] = TrainConfig(
        num_epochs=25, batch_size=100, lr=0.02, schedule="cosine", patience=0, eval_epochs=25, device="cpu"
    )
    reads_order: ClassVar[bool] = True
    has_fixed_shapes: ClassVar[bool] = True

    def run_config(self, **train: Any) -> RunConfig:
        """The settings of the whole run, with some training settings changed."""
        return RunConfig(model=self.config, objective=self.objective, train=self.train.replace(**train))

    def fresh(self, seed: int = 0) -> Model:
        """The initialised model before training; a counted model is fitted."""
        model = build_model(self.config, Catalogue(NUM_ITEMS, vector_arrays=item_vectors()))
        if isinstance(model, CountedModel):
            model.fit(_split(False).train)
        else:
            initialise(model, seed)
            model.study(_split(False).train)
        return model.eval()

    def fitted(self, split: Split, **train: Any) -> Model:
        """The model trained on a split."""
        model = build_model(self.config, Catalogue.of_store(split.train.store))
        if isinstance(model, CountedModel):
            model.fit(split.train)
            return model.eval()
        return Trainer(self.run_config(**train), split).run().model

    def encoder(self) -> Encoder:
        """A fresh model as an encoder; skip the test if it is not an encoder."""
        model = self.fresh()
        if not isinstance(model, Encoder):
            pytest.skip("not an encoder")
        return model

    def answers(self, batch: SequenceBatch) -> SequenceBatch:
        """The batch with all events asked, or only the newest if the model requires it."""
        return batch.asking_all() if self.fresh().answers_everywhere else batch

    def hit_rate(self, model: Model, split: Split, k: int) -> float:
        """The share of test targets among the k best of all items, under the model's own protocol."""
        config = self.run_config().evaluate.replace(filter_seen=False)
        standings = evaluate(model, split.test, config, split.train)
        return float(np.mean(standings.metric(f"hr@{k}")))

    # ---- settings and state ----

    def test_configuration_survives_toml(self, tmp_path: Path) -> None:
        """Settings that are written and read back are equal and have the same class."""
        config = self.run_config()
        config.write_toml(tmp_path / "config.toml")
        back = RunConfig.read_toml(tmp_path / "config.toml")
        assert back == config
        assert type(back.model) is type(self.config)

    def test_saved_state_gives_equal_scores(self, tmp_path: Path) -> None:
        """A new model with the state from a safetensors file gives bitwise identical scores."""
        model, batch = self.fresh(), _batch()
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "m.safetensors")
        other = build_model(self.config, Catalogue(NUM_ITEMS, vector_arrays=item_vectors()))
        if not isinstance(other, CountedModel):
            initialise(other, 99)
        other.load_state_dict(load_file(tmp_path / "m.safetensors"))
        assert torch.equal(_scores(other.eval(), batch), _scores(model, batch))

    def test_two_models_share_nothing(self) -> None:
        """Initial weights depend only on the seed, and another seed gives other weights."""
        first, again = _scores(self.fresh(0), _batch()), _scores(self.fresh(0), _batch())
        assert torch.equal(first, again)
        if not isinstance(self.fresh(), CountedModel):
            assert not torch.equal(first, _scores(self.fresh(1), _batch()))

    # ---- scores ----

    def test_scores_have_a_column_for_every_item_and_none_for_padding(self) -> None:
        """Scores are finite floating-point numbers, [B, N]."""
        model = self.fresh()
        assert isinstance(model, Model)
        assert model.num_items == NUM_ITEMS
        assert model.maxlen == self.config.maxlen
        scores = _scores(model, _batch())
        assert scores.shape == (len(HISTORIES), NUM_ITEMS)
        assert scores.is_floating_point()
        assert bool(scores.isfinite().all())

    def test_scores_of_candidates_are_columns_of_all_scores(self) -> None:
        """logits(batch, items) equals logits(batch) at those items, in any order and with repeats; also if shared."""
        model, batch = self.fresh(), _batch()
        generator = torch.Generator().manual_seed(0)
        items_BC = torch.randint(1, NUM_ITEMS + 1, (len(HISTORIES), 9), generator=generator)
        shared_K = torch.tensor([7, 1, NUM_ITEMS])
        scores_BN = _scores(model, batch)
        expected = torch.cat((scores_BN.gather(1, items_BC - 1), scores_BN[:, shared_K - 1]), 1)
        with torch.inference_mode():
            _close(model.logits(batch, items_BC), expected[:, :9])
            _close(model.logits(batch, items_BC, shared_K), expected)

    def test_scores_are_the_callers_own(self) -> None:
        """Writing to the scores changes neither the model nor the scores of another row."""
        model, batch = self.fresh(), _batch()
        expected = _scores(model, batch)
        scores = _scores(model, batch)
        with torch.inference_mode():
            scores[0] = -1.0
        assert torch.equal(scores[1:], expected[1:])
        assert torch.equal(_scores(model, batch), expected)

    def test_single_equals_batch(self) -> None:
        """A history has the same scores alone as in a batch."""
        model = self.fresh()
        together = _scores(model, _batch())
        for row, history in enumerate(HISTORIES):
            alone = _scores(model, _batch([history]))
            _close(alone[0], together[row])

    def test_other_rows_and_their_order_do_not_matter(self) -> None:
        """Neither the order of rows nor the padding caused by longer rows changes a score."""
        model = self.fresh()
        together = _scores(model, _batch())
        order = [4, 2, 0, 5, 1, 3]
        mixed = _scores(model, _batch([HISTORIES[row] for row in order]))
        _close(mixed, together[order])
        long = list(range(1, self.config.maxlen + 1))
        padded = _scores(model, _batch([long[:NUM_ITEMS], *HISTORIES]))
        _close(padded[1:], together)

    def test_the_longest_history_is_read(self) -> None:
        """A history of maxlen events can be scored."""
        history = [1 + i % NUM_ITEMS for i in range(self.config.maxlen)]
        assert bool(_scores(self.fresh(), _batch([history, [1]])).isfinite().all())

    def test_scoring_changes_nothing(self) -> None:
        """Scoring and evaluating twice give the same results and do not change the state."""
        model, split = self.fresh(), _split(False)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        few = split.test.take(np.arange(7))
        first = evaluate(model, few, self.run_config().evaluate, split.train)
        again = evaluate(model, few, self.run_config().evaluate, split.train)
        assert (first.better_B == again.better_B).all()
        assert (first.equal_B == again.equal_B).all()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    # ---- what is asked ----

    def test_an_answer_does_not_depend_on_what_else_is_asked(self) -> None:
        """The scores at an event are the same whether only this event, some, or all events are asked."""
        model, batch = self.fresh(), _batch()
        if not model.answers_everywhere:
            with pytest.raises(EnsueError, match="newest"):
                model.logits(batch.asking_all())
            return
        every_PN = _scores(model, batch.asking_all())
        for asked in (batch.asked_Q, torch.tensor([0, 2, 3, 7, 12]), torch.tensor([4])):
            _close(_scores(model, batch.asking(asked.numpy())), every_PN[asked])

    def test_cost_grows_with_what_is_asked(self) -> None:
        """Scores at the newest events need fewer multiplications than scores at all events."""
        model = self.fresh()
        if isinstance(model, CountedModel) or not model.answers_everywhere:
            pytest.skip("counts, or answers only at the newest event")
        batch = _batch([[1 + i % NUM_ITEMS for i in range(self.config.maxlen)] for _ in range(4)])
        assert _products(model, batch) < _products(model, batch.asking_all())

    # ---- encoders ----

    def test_no_state_sees_the_future(self) -> None:
        """Changing the items and times of later events changes no bit of an earlier state.

        Two properties of later events are known on purpose and stay unchanged here: the smallest gap of a row, which
        may be its unit of time, and the time of the next event, which a model with `query_time` reads.
        """
        encoder = self.encoder()
        if not encoder.answers_everywhere:
            pytest.skip("answers at the newest event, after which nothing comes")
        history = [3, 1, 4, 1, 5, 9, 2, 6]
        with torch.inference_mode():
            before = encoder.encode(_batch([history, [7, 8]]).asking_all())
            for t in range(1, len(history)):
                changed = _batch([[*history[:t], *(NUM_ITEMS - item for item in history[t:])], [7, 8]]).asking_all()
                assert changed.times_P is not None
                assert changed.query_times_P is not None
                delay_P = 100_000 * torch.arange(len(history) + 2).sub(max(t, 2) - 1).clamp(min=0)
                delay_P[len(history) :] = 0
                query_P = changed.query_times_P + torch.where(delay_P > 0, delay_P + 100_000, 0)
                after = encoder.encode(replace(changed, times_P=changed.times_P + delay_P, query_times_P=query_P))
                _close(after[:t], before[:t], 0.0 if self.has_fixed_shapes else TOLERANCE)
                assert not torch.equal(after[t], before[t])

    def test_scores_are_inner_products(self) -> None:
        """logits = states . item vectors."""
        encoder, batch = self.encoder(), _batch()
        with torch.inference_mode():
            vectors_ND = encoder.item_vectors()
            _close(encoder.logits(batch), encoder.encode(batch) @ vectors_ND.T)
            assert torch.equal(encoder.item_vectors(torch.arange(1, NUM_ITEMS + 1)), vectors_ND)
        assert vectors_ND.shape[0] == NUM_ITEMS

    # ---- training ----

    def test_gradients_reach_every_parameter(self) -> None:
        """After one backward pass every parameter has a finite gradient that is not all zero."""
        model = self.fresh()
        if isinstance(model, CountedModel):
            pytest.skip("counts")
        scores_QN = model.logits(self.answers(_batch()))
        weight_QN = torch.randn(scores_QN.shape, generator=torch.Generator().manual_seed(0))
        torch.autograd.backward((scores_QN * weight_QN).sum())
        dense_gradients(model.parameters())
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
            assert bool(parameter.grad.any()), name

    def test_every_random_draw_is_keyed(self, tmp_path: Path) -> None:
        """A training that was interrupted and resumed ends with bitwise identical weights.

        Torch's own generator has another state when training resumes, so that a draw from it without a key is noticed.
        """
        if isinstance(self.fresh(), CountedModel):
            pytest.skip("counts")
        config, split = self.run_config(num_epochs=2, eval_epochs=1, checkpoint_minutes=0), _split(False)
        torch.manual_seed(1)
        whole = Trainer(config, split).run().model.state_dict()
        torch.manual_seed(2)
        with pytest.raises(KeyboardInterrupt):
            Trainer(config, split, tmp_path, [EachStep(_in_second_epoch)]).run()
        torch.manual_seed(3)
        resumed = Trainer(config, split, tmp_path).run().model.state_dict()
        for name, value in whole.items():
            assert torch.equal(resumed[name], value), name

    def test_padding_vector_is_zero_and_without_effect(self) -> None:
        """Row 0 is zero after initialisation and after training, and no score depends on it."""
        for model in (self.encoder(), self.fitted(_split(False), num_epochs=2)):
            tables = [part for part in model.modules() if isinstance(part, ItemEmbedding)]
            before = _scores(model, _batch())
            for table in tables:
                assert not bool(table.weight[0].any())
                assert bool(table.weight[1:].any(-1).all())
                table.weight.data[0] = 1e3
            assert torch.equal(_scores(model, _batch()), before)

    # ---- learning ----

    def test_learns_that_one_item_determines_the_next(self) -> None:
        """On sequences from one fixed cycle, the target almost always has rank 1."""
        if not self.reads_order:
            pytest.skip("reads no order")
        split = _split(False)
        assert self.hit_rate(self.fitted(split), split, 1) > 0.95

    def test_learns_nothing_from_noise(self) -> None:
        """On the same items in random order, the hit rate is that of chance, within five standard deviations."""
        split = _split(True)
        chance = 10 / NUM_ITEMS
        bound = 5 * (chance * (1 - chance) / len(split.test)) ** 0.5
        assert abs(self.hit_rate(self.fitted(split), split, 10) - chance) < bound


@torch.no_grad()
def draw_biases(model: Model) -> None:
    """Draw all biases from [-1, 1]: a comparison with the model's equations does not see biases of zero."""
    for name, parameter in model.named_parameters():
        if "bias" in name:
            parameter.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))


def item_vectors() -> dict[str, np.ndarray]:
    """Vectors of the contract's items, of two kinds; the first items have none."""
    numbers = np.random.default_rng(0).normal(size=(NUM_ITEMS, 9)).astype(np.float32)
    numbers[:4] = 0
    return {"text": numbers[:, :6], "pic": numbers[:, 6:]}


@cache
def _store(is_shuffled: bool) -> SequenceStore:
    store = ordered_sequences(num_users=400, num_items=NUM_ITEMS, length=10)
    return replace(shuffled(store) if is_shuffled else store, vectors=item_vectors())


@cache
def _split(is_shuffled: bool) -> Split:
    return make_split(_store(is_shuffled), SplitConfig())


def _batch(histories: Sequence[Sequence[int]] = HISTORIES) -> SequenceBatch:
    """Histories as a batch with times and query times, which depend only on the place in a row and its length."""
    lengths_B = np.array([len(history) for history in histories])
    rows = [FIRST_TIME + np.cumsum(n * np.resize(GAPS, n)) for n in lengths_B]
    times_P = np.concatenate(rows)
    query_P = query_times(times_P, lengths_B, np.array([row[-1] for row in rows]) + 3_600)
    return SequenceBatch.from_numpy(np.concatenate(histories), lengths_B, times_P, query_P)


def _scores(model: Model, batch: SequenceBatch) -> Tensor:
    with torch.inference_mode():
        return model.logits(batch)


def _close(got: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def _products(model: Model, batch: SequenceBatch) -> int:
    """The number of floating-point operations in the matrix products that score a batch."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.requires_grad_(False).logits(batch)
    return int(counter.get_total_flops())


class EachStep:
    """A watcher that calls a function after each step, with the number of the epoch and of steps so far."""

    def __init__(self, act: Callable[[int, int], None]) -> None:
        self.act, self.steps = act, 0

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        """Nothing to do."""

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Call the function."""
        self.steps += 1
        self.act(epoch, self.steps)

    def record(self, record: dict[str, Any]) -> None:
        """Nothing to do."""

    def finish(self) -> None:
        """Nothing to do."""


def _in_second_epoch(epoch: int, steps: int) -> None:
    if epoch == 1:
        raise KeyboardInterrupt
