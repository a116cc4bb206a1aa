"""What is known of the items: titles, categories and further columns, in the vocabulary's order."""

from __future__ import annotations

import polars as pl

from ensue.data.interactions import USUAL_ITEM, plain_name
from ensue.data.readers import Source, collect, open_table
from ensue.data.vocabulary import Vocabulary
from ensue.errors import DataError

_TITLES = ("title", "name", "itemname", "movietitle", "producttitle")
_CATEGORIES = ("category", "categories", "genres", "genre", "attributes")


def read_item_table(source: Source, item_ids: Vocabulary, id_column: str | None = None) -> tuple[pl.DataFrame, int]:
    """Read a description of items and lay it out by item number.

    Columns with a usual name become `title` and `category`; the others keep their names. Of several rows
    of one item the first counts; rows of items that the log has not are left out.

    Args:
        source: a file with a header, or a frame.
        item_ids: the items, in order.
        id_column: the column of ids; by default one with a usual name ("item_id", "movieId", ...) or "id".

    Returns:
        N rows, column `id` first, and the number of items that were described.

    Raises:
        DataError: no column of ids, none of its ids is an item of the log, or an open quote swallows rows.
    """
    table = open_table(source, header=True, multiline=True)
    plain = {plain_name(name): name for name in reversed(table.names)}
    if id_column is None:
        id_column = next((plain[name] for name in (*USUAL_ITEM, "id") if name in plain), None)
    if id_column not in table.names:
        raise DataError(f"{table.where}: which column is the item's id? Columns: {', '.join(table.names)}")
    frame = collect(table, table.names)
    if table.quoted:
        _check_swallowed(frame, id_column, item_ids, table.where)
    ids = frame[id_column]
    if ids.dtype in (pl.Categorical, pl.Enum):
        ids = ids.cast(pl.String)
    numbers = pl.Series("number", item_ids.encode(ids))
    names = _standard_names(frame, plain, id_column)
    frame = frame.drop({id_column, "id"} & set(frame.columns)).rename(names)
    frame = frame.with_columns(numbers).filter(pl.col("number") > 0).unique("number", keep="first")
    if not frame.height:
        raise DataError(f"{table.where}: none of its ids in {id_column!r} is an item of the log")
    order = item_ids.ids.to_frame().with_row_index("number", offset=1).cast({"number": pl.Int32})
    laid = order.join(frame, on="number", how="left", maintain_order="left").drop("number")
    return laid, frame.height


def _check_swallowed(frame: pl.DataFrame, id_column: str, item_ids: Vocabulary, where: str) -> None:
    """Fields may have several lines; one that begins as the row of an item that has no row is a quote left open."""
    described = frame[id_column].cast(pl.String)
    for name in frame.columns:
        lines = frame[name].cast(pl.String).drop_nulls().str.split("\n").list.slice(1).explode().drop_nulls()
        starts = lines.str.extract(r'^"?([^,\t;|"]+)"?[,\t;|]').drop_nulls()
        missing = starts.filter(~starts.is_in(described.implode()))
        swallowed = [item for item, number in zip(missing, item_ids.encode(missing), strict=True) if number]
        if swallowed:
            raise DataError(
                f"{where}: a field of {name!r} holds the row of item {swallowed[0]!r}, so a quote before it is not "
                'closed: write a quote inside a quoted field as ""'
            )


def _standard_names(frame: pl.DataFrame, plain: dict[str, str], id_column: str) -> dict[str, str]:
    names = {}
    for standard, usual in (("title", _TITLES), ("category", _CATEGORIES)):
        found = next((plain[name] for name in usual if name in plain and plain[name] != id_column), None)
        if found is not None and found != standard and standard not in frame.columns:
            names[found] = standard
    return names
