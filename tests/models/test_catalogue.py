"""What a model may know of the items: values as numbers, columns of vectors."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

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


def test_values_are_numbered_in_their_sorted_order() -> None:
    codes, count = Catalogue(4, ITEMS).codes("category")
    assert (codes.tolist(), count) == ([2, 0, 1, 2], 2)
    # The same values give the same numbers, whichever item comes first.
    codes, _ = Catalogue(4, ITEMS.reverse()).codes("category")
    assert codes.tolist() == [2, 1, 0, 2]


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
        ("vektor", "no column 'vektor': did you mean 'vector'"),
        ("category", "'category' must contain vectors, as lists of numbers"),
        ("ragged", r"vectors of item column 'ragged' must all have the same width \(got \[1, 2\]\)"),
    ],
)
def test_what_is_refused(column: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Catalogue(4, ITEMS).vectors(column)
