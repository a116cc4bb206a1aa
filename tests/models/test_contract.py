"""The contract has teeth: models that break a law fail the law's own test."""

from __future__ import annotations

from typing import Literal

import pytest
from torch import Tensor, nn

from ensue.batches.batch import SequenceBatch
from ensue.models import MODELS
from ensue.models.base import ModelConfig, ModelEntry
from ensue.nn.embedding import ItemEmbedding
from ensue.testing import ModelContract


class BrokenConfig(ModelConfig):
    """Which law to break."""

    name: Literal["broken"] = "broken"
    fault: str = ""


class Broken(nn.Module):
    """The state is the item's own vector; each fault breaks one law."""

    def __init__(self, config: BrokenConfig, num_items: int) -> None:
        super().__init__()
        self.num_items, self.maxlen, self.fault = num_items, config.maxlen, config.fault
        self.items = ItemEmbedding(num_items, 8)
        self.out = nn.Linear(8, 8)

    def encode(self, batch: SequenceBatch) -> Tensor:
        h_PD = self.out(self.items(batch.items_P))
        if self.fault == "future":
            h_PD = h_PD + 1e-6 * h_PD[batch.layout.last_B].repeat_interleave(batch.lengths_B, 0)
        if self.fault == "neighbours":
            h_PD = h_PD + 0.01 * h_PD.mean()
        if self.fault == "no gradient":
            h_PD = self.items(batch.items_P)
        return h_PD

    def query(self, batch: SequenceBatch) -> Tensor:
        if self.fault == "query":
            return self.encode(batch)[batch.layout.last_B - 1]
        return self.encode(batch)[batch.layout.last_B]

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        if self.fault == "padding":
            vectors = self.items.weight[1:] + self.items.weight[0]
            return vectors if items is None else vectors[items - 1]
        return self.items.catalogue() if items is None else self.items(items)

    def score(self, batch: SequenceBatch, items_BC: Tensor | None = None) -> Tensor:
        scores_BN = self.query(batch) @ self.item_vectors().T
        if self.fault == "columns":
            return scores_BN if items_BC is None else scores_BN.gather(1, items_BC % self.num_items)
        if self.fault == "padding column":
            return self.query(batch) @ self.items.weight.T
        return scores_BN if items_BC is None else scores_BN.gather(1, items_BC - 1)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS._entries, "broken", ModelEntry(BrokenConfig, Broken))


LAWS = {
    "future": "test_no_state_sees_the_future",
    "neighbours": "test_single_equals_batch",
    "no gradient": "test_gradients_reach_every_parameter",
    "query": "test_query_is_the_newest_state_and_scores_are_inner_products",
    "padding": "test_padding_vector_is_zero_and_without_effect",
    "columns": "test_scores_of_candidates_are_columns_of_all_scores",
    "padding column": "test_scores_have_a_column_for_every_item_and_none_for_padding",
}


def contract_of(fault: str) -> ModelContract:
    return type("Contract", (ModelContract,), {"config": BrokenConfig(maxlen=16, fault=fault)})()


@pytest.mark.parametrize(("fault", "law"), LAWS.items())
def test_a_broken_law_is_noticed(fault: str, law: str) -> None:
    getattr(contract_of(""), law)()
    with pytest.raises(AssertionError):
        getattr(contract_of(fault), law)()


def test_a_model_that_cannot_learn_is_noticed() -> None:
    contract = contract_of("")
    contract.train = contract.train.replace(num_epochs=1, lr=1e-6)
    with pytest.raises(AssertionError):
        contract.test_learns_that_one_item_determines_the_next()
