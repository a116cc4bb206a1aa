"""Rows of unknown users: a mostly empty column of users, or an id that stands for all unknown users."""

from __future__ import annotations

import polars as pl

from ensue.data.doubt import Answer, Doubt, UnclearLogError
from ensue.data.meanings import SESSIONS, usual_column
from ensue.data.table import Table

_PLACEHOLDERS = (
    *("", "na", "n/a", "nan", "null", "none", "\\n", "-1", "0", "unknown", "undefined", "(not set)"),
    *("guest", "anonymous", "anon", "nobody", "visitor", "00000000-0000-0000-0000-000000000000"),
)


def refuse_anonymous(table: Table, values: pl.Series) -> None:
    """Refuse a mostly empty column of users if the log also has a column of sessions that was not named.

    Args:
        table: the log.
        values: the column of users, under its own name.

    Raises:
        UnclearLogError: the user is one of the two columns.
    """
    sessions = usual_column(table.names, SESSIONS)
    if sessions is None or sessions == values.name or not len(values):
        return
    empty = values.is_null() | values.cast(pl.String).str.to_lowercase().is_in(_PLACEHOLDERS).fill_null(False)
    share = int(empty.sum()) / len(empty)
    if share > 0.5:
        what = (
            f"which column is the user? {values.name!r} names none in {share:.0%} of the rows, while {sessions!r} "
            f"names sessions. Columns: {', '.join(table.names)}"
        )
        answers = (
            Answer({"user": sessions}, "each session is a history of its own"),
            Answer({"user": values.name}, "rows without a user are dropped"),
        )
        raise UnclearLogError(Doubt(what, answers, where=table.where))


def placeholder_notes(frame: pl.DataFrame) -> list[str]:
    """Note an id that stands for all unknown users: they would form one very long history."""
    users = frame["user"]
    if not frame.height:
        return []
    unknown = users.str.to_lowercase().is_in(_PLACEHOLDERS) if users.dtype == pl.String else users == -1
    share = float(unknown.mean() or 0)  # type: ignore[arg-type]
    if share < 0.05:
        return []
    name = users.filter(unknown)[0]
    return [
        f"user {name!r} has {share:.0%} of the events: if it stands for unknown users, leave it out "
        f'(--where "COLUMN != {name!r}")'
    ]
