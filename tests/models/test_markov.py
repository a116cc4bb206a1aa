"""The Markov chain keeps the contract, at first and at higher order, with every smoothing and with skips."""

from __future__ import annotations

import pytest
import torch

from ensue.errors import ArtefactError
from ensue.models.markov import MarkovConfig
from ensue.testing import ModelContract


class TestMarkov(ModelContract):
    config = MarkovConfig(maxlen=16)


class TestMarkovOfOrderTwo(ModelContract):
    config = MarkovConfig(maxlen=16, order=2)


class TestAdditiveWithSkips(ModelContract):
    config = MarkovConfig(maxlen=16, order=2, smoothing_method="additive", skips=2)


class TestKneserNey(ModelContract):
    config = MarkovConfig(maxlen=16, order=3, smoothing_method="kneser-ney", skips=1)


@pytest.mark.parametrize("settings", [{"skips": 0}, {"smoothing_method": "interpolated"}])
def test_counts_of_other_settings_are_refused(settings: dict[str, object]) -> None:
    kneser_ney = TestKneserNey()
    state = kneser_ney.fresh().state_dict()
    other = type("Other", (ModelContract,), {"config": kneser_ney.config.replace(**settings)})()
    with pytest.raises(ArtefactError, match="skips and smoothing_method"):
        other.fresh().load_state_dict(state)
    state["1.continuations"] = torch.zeros_like(state["1.continuations"])
    with pytest.raises(ArtefactError, match="count is below 1"):
        kneser_ney.fresh().load_state_dict(state)
