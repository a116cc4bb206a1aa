"""The contract has teeth: models that break a law fail the law's own test. And it knows every kind of model."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.batches.tasks import TASKS, Task, append_mask, cloze
from ensue.models import MODELS, Catalogue
from ensue.models.base import ModelConfig, ModelEntry
from ensue.models.tied import TiedEncoder
from ensue.nn.embedding import ItemEmbedding
from ensue.nn.model import Model, check_newest, columns_of
from ensue.objectives.objective import ObjectiveConfig
from ensue.testing import ModelContract

WIDTH = 16


class ToyConfig(ModelConfig):
    """Settings of the models of this file: the task, and the law to break."""

    name: Literal["toy-broken", "toy-bidirectional", "toy-newest", "toy-ranker", "toy-torch"]
    task: str = "next"
    fault: str = ""

    def make_task(self) -> Task:
        return cloze() if self.task == "cloze" else TASKS[self.task]


class Broken(TiedEncoder):
    """The state is the item's own vector; each fault breaks one law."""

    def __init__(self, config: ToyConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, 8)
        self.fault = config.fault
        self.out = nn.Linear(8, 8)

    def encode(self, batch: SequenceBatch) -> Tensor:
        if self.fault == "cost":
            return self.out(self.items(batch.items_P)).repeat(40, 1)[: len(batch.items_P)][batch.asked_Q]
        h_PD = self.out(self.items(batch.items_P))
        if self.fault == "future":
            h_PD = h_PD + 1e-6 * h_PD[batch.layout.last_B].repeat_interleave(batch.lengths_B, 0)
        if self.fault == "neighbours":
            h_PD = h_PD + 0.01 * h_PD.mean()
        if self.fault == "no gradient":
            h_PD = self.items(batch.items_P)
        if self.fault == "asked":
            h_PD = h_PD * (1 + 0.01 * len(batch.asked_Q))
        if self.fault == "draws" and self.training:
            h_PD = h_PD + 0.1 * torch.randn(h_PD.shape, generator=GENERATOR)
        return h_PD[batch.asked_Q]

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        if self.fault == "padding":
            vectors = self.items.weight[1:] + self.items.weight[0]
            return vectors if items is None else vectors[items - 1]
        return super().item_vectors(items)

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        scores_QN = self.encode(batch) @ self.item_vectors().T
        if self.fault == "products":
            scores_QN = scores_QN * 1.1
        if self.fault == "columns" and items_QC is not None:
            return columns_of(scores_QN, items_QC % self.num_items + 1, shared_K)
        if self.fault == "padding column":
            return self.encode(batch) @ self.items.weight.T
        return columns_of(scores_QN, items_QC, shared_K)


# A generator that no key decides.
GENERATOR = torch.Generator().manual_seed(0)


class Bidirectional(TiedEncoder):
    """Each event sees the vectors of its neighbours on both sides; trained by the cloze task."""

    answers_everywhere = False

    def __init__(self, config: ToyConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, WIDTH, extra=1)
        self.inner, self.outer = nn.Linear(3 * WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def encode(self, batch: SequenceBatch) -> Tensor:
        check_newest(batch)
        if batch.asks == "next":
            batch = append_mask(batch, self.num_items + 1, self.maxlen)
        x_PD = self.items(batch.items_P)
        age_P = batch.layout.age_P
        is_first, is_last = age_P + 1 == batch.lengths_B.repeat_interleave(batch.lengths_B), age_P == 0
        before = x_PD.roll(1, 0).masked_fill(is_first[:, None], 0)
        after = x_PD.roll(-1, 0).masked_fill(is_last[:, None], 0)
        h_PD: Tensor = self.outer(self.inner(torch.cat((before, x_PD, after), 1)).relu())
        return h_PD[batch.asked_Q]


class Newest(TiedEncoder):
    """A mean over the history, weighed towards the newest event: it answers at the newest event alone."""

    answers_everywhere = False

    def __init__(self, config: ToyConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def encode(self, batch: SequenceBatch) -> Tensor:
        check_newest(batch)
        row_P = torch.arange(len(batch.lengths_B), device=self.device).repeat_interleave(batch.lengths_B)
        weighed = self.items(batch.items_P) * (0.01 ** batch.layout.age_P.float())[:, None]
        h_BD: Tensor = self.out(weighed.new_zeros(len(batch.lengths_B), WIDTH).index_add(0, row_P, weighed))
        return h_BD


class Ranker(Model):
    """Scores a candidate together with the event before it, without item vectors."""

    def __init__(self, config: ToyConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen)
        self.items, self.candidates = ItemEmbedding(self.num_items, WIDTH), ItemEmbedding(self.num_items, WIDTH)
        self.inner, self.outer = nn.Linear(3 * WIDTH, WIDTH), nn.Linear(WIDTH, 1)

    def logits(self, batch: SequenceBatch, items_QC: Tensor | None = None, shared_K: Tensor | None = None) -> Tensor:
        x_QD = self.items(batch.items_P[batch.asked_Q])
        if items_QC is None:
            items_QC = torch.arange(1, self.num_items + 1, device=self.device).expand(len(x_QD), -1)
        if shared_K is not None:
            items_QC = torch.cat((items_QC, shared_K.expand(len(x_QD), -1)), 1)
        y_QCD = self.candidates(items_QC)
        x_QCD = x_QD[:, None].expand_as(y_QCD)
        scores_QC1: Tensor = self.outer(self.inner(torch.cat((x_QCD, y_QCD, x_QCD * y_QCD), 2)).relu())
        return scores_QC1.squeeze(2)


class Torchs(TiedEncoder):
    """Torch's own recurrence and dropout, which draw from torch's own generator."""

    def __init__(self, config: ToyConfig, catalogue: Catalogue) -> None:
        super().__init__(catalogue.num_items, config.maxlen, WIDTH)
        self.dropout = nn.Dropout(0.1)
        self.gru = nn.GRU(WIDTH, WIDTH, num_layers=2, dropout=0.1, batch_first=True)

    def encode(self, batch: SequenceBatch) -> Tensor:
        rectangles = batch.layout.pad(self.dropout(self.items(batch.items_P)))
        return batch.layout.unpad([self.gru(x_GTD)[0] for x_GTD in rectangles])[batch.asked_Q]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    toys = {"broken": Broken, "bidirectional": Bidirectional, "newest": Newest, "ranker": Ranker, "torch": Torchs}
    for name, build in toys.items():
        monkeypatch.setitem(MODELS._entries, f"toy-{name}", ModelEntry(ToyConfig, build))


class TestBidirectional(ModelContract):
    config = ToyConfig(name="toy-bidirectional", maxlen=16, task="cloze")


class TestNewestOnly(ModelContract):
    config = ToyConfig(name="toy-newest", maxlen=16, task="prefixes")
    train: ClassVar = ModelContract.train.replace(num_epochs=5)


class TestRanker(ModelContract):
    config = ToyConfig(name="toy-ranker", maxlen=16)
    objective: ClassVar = ObjectiveConfig(loss="sampled-softmax", num_negatives=20)


class TestTorchs(ModelContract):
    config = ToyConfig(name="toy-torch", maxlen=16)


LAWS = {
    "future": "test_no_state_sees_the_future",
    "neighbours": "test_single_equals_batch",
    "no gradient": "test_gradients_reach_every_parameter",
    "asked": "test_an_answer_does_not_depend_on_what_else_is_asked",
    "products": "test_scores_are_inner_products",
    "padding": "test_padding_vector_is_zero_and_without_effect",
    "columns": "test_scores_of_candidates_are_columns_of_all_scores",
    "padding column": "test_scores_have_a_column_for_every_item_and_none_for_padding",
}


def contract_of(fault: str) -> Any:
    config = ToyConfig(name="toy-broken", maxlen=16, fault=fault)
    return type("Contract", (ModelContract,), {"config": config})()


@pytest.mark.parametrize(("fault", "law"), LAWS.items())
def test_a_broken_law_is_noticed(fault: str, law: str) -> None:
    getattr(contract_of(""), law)()
    with pytest.raises(AssertionError):
        getattr(contract_of(fault), law)()


def test_a_draw_without_a_key_is_noticed(tmp_path: Any) -> None:
    contract_of("").test_every_random_draw_is_keyed(tmp_path / "keyed")
    with pytest.raises(AssertionError):
        contract_of("draws").test_every_random_draw_is_keyed(tmp_path / "other")


def test_a_model_that_cannot_learn_is_noticed() -> None:
    contract = contract_of("")
    contract.train = contract.train.replace(num_epochs=1, lr=1e-6)
    with pytest.raises(AssertionError):
        contract.test_learns_that_one_item_determines_the_next()
