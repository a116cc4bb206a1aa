"""Other libraries' figures from our standings and lists, against those that the libraries gave themselves.

docs/results/conventions.json has their figures, written by `python benchmarks/conventions.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ConfigError
from ensue.evaluation.conventions import CONVENTIONS, list_metric_of, metric_of
from ensue.evaluation.list_metrics import Lists
from ensue.evaluation.metrics import METRICS
from ensue.evaluation.protocol import EvaluateConfig

GIVEN = json.loads((Path(__file__).parents[2] / "docs" / "results" / "conventions.json").read_text())
LIBRARIES = [name for name in CONVENTIONS if name != "ensue"]


def figure(library: str, name: str, better: int, equal: int, number: int = 10, k: int = 5) -> float:
    """A metric of the library at the cut-off, or without one if it has none."""
    text = name if name in CONVENTIONS[library].without_cutoff else f"{name}@{k}"
    return float(metric_of(text, library)(better, equal, number))


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_release_is_the_one_that_was_run(library: str) -> None:
    assert CONVENTIONS[library].release == GIVEN[library]["version"]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("rank", range(1, 11))
def test_one_target_at_every_rank(library: str, rank: int) -> None:
    theirs = GIVEN[library]["figures"][f"rank {rank}"]
    assert theirs.keys() == set(CONVENTIONS[library].names or ())
    # RecBole computes AUC in single precision.
    tolerance = 1e-7 if library == "recbole" else 2e-12
    for name, value in theirs.items():
        assert figure(library, name, rank - 1, 0) == pytest.approx(value, abs=tolerance), name


def test_lists_shorter_than_the_cutoff() -> None:
    for library in ("ir-measures", "rectools", "replay", "lenskit"):
        theirs = GIVEN[library]["figures"]["short"]
        for name, value in theirs.items():
            if (library, name) != ("rectools", "auc"):  # it takes the missing places for other items
                assert figure(library, name, 1, 0, number=2) == pytest.approx(value, abs=2e-12), (library, name)


def test_ties_that_do_not_depend_on_the_order_of_the_catalogue() -> None:
    for asked in ("tied, first", "tied, last"):
        for library, name in (("cornac", "map"), ("cornac", "auc"), ("recbole", "auc")):
            value = GIVEN[library]["figures"][asked][name]
            assert figure(library, name, 0, 9) == pytest.approx(value, abs=1e-12), (library, name)


def lists_of_the_table() -> Lists:
    """Three lists of two items; items 1 to 5 have the training events of four users, item 4 none."""
    histories = [[1, 2, 3], [1, 2], [1, 5], [1, 1]]
    items = np.concatenate([[*history, 4, 4] for history in histories]).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(history) + 2 for history in histories])])
    store = SequenceStore.from_arrays(offsets, items, item_ids=Vocabulary.of_range(5))
    split = make_split(store, SplitConfig())
    counts = np.bincount(split.train.items_P, minlength=6)[1:].astype(float)
    assert counts.tolist() == [5, 2, 1, 0, 1]
    return Lists(np.array([[1, 2], [1, 3], [1, 4]]), split.test, split.train, counts)


@pytest.mark.parametrize("library", LIBRARIES)
def test_metrics_of_lists(library: str) -> None:
    theirs = GIVEN[library]["figures"]["lists"]
    names = CONVENTIONS[library].lists
    assert names is not None
    for name in names:
        value = float(list_metric_of(name, library)(lists_of_the_table()).mean())
        assert value == pytest.approx(theirs[name], abs=1e-12), name


@pytest.mark.parametrize("library", LIBRARIES)
def test_ties_are_the_mean_over_ranks_unless_the_library_breaks_them(library: str) -> None:
    own = {("cornac", "map"), ("cornac", "auc")}
    for name in CONVENTIONS[library].names or ():
        if (library, name) not in own:
            places = [figure(library, name, place, 0, 15) for place in range(2, 9)]
            assert figure(library, name, 2, 6, 15) == pytest.approx(np.mean(places), abs=1e-12), name


@pytest.mark.parametrize(
    ("text", "convention", "message"),
    [
        ("auc", "lenskit", "lenskit 2026.4.0 has no auc; it has hr, ndcg"),
        ("mrr@10", "cornac", "mrr has no cut-off; write 'mrr'"),
        ("ndcg", "rectools", "ndcg of rectools needs a cut-off, such as ndcg@10"),
        ("auc", "replay", "auc of replay needs a cut-off"),
        ("ndgc@10", "recbole", "did you mean 'ndcg'"),
        ("hr@0", "recbole", "got '0'"),
        ("hr@10", "rectool", "unknown convention 'rectool': did you mean 'rectools'"),
    ],
)
def test_a_metric_that_the_library_does_not_have_is_refused(text: str, convention: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        metric_of(text, convention)
    with pytest.raises(ConfigError, match=message):
        EvaluateConfig.parse({"metrics": [text], "convention": convention})


def test_a_list_metric_that_the_library_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no coverage"):
        EvaluateConfig.parse({"convention": "cornac", "metrics": ["hr@10"], "list_metrics": ["coverage@10"]})
    with pytest.raises(ConfigError, match="did you mean 'coverage'"):
        list_metric_of("covrage", "recbole")


def test_figures_have_the_name_of_the_convention() -> None:
    config = EvaluateConfig(convention="rectools", metrics=("ndcg@10",), list_metrics=("coverage@10",))
    assert config.key == "full+rectools"
    assert config.label("ndcg@10") == "ndcg@10|rectools"
    assert config.list_label("coverage@10") == "coverage@10|rectools"
    assert config.same != EvaluateConfig().same


def test_every_metric_is_in_a_convention() -> None:
    """A new rank metric is either in the table of conventions or known to be ours alone."""
    assert {name for library in LIBRARIES for name in CONVENTIONS[library].names or ()} == set(METRICS) - {"rank"}
