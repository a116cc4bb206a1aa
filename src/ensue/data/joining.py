"""The parts of a log as one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import polars as pl

from ensue.data.sources import SPLIT, Part
from ensue.data.table import MALFORMED, Join, Table, collect, first_line
from ensue.data.vocabulary import canonical_ints
from ensue.errors import DataError


def join(name: str, parts: Sequence[Part], opens: Sequence[Callable[[], Table]]) -> Table:
    """One table of all rows, part after part, with the columns from the parts' partition folders.

    Args:
        name: name of the log for messages.
        parts: its parts.
        opens: functions that open the parts.

    Raises:
        DataError: a part has other columns than the first one.
    """
    keys = _keys(parts)
    if len(parts) == 1:
        return _with_keys(opens[0](), parts[0], keys)
    looked: Table | None = None
    kept: list[Callable[[], Table]] = []
    for part, open_part in zip(parts, opens, strict=True):
        table = open_part()
        if looked is not None:
            _check_alike(looked, table)
        # Values are inferred from the first part that has any.
        if looked is None or (not _has_rows(looked) and _has_rows(table)):
            looked = table
        in_memory = table.file is not None and table.file.content is not None
        kept.append(_opener(part, open_part if in_memory else _constant(table), keys))
    assert looked is not None
    shown = _with_keys(looked, parts[0], keys)
    return replace(
        shown,
        where=name,
        file=None,
        malformed=None,
        uneven=None,
        kinds=None,
        check=lambda _: None,
        join=Join(tuple(part.name for part in parts), tuple(kept)),
    )


def finish(table: Table) -> Table:
    """The table of events, for shapes that turn rows into events only as a whole.

    A row with a wrong number of fields gives no events; it remains one row, which is counted as malformed.
    """
    if table.events is None:
        return table
    bad = 0
    if table.join is not None or table.kinds is not None or table.uneven is not None:
        frame = collect(table, table.names)
        if MALFORMED in frame.columns:
            bad = int(frame[MALFORMED].sum())
            frame = frame.filter(~pl.col(MALFORMED)).drop(MALFORMED)
        table = replace(table, rows=frame.lazy(), join=None, kinds=None, uneven=None, check=lambda _: None)
    assert table.events is not None
    try:
        events = table.events(table)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{table.where}: cannot be read ({first_line(error)})") from None
    events = replace(events, features=tuple(name for name in events.features if name in events.names))
    if not bad:
        return events
    empty = pl.DataFrame({MALFORMED: pl.Series([True] * bad)}).lazy()
    rows = pl.concat([events.rows, empty], how="diagonal").with_columns(pl.col(MALFORMED).fill_null(False))
    return replace(events, rows=rows, malformed=pl.col(MALFORMED))


def _constant(table: Table) -> Callable[[], Table]:
    return lambda: table


def _opener(part: Part, open_part: Callable[[], Table], keys: Mapping[str, bool]) -> Callable[[], Table]:
    return lambda: _with_keys(open_part(), part, keys)


def _has_rows(table: Table) -> bool:
    try:
        return table.rows.head(1).collect().height > 0
    except (pl.exceptions.PolarsError, OSError):  # reading the whole file reports the fault
        return False


def _check_alike(first: Table, table: Table) -> None:
    if table.text != first.text:
        raise DataError(
            f"{table.where}: has {'texts' if table.text else 'typed columns'}, unlike {first.where}: convert the parts "
            "to one form"
        )
    if set(table.names) != set(first.names):
        hint = ""
        if table.text and table.positional != first.positional:
            hint = "; one has a header and the other has none, by their first lines (--header, --no-header)"
        raise DataError(
            f"{table.where}: has the columns {_shown(table.names)}, unlike {first.where}: {_shown(first.names)}{hint}"
        )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def _keys(parts: Sequence[Part]) -> dict[str, bool]:
    """The columns from the parts' partition folders -> whether all their values are integers.

    Raises:
        DataError: some parts have them and others do not.
    """
    for part in parts[1:]:
        if part.columns.keys() != parts[0].columns.keys():
            one, other = (" ".join(each.columns) or "none" for each in (parts[0], part))
            raise DataError(f"{part.name}: is in partitions by {other}, unlike {parts[0].name}: {one}")
    values = {name: pl.Series([part.columns[name] for part in parts], dtype=pl.String) for name in parts[0].columns}
    return {name: canonical_ints(column).null_count() == column.null_count() for name, column in values.items()}


def _with_keys(table: Table, part: Part, keys: Mapping[str, bool]) -> Table:
    """The table with the columns from its partition folder; the table's own column of the same name is preferred."""
    new = {name: value for name, value in part.columns.items() if name not in table.names}
    if not new:
        return table
    columns = []
    for name, value in new.items():
        is_integer = keys[name] and not table.text
        typed = int(value) if is_integer and value is not None else value
        columns.append(pl.lit(typed, dtype=pl.Int64 if is_integer else pl.String).alias(name))
    return replace(
        table,
        rows=table.rows.with_columns(columns),
        names=[*table.names, *new],
        uneven=None if table.uneven is None else _with_keys(table.uneven, part, keys),
        features=(SPLIT,) if SPLIT in new else (),
    )
