"""TIGER: the contract, exact probabilities, beam search, and the ids of items.

Suffixes: `Q` asked events, `N` items, `D` width.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ensue.batches.batch import SequenceBatch
from ensue.data.cooccurrence import cooccurrence_vectors
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ArtefactError, ConfigError, DataError
from ensue.models import Catalogue, build_model
from ensue.models.tiger import TIGER, TIGERConfig
from ensue.nn.embedding import initialise
from ensue.objectives.objective import ObjectiveConfig
from ensue.recommender import Recommender
from ensue.retrieval.beam import BeamSearch
from ensue.retrieval.retriever import Exhaustive
from ensue.testing import HISTORIES, NUM_ITEMS, ModelContract, item_vectors

SMALL = TIGERConfig(maxlen=16, hidden_units=16, dropout_rate=0.1, code_levels=2, code_size=8)
LISTS = [[1, 2, 3, 4], [2, 3, 1], [3, 1, 2, 4]]


class TestTIGER(ModelContract):
    config = SMALL
    objective = ObjectiveConfig(loss="likelihood")


class TestTIGERByContent(ModelContract):
    config = SMALL.replace(ids_from="both")
    objective = ObjectiveConfig(loss="likelihood")


def _store() -> SequenceStore:
    store = ordered_sequences(num_users=60, num_items=NUM_ITEMS, length=8)
    return replace(store, vectors=item_vectors())


def _model(config: TIGERConfig = SMALL) -> TIGER:
    store = _store()
    model = build_model(config, Catalogue.of_store(store))
    assert isinstance(model, TIGER)
    initialise(model, 0)
    model.study(make_split(store, SplitConfig()).train)
    # Larger vectors of codes, so that probabilities differ.
    for table in (*model.codes, *model.prefixes):
        table.data.mul_(4)
    return model.eval()


def _batch() -> SequenceBatch:
    return SequenceBatch.from_lists(HISTORIES)


@torch.inference_mode()
def test_scores_are_log_probabilities() -> None:
    log_p_QN = _model().logits(_batch())
    torch.testing.assert_close(log_p_QN.exp().sum(1), torch.ones(len(HISTORIES)))
    assert float(log_p_QN.std()) > 0.3


@torch.inference_mode()
def test_a_score_is_the_sum_over_the_levels_of_the_equations() -> None:
    """In double precision, for every item, from the set of valid ids alone."""
    model = _model().double()
    h_QD, codes = model.states(_batch()), [tuple(row) for row in model.codes_NL.tolist()]
    expected_QN = torch.zeros(len(HISTORIES), NUM_ITEMS, dtype=torch.float64)
    for item, own in enumerate(codes):
        for level in range(3):
            prefix_D = model.root[0] + sum(model.prefixes[each][own[each]] for each in range(level))
            decoder = model.decoders[level]
            gate_D = 2 * torch.sigmoid(decoder.gate(prefix_D))
            d_QD = gate_D * decoder.state(h_QD) + decoder.shift(prefix_D)
            valid = sorted({other[level] for other in codes if other[:level] == own[:level]})
            log_p = (d_QD @ model.codes[level][valid].T).log_softmax(1)
            expected_QN[:, item] += log_p[:, valid.index(own[level])]
    # The totals are in single precision.
    torch.testing.assert_close(model.logits(_batch()).double(), expected_QN, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_wide_beam_is_exact() -> None:
    model, batch = _model(), _batch()
    exact, best = Exhaustive(model)(batch, NUM_ITEMS)
    scores, items = model.beam(batch, NUM_ITEMS)
    torch.testing.assert_close(scores, exact)
    assert torch.equal(items, best)


@torch.inference_mode()
def test_a_narrow_beam_gives_valid_items_with_their_own_scores() -> None:
    model, batch = _model(), _batch()
    scores, items = BeamSearch(model, 3)(batch, 3)
    torch.testing.assert_close(scores, model.logits(batch).gather(1, items - 1))
    assert all(len(set(row)) == 3 for row in items.tolist())


@torch.inference_mode()
def test_the_beam_leaves_out_what_the_request_excludes() -> None:
    model, batch = _model(), _batch()
    exclude = torch.tensor([0, 0, 2]), torch.tensor([1, 3, 7])
    allow_N = torch.arange(NUM_ITEMS) % 3 > 0
    scores, items = BeamSearch(model, NUM_ITEMS)(batch, 6, exclude, allow_N)
    expected = Exhaustive(model)(batch, 6, exclude, allow_N)
    torch.testing.assert_close(scores, expected[0])
    assert torch.equal(items, expected[1])


def test_every_item_has_an_id_of_its_own_that_is_stored() -> None:
    model = _model()
    assert len(model.codes_NL.unique(dim=0)) == NUM_ITEMS
    other = build_model(SMALL, Catalogue.of_store(_store()))
    initialise(other, 1)
    with torch.inference_mode():
        other.eval().logits(_batch())  # uses the trie of the codes before they are loaded
        other.load_state_dict(model.state_dict())
        assert torch.equal(other.logits(_batch()), model.logits(_batch()))


@pytest.mark.parametrize("code", [-1, 8, 0])
def test_altered_ids_are_refused(code: int) -> None:
    """A code out of range, or an id that another item has."""
    model = _model()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["codes_NL"][5] = state["codes_NL"][6]
    if code:
        state["codes_NL"][5, 0] = code
    with pytest.raises(ArtefactError, match="codes of the items must be different and in range"):
        model.load_state_dict(state)


def test_items_that_share_neighbours_share_codes() -> None:
    """Two groups of items that never meet differ in the first code."""
    rows = [[1 + (start + step) % 4 + 4 * side for step in range(5)] for start in range(4) for side in range(2)]
    settings = {
        "hidden_units": 8,
        "num_epochs": 1,
        "loss": "likelihood",
        "code_levels": 1,
        "code_size": 2,
        "split": "none",
    }
    with pytest.raises(ConfigError, match=r"code_size 2 and code_levels 1 give 4 ids, fewer than 8 items: raise"):
        Recommender("tiger", **settings).fit(rows)
    model = Recommender("tiger", **{**settings, "code_levels": 4, "id_width": 2}).fit(rows).run.model
    assert isinstance(model, TIGER)
    first = model.codes_NL[:, 0]
    assert first[:4].unique().numel() == first[4:].unique().numel() == 1
    assert first[0] != first[4]


def test_new_items_get_codes_from_their_content() -> None:
    """An item's own content gives its own codes; content like another's gives the other's."""
    model = _model(SMALL.replace(ids_from="content", id_vectors=("text",)))
    text = item_vectors()["text"]
    known = model.codes_of(text[4:])
    assert (known == model.codes_NL[4:, :2].numpy()).all()
    assert (model.codes_of(3 * text[4:]) == known).all()
    with pytest.raises(DataError, match=r"shape \[X, 6\] \(got \(1, 5\)\)"):
        model.codes_of(text[:1, :5])


def test_items_without_events_get_codes_from_their_content() -> None:
    """With ids from both, an item that the training part lacks has the codes of its content alone."""
    store = _store()
    fewer = replace(store, items=np.where(store.items == NUM_ITEMS, 7, store.items))
    train = make_split(fewer, SplitConfig()).train
    model = build_model(SMALL.replace(ids_from="both", id_vectors=("text",)), Catalogue.of_store(fewer))
    assert isinstance(model, TIGER)
    model.study(train)
    assert not cooccurrence_vectors(train, 4)[-1].any()
    expected = model.codes_of(item_vectors()["text"][-1:])
    assert (model.codes_NL[-1:, :2].numpy() == expected).all()


def test_without_content() -> None:
    with pytest.raises(DataError, match=r"no vectors of its items.*--item-text title.*--ids-from log"):
        Recommender("tiger", ids_from="content", loss="likelihood").fit(LISTS)
    with pytest.raises(DataError, match="from the log alone"):
        _model().codes_of(np.zeros((1, 4), np.float32))
    with pytest.raises(ConfigError, match="id_vectors needs ids_from"):
        Recommender("tiger", id_vectors=("text",))


def test_losses() -> None:
    with pytest.raises(ConfigError, match=r"loss ce needs item vectors.*use likelihood"):
        Recommender("tiger", loss="ce").fit(LISTS)
    with pytest.raises(ConfigError, match="scores are log-probabilities, such as tiger"):
        Recommender("sasrec", loss="likelihood").fit(LISTS)
