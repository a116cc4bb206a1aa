"""Data that a model cannot use: the error names what is missing, the flag that supplies it, and what does without."""

from __future__ import annotations

import pytest

from ensue.errors import DataError
from ensue.recommender import Recommender

LISTS = [[1, 2, 3, 4], [2, 3, 1], [3, 1, 2, 4]]
SMALL = {"hidden_units": 8, "num_epochs": 1, "device": "cpu", "patience": 0}


@pytest.mark.parametrize("model", ["bst", "tisasrec", "hstu"])
def test_times(model: str) -> None:
    loss = {"loss": "bce"}
    with pytest.raises(DataError, match=r"needs times of events.*prepare --time COLUMN.*--time order.*such as sasrec"):
        Recommender(model, **SMALL, **loss).fit(LISTS)


def test_sessions() -> None:
    with pytest.raises(DataError, match=r"needs sessions.*no times.*prepare --time COLUMN.*use gru4rec"):
        Recommender("hgru4rec", **SMALL, loss="ce").fit(LISTS)


@pytest.mark.parametrize("model", ["bst", "gru4rec", "bert4rec"])
def test_features(model: str) -> None:
    with pytest.raises(DataError, match=r"no event, item or user column 'brand'.*prepare --features brand.*omit it"):
        Recommender(model, **SMALL, loss="bce", features=("brand",)).fit(LISTS)


def test_the_kind_to_predict() -> None:
    with pytest.raises(DataError, match=r"no event feature 'event'.*prepare --features event.*without --target-event"):
        Recommender("gru4rec", **SMALL, loss="ce", target_event="buy").fit(LISTS)


@pytest.mark.parametrize("name", ["substitute", "insert"])
def test_similar_items(name: str) -> None:
    """A log in which every user repeats one item has none beside another."""
    settings = {"loss": "ce", "auxiliary": "contrastive", "split": "none"}
    with pytest.raises(DataError, match=rf"augmentation {name} needs similar items.*--augmentations crop,mask,reorder"):
        Recommender("gru4rec", **SMALL, **settings, augmentations=("crop", name)).fit([[1, 1, 1], [2, 2, 2]])
    Recommender("gru4rec", **SMALL, **settings, augmentations=("crop", "mask")).fit([[1, 1, 1], [2, 2, 2]])
