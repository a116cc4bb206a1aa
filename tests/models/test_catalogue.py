"""What a model may know of the items: codes of features, columns of vectors."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ensue.data.features import Feature
from ensue.data.store import SequenceStore
from ensue.errors import DataError
from ensue.models import Catalogue

ITEMS = pl.DataFrame(
    {
        "id": [10, 20, 30, 40],
        "category": ["b", None, "a", "b"],
        "vector": [[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]],
        "ragged": [[1.0], [1.0, 2.0], None, None],
    }
)


def test_features_of_items_are_coded_by_item_number() -> None:
    feature = Feature("category", "item", ("a", "b"))
    ((same, codes_NM),) = Catalogue(4, ITEMS, features=(feature,)).coded_features()
    assert same is feature
    assert codes_NM is not None
    assert codes_NM.tolist() == [[0], [2], [0], [1], [2], [0]]
    assert Catalogue(4, ITEMS, features=(feature,)).coded_features(("user",)) == []


def test_vectors_are_a_matrix_with_zeros_where_there_is_none() -> None:
    assert Catalogue(4, ITEMS).vectors("vector").tolist() == [[1, 2], [0, 0], [3, 4], [5, 6]]


def test_of_a_store() -> None:
    store = SequenceStore.from_arrays(np.array([0, 2]), np.array([1, 3]))
    catalogue = Catalogue.of_store(store)
    assert catalogue.num_items == 3
    assert catalogue.items["id"].to_list() == [1, 2, 3]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("vektor", "no vectors 'vektor': did you mean 'vector'"),
        ("category", "'category' must contain vectors, as lists of numbers"),
        ("ragged", r"vectors of item column 'ragged' must all have the same width of 1 or more \(got \[1, 2\]\)"),
    ],
)
def test_what_is_refused(column: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Catalogue(4, ITEMS).vectors(column)
