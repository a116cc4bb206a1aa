"""The Markov chain keeps the contract, at first and at higher order."""

from __future__ import annotations

from ensue.models.markov import MarkovConfig
from ensue.testing import ModelContract


class TestMarkov(ModelContract):
    config = MarkovConfig(maxlen=16)


class TestMarkovOfOrderTwo(ModelContract):
    config = MarkovConfig(maxlen=16, order=2)
