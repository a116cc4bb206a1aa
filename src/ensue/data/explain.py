"""The meaning assumed for each column of a log, the reason, and some values; only the first rows are read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from ensue.data.doubt import UnclearLogError
from ensue.data.interactions import Columns, columns_of
from ensue.data.logs import open_log
from ensue.data.meanings import dates_in, epochs_in, present, sample, texts_of
from ensue.data.moments import UNIT_NAMES, to_microseconds
from ensue.data.sources import Source
from ensue.data.table import Table
from ensue.data.where import parse_where

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ColumnExplanation:
    """One column of a log.

    Attributes:
        column: its name.
        taken_for: user, item, time, clock, rating, feature or condition, several joined by "and"; "" if it is ignored.
        why: by what, in words.
        samples: its first values.
    """

    column: str
    taken_for: str
    why: str
    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The assumed meaning of a log's columns.

    Attributes:
        source: what the log is called.
        shape: the published shape that it is recognised as, with the evidence; "" for none.
        columns: its columns, in its order.
    """

    source: str
    shape: str
    columns: tuple[ColumnExplanation, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def explain(source: Source, columns: Columns | None = None) -> Explanation:
    """The meaning of each column of a log, from the column names and the first rows.

    Args:
        source: as for `read_interactions`.
        columns: what is said of the columns.

    Raises:
        DataError: the source cannot be read, a column is missing or has two meanings.
        UnclearLogError: the log can be read in more than one way.
    """
    columns = columns or Columns()
    table = open_log(source, columns.reading)
    chosen = columns_of(table, columns)
    uses: dict[str, list[tuple[str, str]]] = {name: [] for name in table.names}
    for meaning, choice in chosen.items():
        uses[choice.column].append((meaning, choice.why))
    for name in columns.features:
        uses[present(table, name, "feature")].append(("feature", "named"))
    for name in () if columns.where is None else parse_where(columns.where).columns:
        uses[present(table, name, "condition")].append(("condition", "named in where"))
    frame = sample(table, table.names)
    explained = tuple(_explained(table, frame[name], uses[name], columns) for name in table.names)
    return Explanation(table.where, f"{table.shape}: {table.evidence}" if table.shape else "", explained)


def _explained(table: Table, values: pl.Series, uses: list[tuple[str, str]], columns: Columns) -> ColumnExplanation:
    samples = tuple(texts_of(values.drop_nulls().head(_SHOWN)))
    if not uses:
        return ColumnExplanation(values.name, "", _unused(table, values), samples)
    why = "; ".join(dict.fromkeys(reason for _, reason in uses))
    if any(meaning == "time" for meaning, _ in uses):
        why += f"; {_form(values, columns)}"
    return ColumnExplanation(values.name, " and ".join(meaning for meaning, _ in uses), why, samples)


def _form(values: pl.Series, columns: Columns) -> str:
    """The format of the times, from the first rows."""
    try:
        _, unit = to_microseconds(values, columns.time_unit, columns.time_format, columns.time_zone, columns.date_order)
    except UnclearLogError as error:
        return f"in the first rows {error.doubt.what}"
    zone = columns.time_zone or "UTC"
    return f"numbers of {UNIT_NAMES[unit]}" if unit in UNIT_NAMES else f"{unit}, {zone} where no zone is stated"


def _unused(table: Table, values: pl.Series) -> str:
    if dates_in(values) or epochs_in(values):
        return "not read, though it holds times; --time names it instead"
    if table.shape:
        return f"not read: no part of the shape {table.shape}; --features keeps it"
    return "not read: no usual name; --features keeps it"
