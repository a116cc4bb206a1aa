"""Numbers with a decimal comma (`3,5`), as exported by spreadsheets in many countries together with `;`."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

_COMMA = r"^\s*-?\d+,\d+\s*$"
_WHOLE = r"^\s*-?\d*\s*$"


def with_points(frame: pl.DataFrame, names: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """Replace the decimal comma by a point in columns where every value is a whole number or has one comma.

    Args:
        frame: texts of a file whose separator is not a comma.
        names: columns that may hold numbers; ids keep what is written.

    Returns:
        The frame, and a note for each column that changed.
    """
    notes = []
    for name in dict.fromkeys(names):
        values = frame[name]
        if values.dtype != pl.String:
            continue
        commas = values.str.contains(_COMMA).fill_null(False)
        if not commas.any() or not (commas | values.str.contains(_WHOLE).fill_null(True)).all():
            continue
        frame = frame.with_columns(values.str.replace(",", ".", literal=True))
        example = values.filter(commas)[0].strip()
        notes.append(f"column {name!r} has decimal commas: {example!r} is read as {example.replace(',', '.')}")
    return frame, notes
