"""Small models and batches that the tests of several models build."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from ensue.batches.batch import SequenceBatch, query_times
from ensue.models import Catalogue, build_model
from ensue.models.base import ModelConfig
from ensue.nn.embedding import initialise
from ensue.nn.model import Model
from ensue.testing import draw_biases

NUM_ITEMS = 30
# Three histories, the times of their events, and the times of the requests.
ITEMS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
TIMES = [[0, 60, 60, 7_200, 900_000], [5], [0, 1, 10**9]]
ASKED = [900_100, 5, 2 * 10**9]

M = TypeVar("M", bound=Model)


def built(kind: type[M], config: ModelConfig, catalogue: Catalogue | None = None, biases: bool = False) -> M:
    """A model in double precision with initial weights, and with drawn biases on request."""
    model = build_model(config, catalogue or Catalogue(NUM_ITEMS))
    assert isinstance(model, kind)
    initialise(model, 0)
    if biases:
        draw_biases(model)
    return model.double().eval()


def timed_batch() -> SequenceBatch:
    """`ITEMS` with their times and those of the requests."""
    lengths, times = np.array([len(row) for row in ITEMS]), np.concatenate(TIMES)
    request = query_times(times, lengths, np.array(ASKED))
    return SequenceBatch.from_numpy(np.concatenate(ITEMS), lengths, times, request)
