"""SASRec keeps the contract in every variant, and is what its paper says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ensue.batches.batch import SequenceBatch
from ensue.errors import ConfigError
from ensue.models import Catalogue, build_model, model_config
from ensue.models.sasrec import SASRec, SASRecConfig
from ensue.nn.attention import ATTENTIONS
from ensue.nn.block import Norm
from ensue.nn.embedding import Positions, initialise
from ensue.testing import ModelContract

SMALL = SASRecConfig(maxlen=16, hidden_units=16, num_blocks=2, dropout_rate=0.1)


class TestSASRec(ModelContract):
    config = SMALL


class TestPostNormTwoHeadsSinusoids(ModelContract):
    config = SMALL.replace(norm="post", num_heads=2, positions="sinusoidal")


class TestRotary(ModelContract):
    config = SMALL.replace(norm="original", num_heads=2, positions="rotary", num_blocks=1)


class TestRelativePositions(ModelContract):
    config = SMALL.replace(num_heads=2, positions="relative", num_blocks=1)


class TestOriginalNormWithoutPositions(ModelContract):
    config = SMALL.replace(norm="original", positions="none", num_blocks=1)


class TestManifoldConstrainedHyperConnections(ModelContract):
    config = SMALL.replace(residual="mhc", num_blocks=1)


class TestGatedResiduals(ModelContract):
    config = SMALL.replace(residual="gated", num_blocks=1)


# Histories of the contract have up to 8 events: blocks of two, so that there are far blocks.
for _kind in ATTENTIONS:
    if _kind != "full":
        _config = SMALL.replace(num_blocks=1, num_heads=2, attention=_kind, attention_window=2, attention_size=4)
        globals()[f"TestAttention{_kind.title()}"] = type("Attention", (ModelContract,), {"config": _config})


def model_of(**changes: object) -> SASRec:
    model = build_model(SMALL.replace(**changes), Catalogue(30))
    assert isinstance(model, SASRec)
    initialise(model, 0)
    return model.eval()


@pytest.mark.parametrize("norm", ["pre", "post", "original"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "relative", "none"])
def test_the_last_block_for_the_newest_event_alone_changes_nothing(norm: Norm, positions: Positions) -> None:
    for num_blocks in (1, 3):
        model = model_of(norm=norm, positions=positions, num_blocks=num_blocks, num_heads=4)
        batch = SequenceBatch.from_lists([[5], [1, 2, 3, 30], [7, 7], [9, 8, 7, 6, 5, 4, 3, 2]])
        with torch.no_grad():
            torch.testing.assert_close(
                model.encode(batch), model.encode(batch.asking_all())[batch.layout.last_B], rtol=1e-5, atol=1e-6
            )


def test_positions_count_from_the_newest_event() -> None:
    """Without positions a repeated item gives equal states throughout; with them it does not."""
    batch = SequenceBatch.from_lists([[4, 4, 4]]).asking_all()
    with torch.no_grad():
        alike = model_of(positions="none").encode(batch)
        torch.testing.assert_close(alike[0].expand(3, -1), alike, rtol=1e-5, atol=1e-6)
        model = model_of(positions="learned")
        h = model.encode(batch)
        assert not torch.allclose(h[0], h[1], atol=1e-3)
        # The newest event's vector is row 0 of the table whatever the length: rows 3.. are not read here.
        assert model.positions.table is not None
        model.positions.table[3:] = 1e3
        assert torch.equal(model.encode(batch), h)


def test_the_input_is_the_scaled_item_vector_plus_the_position() -> None:
    """One event, no blocks' say: with all projections zero the state is the normalised input."""
    model = model_of(num_blocks=1)
    block = model.trunk.blocks[0]
    with torch.no_grad():
        for layer in (block.attention.out, block.feed_forward.outer):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        h = model.encode(SequenceBatch.from_lists([[6]]))
        assert model.positions.table is not None
        x = model.items.weight[6] * 4.0 + model.positions.table[0]
        torch.testing.assert_close(h[0], nn.functional.layer_norm(x, (16,), eps=1e-8), rtol=1e-5, atol=1e-5)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="num_heads 3 must divide hidden_units 16"):
        SMALL.replace(num_heads=3)


def test_names_are_checked() -> None:
    with pytest.raises(ConfigError, match="did you mean 'sasrec'"):
        model_config({"name": "sasrek"})
    with pytest.raises(ConfigError, match="needs a name"):
        model_config({"hidden_units": 4})
    with pytest.raises(ConfigError, match=r"\[model\]: unknown setting 'hiden_units': did you mean 'hidden_units'"):
        model_config({"name": "sasrec", "hiden_units": 4})
