"""The padded models keep the laws of every model, and attend to their padding."""

from __future__ import annotations

import pytest
import torch

from ensue.batches.batch import SequenceBatch
from ensue.classic.models import PaddedSASRecConfig, PaddedTiSASRecConfig, fill_left
from ensue.errors import DataError
from ensue.models import Catalogue, build_model
from ensue.nn.embedding import initialise
from ensue.testing import ModelContract

SMALL = PaddedSASRecConfig(maxlen=16, hidden_units=16, dropout_rate=0.1, norm="post")
SMALL_TIME = PaddedTiSASRecConfig(maxlen=16, hidden_units=16, dropout_rate=0.1, norm="original")


class TestPaddedSASRec(ModelContract):
    config = SMALL


class TestPaddedSASRecOf2020(ModelContract):
    config = SMALL.replace(norm="original", clear_padding=True, num_heads=2)


class TestPaddedTiSASRec(ModelContract):
    config = SMALL_TIME


def test_rows_are_filled_on_the_left() -> None:
    filled = fill_left(SequenceBatch.from_lists([[7], [4, 5, 6]]), 4)
    assert filled.batch.items_P.tolist() == [0, 0, 0, 7, 0, 4, 5, 6]
    assert filled.real[:, 0].tolist() == [0, 0, 0, 1, 0, 1, 1, 1]
    assert filled.batch.items_P[filled.cell_P].tolist() == [7, 4, 5, 6]
    assert filled.batch.lengths_B.tolist() == [4, 4]


@pytest.mark.parametrize("clear", [False, True])
def test_the_amount_of_padding_counts(clear: bool) -> None:
    """The same weights with fewer places to fill give other scores: the padding is attended."""
    scores = []
    for maxlen in (8, 16):
        model = build_model(SMALL.replace(maxlen=maxlen, clear_padding=clear), Catalogue(30))
        initialise(model, 0)
        torch.nn.init.zeros_(model.positions.table)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.constant_(parameter, 0.1)
        scores.append(model.eval().logits(SequenceBatch.from_lists([[3, 5]])))
    assert not torch.allclose(scores[0], scores[1], atol=1e-4)


def test_the_unit_of_intervals_is_reported() -> None:
    assert build_model(SMALL_TIME, Catalogue(30)).interval_unit == (1, "smallest gaps")
    assert build_model(SMALL_TIME.replace(time_unit=3600), Catalogue(30)).interval_unit == (3600, "seconds")


def test_times_are_required() -> None:
    model = build_model(SMALL_TIME, Catalogue(30))
    with pytest.raises(DataError, match="needs times of events"):
        model.logits(SequenceBatch.from_lists([[3, 5]]))
