"""Content vectors of items: what joins the vectors of ids, for which items, and what trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ensue.nn.content import ItemContent, ItemVectorConfig
from ensue.nn.embedding import ItemEmbedding, dense_gradients, initialise
from ensue.nn.ops.dropout import draws_from

N, WIDTH = 12, 4
VECTORS = np.random.default_rng(1).normal(size=(N, 5)).astype(np.float32)
VECTORS[2] = 0


def table_of(vectors: list[np.ndarray] | None = None, **settings: object) -> ItemEmbedding:
    table = ItemEmbedding(N, WIDTH, extra=1)
    config = ItemVectorConfig.parse({"item_vectors": "frozen", "vector_rate": 0.0, **settings})
    table.content = ItemContent(config, vectors or [VECTORS], table)
    initialise(table, 0)
    return table.eval()


def content(table: ItemEmbedding) -> ItemContent:
    assert isinstance(table.content, ItemContent)
    return table.content


def naive(table: ItemEmbedding, vectors: np.ndarray = VECTORS, number: int = 0) -> np.ndarray:
    """The projected content of all items, in numpy."""
    known = (vectors != 0).any(1)
    moved = vectors - vectors[known].mean(0)
    weight = content(table).projections[number].weight.detach().numpy()  # type: ignore[union-attr, operator]
    out = moved / np.linalg.norm(moved, axis=1, keepdims=True) @ weight.T
    out[~known] = content(table).defaults[number].detach().numpy()
    return out


def test_content_is_added_to_the_vectors_of_ids() -> None:
    table = table_of()
    expected = table.weight[1 : N + 1].detach().numpy() + naive(table)
    np.testing.assert_allclose(table.catalogue().detach(), expected, rtol=1e-5, atol=1e-6)
    few = torch.tensor([[3, 5], [12, 1]])
    np.testing.assert_allclose(table(few).detach(), expected[few.numpy() - 1], rtol=1e-5, atol=1e-6)
    # More lookups than items take the way over the whole catalogue.
    many = torch.arange(1, N + 1).repeat(3)
    assert torch.equal(table(many)[:N], table.catalogue())


@pytest.mark.parametrize("mix", ["sum", "dual", "only"])
def test_an_item_without_training_events_has_its_content_alone(mix: str) -> None:
    table = table_of(vector_mix=mix)
    counts = np.ones(N)
    counts[[4, 7]] = 0
    content(table).study(counts)
    vectors, projected = table.catalogue(), naive(table)
    np.testing.assert_allclose(vectors[[4, 7]].detach(), projected[[4, 7]], rtol=1e-5, atol=1e-6)
    if mix == "dual":
        assert torch.equal(vectors[0], table.weight[1])
    assert torch.equal(table(torch.tensor([N + 1]))[0], table.weight[N + 1])  # [MASK] has no content


def test_items_without_events_teach_nothing() -> None:
    table = table_of(item_vectors="tuned")
    counts = np.ones(N)
    counts[4] = 0
    content(table).study(counts)
    table.catalogue()[4].sum().backward()
    dense_gradients(table.parameters())
    assert not any(bool(parameter.grad.any()) for parameter in table.parameters() if parameter.grad is not None)


def test_frozen_vectors_are_no_parameters_and_tuned_ones_are() -> None:
    assert "content.content_0" not in dict(table_of().named_parameters())
    tuned = table_of(item_vectors="tuned")
    tuned(torch.tensor([1, 2])).sum().backward()
    dense_gradients(tuned.parameters())
    grad = content(tuned).get_parameter("content_0").grad
    assert grad is not None
    assert grad.any(1).nonzero()[:, 0].tolist() == [1, 2]


def test_in_training_some_items_lose_their_ids_by_a_keyed_draw() -> None:
    table = table_of(vector_rate=0.5).train()
    items = torch.ones(1000, dtype=torch.int64)

    def drawn(seed: int) -> torch.Tensor:
        with draws_from(seed, torch.device("cpu")), torch.no_grad():
            return table(items)

    alone = torch.isclose(drawn(1), content(table)._of(items)).all(1)
    assert 400 < int(alone.sum()) < 600
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_several_contents_are_summed_or_weighed() -> None:
    other = np.random.default_rng(2).normal(size=(N, 3)).astype(np.float32)
    summed = table_of([VECTORS, other], vector_mix="only")
    expected = naive(summed) + naive(summed, other, 1)
    np.testing.assert_allclose(summed.catalogue().detach(), expected, rtol=1e-5, atol=1e-6)
    gated = table_of([VECTORS, other], vector_mix="only", vector_fusion="gate")
    one, two = naive(gated), naive(gated, other, 1)
    gate = content(gated).gate
    assert gate is not None
    scores = np.tanh(np.stack((one, two), 1)) @ gate.weight.detach().numpy()[0]
    share = np.exp(scores[:, :1]) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(gated.catalogue().detach(), share * one + (1 - share) * two, rtol=1e-4, atol=1e-6)
