"""Vectors of items: columns of an item file, or sentences made of its texts, as float32 arrays of the store.

Suffixes: `N` items, `D` width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
from pydantic import Field

from ensue.config import Config
from ensue.data.arrays import is_feature_name
from ensue.data.store import SequenceStore, as_text
from ensue.data.text_vectors import TextEncoder, encode_texts
from ensue.errors import DataError, nearest

TEXT = "text"


class ItemVectors(Config):
    """The vectors that a store is to have. Columns that contain vectors leave the item table."""

    columns: tuple[str, ...] = Field((), description="columns of --items that contain vectors, as lists of numbers")
    text: tuple[str, ...] = Field((), description="columns of --items whose texts are embedded, such as title,category")
    encoder: TextEncoder = Field("auto", description="auto: sentences if the extra text is installed")

    def added(self, store: SequenceStore, progress: Callable[[str], None]) -> tuple[SequenceStore, tuple[str, ...]]:
        """The store with the vectors, and a note on each.

        Raises:
            DataError: the item table has no such column, or a column does not contain vectors.
        """
        table, vectors, notes = store.item_table, dict(store.vectors), []
        for name in self.columns:
            if not is_feature_name(name) or (name == TEXT and self.text):
                rule = (
                    "is taken by the vectors of the texts" if name == TEXT else "must have letters, digits and _ only"
                )
                raise DataError(f"the name of a column of vectors {rule} (got {name!r}): rename the column")
            vectors[name] = column_of_vectors(_column(table, name), name)
            table = table.drop(name)
            notes.append(_note(name, vectors[name], "from the item file"))
        if self.text:
            progress("embed texts")
            texts = [_column(table, name) for name in self.text]
            vectors[TEXT], how = encode_texts(joined(texts), self.encoder)
            notes.append(_note(TEXT, vectors[TEXT], f"of {', '.join(self.text)}, {how}"))
        made = {**store.made, "vectors": notes} if notes else store.made
        return replace(store, item_table=table, vectors=vectors, made=made), tuple(notes)


def _note(name: str, vectors_ND: np.ndarray, how: str) -> str:
    known = int(vectors_ND.any(1).sum())
    count, width = vectors_ND.shape
    return f"item vectors {name!r}: {width} numbers {how}; {known:,} of {count:,} items have them"


def joined(texts: list[pl.Series]) -> list[str]:
    """One text per item from several columns, separated by ". "; "" for an item without any."""
    columns = {str(number): as_text(text).str.replace_all("|", ", ", literal=True) for number, text in enumerate(texts)}
    frame = pl.DataFrame(columns).with_columns(pl.all().str.strip_chars().replace("", None))
    return frame.select(pl.concat_str(pl.all(), separator=". ", ignore_nulls=True)).to_series().fill_null("").to_list()


def column_of_vectors(values: pl.Series, name: str) -> np.ndarray:
    """A column of lists of numbers as float32 [N, D], zero for items without a vector.

    Raises:
        DataError: the values are not lists of numbers, differ in width, or are NaN or infinite.
    """
    if not isinstance(values.dtype, pl.List | pl.Array) or not values.dtype.inner.is_numeric():
        raise DataError(f"item column {name!r} must contain vectors, as lists of numbers (got {values.dtype})")
    lists = values.cast(pl.List(pl.Float32))
    widths = lists.list.len().drop_nulls().unique().sort().to_list()
    if len(widths) != 1 or widths == [0]:
        raise DataError(
            f"the vectors of item column {name!r} must all have the same width of 1 or more (got {widths[:5]})"
        )
    numbers = lists.drop_nulls().explode()
    if numbers.null_count() or not bool(numbers.is_finite().all()):
        raise DataError(f"a vector of item column {name!r} has a number that is missing, NaN or infinite")
    vectors_ND = np.zeros((len(lists), widths[0]), np.float32)
    vectors_ND[lists.is_not_null().to_numpy()] = numbers.to_numpy().reshape(-1, widths[0])
    return vectors_ND


def _column(table: pl.DataFrame, name: str) -> pl.Series:
    if name == "id" or name not in table.columns:
        known = [column for column in table.columns if column != "id"]
        raise DataError(
            f"the items have no column {name!r}: "
            + (nearest(name, known) if known else "give the file that has it (--items FILE, items=)")
        )
    return table[name]
