"""Probabilities sum to one over the items that may be recommended, and only models that have them give them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ensue.errors import ConfigError, EnsueError
from ensue.models import MODELS
from ensue.nn.model import CountedModel
from ensue.recommender import Recommender
from ensue.retrieval.probabilities import Probabilities, most_probable, shares, softmax

TOY = [[1, 2, 3, 4], [1, 2, 5]]
SMALL: dict[str, Any] = {"hidden_units": 8, "num_epochs": 2, "maxlen": 8, "device": "cpu"}


def test_a_toy_is_read_as_textbooks_write_it() -> None:
    """3 and 5 follow 2 once each. 1, 2, 3, 4, 5 occur 2, 2, 1, 1, 1 times; a weight of one event is the prior's."""
    result = Recommender("markov").fit(TOY).recommend([1, 2], k=5)
    assert result.ids == [3, 5, 4]
    after_2 = [(1 + (1 + 1 / 5) / 8) / 3] * 2 + [(1 + 1 / 5) / 8 / 3]
    assert [entry.score for entry in result] == pytest.approx(after_2)
    probable = Recommender("markov").fit(TOY).recommend([1, 2], k=5, probabilities=True)
    assert [entry.score for entry in probable] == pytest.approx([score / sum(after_2) for score in after_2])


def test_ids_may_be_strings_and_a_split_may_be_named() -> None:
    toy = [["a", "b", "c", "d"], ["a", "b", "e"]] * 3
    assert Recommender("markov").fit(toy).recommend(["a", "b"], k=2).ids == ["c", "e"]
    held = Recommender("markov", split="leave-one-out").fit(toy)
    assert 0 <= held.evaluate(toy)[0]["hr@10"] <= 1
    with pytest.raises(EnsueError, match="nothing to evaluate"):
        Recommender("markov").fit(toy).evaluate(toy)


@pytest.mark.parametrize("settings", [{"loss": "ce"}, {"loss": "sampled-softmax", "num_negatives": 2}])
def test_an_encoder_of_a_softmax_loss_gives_the_softmax_of_its_scores(settings: dict[str, Any]) -> None:
    toy = Recommender("gru4rec", **settings, **SMALL).fit(TOY * 3)
    scores = {entry.item: entry.score for entry in toy.recommend([1, 2])}
    probable = {entry.item: entry.score for entry in toy.recommend([1, 2], probabilities=True)}
    expected = torch.tensor(list(scores.values())).softmax(0).tolist()
    assert list(probable) == list(scores)
    assert list(probable.values()) == pytest.approx(expected)
    with_seen = toy.recommend([1, 2], exclude_seen=False, probabilities=True)
    assert sum(entry.score for entry in with_seen) == pytest.approx(1)


@pytest.mark.parametrize(
    "settings", [{"loss": "bce"}, {"loss": "sampled-softmax", "logq": False, "negatives": "popularity"}]
)
def test_other_losses_give_no_probabilities(settings: dict[str, Any]) -> None:
    toy = Recommender("gru4rec", **settings, **SMALL).fit(TOY)
    with pytest.raises(EnsueError, match="not probabilities: train with loss = 'ce'"):
        toy.recommend([1, 2], probabilities=True)


def test_newcomers_get_shares_of_popularity() -> None:
    result = Recommender("gru4rec", loss="ce", **SMALL).fit(TOY).recommend(["no such id"], probabilities=True)
    assert [entry.score for entry in result] == pytest.approx([2 / 7, 2 / 7, 1 / 7, 1 / 7, 1 / 7])
    with pytest.raises(ConfigError, match="probabilities must be True or False"):
        Recommender("markov").fit(TOY).recommend([1], probabilities=1)  # type: ignore[arg-type]


def test_every_counted_model_says_whether_it_counts_events() -> None:
    toy = [[1, 2, 3, 4], [1, 2, 5], [2, 3, 5, 1]]
    for name in MODELS:
        build = MODELS[name].build
        if isinstance(build, type) and issubclass(build, CountedModel) and build.counts_events:
            result = Recommender(name).fit(toy).recommend([1, 2], exclude_seen=False, probabilities=True)
            assert sum(entry.score for entry in result) == pytest.approx(1), name
            assert min(entry.score for entry in result) >= 0, name


def test_what_is_left_out_has_no_probability() -> None:
    for normalise in (shares, softmax):
        scores = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0]])
        allow = torch.tensor([True, True, False])
        best, items = most_probable(normalise, scores, 3, (torch.tensor([1]), torch.tensor([1])), allow)
        assert items[:, 0].tolist() == [2, 2]
        assert best[1].tolist() == [1.0, float("-inf"), float("-inf")]
        assert best[0, :2].sum().item() == pytest.approx(1)
        assert best[0, 2].item() == float("-inf")


def test_a_row_without_an_item_left_has_none() -> None:
    for normalise in (shares, softmax):
        best, _ = most_probable(normalise, torch.ones(1, 2), 2, allow_N=torch.tensor([False, False]))
        assert best.tolist() == [[float("-inf")] * 2]


def test_a_model_without_counts_of_events_is_refused() -> None:
    class Other(MODELS["popularity"].build):  # type: ignore[misc,name-defined]
        counts_events = False

    config = Recommender("popularity").config
    with pytest.raises(EnsueError, match="scores of Other are not probabilities"):
        Probabilities(Other(config.model, type("C", (), {"num_items": 3})()), config.objective)
