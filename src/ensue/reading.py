"""Conversion of a caller's data to a store: a log in a file or frame, lists of sequences, a folder, or a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensue.data.interactions import Columns
from ensue.data.nested import Lists, frame_of_lists, is_lists
from ensue.data.prepare import PrepareConfig, prepare
from ensue.data.sources import Source
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError, nearest
from ensue.files import MANIFEST
from ensue.runtime.forks import check_process

Data = SequenceStore | Source | Lists
# The columns of `frame_of_lists`.
_OF_LISTS = Columns(user="user", item="item", time="-")


def read(
    source: Source | Lists,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    items: Source | None = None,
    users: Source | None = None,
    **settings: Any,
) -> SequenceStore:
    """Read and prepare a log in memory.

    Args:
        source: a file (CSV, TSV, `::`, JSON Lines, Parquet), a folder of files, a pattern such as "log/*.csv", a frame
            (polars, pandas, pyarrow, DuckDB), a list of these, a dictionary of these for train, validation and test, or
            sequences as lists of item ids, oldest first: `[[1, 2, 3, 4], [1, 2, 5]]`. The user of a list is its index,
            from 0.
        user: column of user ids; by default a column with a usual name.
        item: column of item ids; by default a column with a usual name.
        time: column of times; by default a column with a usual name, or else the order of rows.
        items: a file or frame with the items' titles and categories.
        users: a file or frame with columns of users.
        settings: other fields of `Columns`, such as `rating="stars"` or `header=False`, and of `PrepareConfig`, such as
            `min_user_events=5`.

    Raises:
        DataError: the log cannot be read, or no events are left after preparation.
        ConfigError: an unknown setting, or a value that breaks its rule.
    """
    check_process()
    more = {name: settings.pop(name) for name in list(settings) if name in Columns.model_fields}
    columns = Columns.parse({"user": user, "item": item, "time": time, **more})
    unknown = sorted(settings.keys() - PrepareConfig.model_fields.keys())
    if unknown:
        known = [*Columns.model_fields, *PrepareConfig.model_fields]
        raise ConfigError(f"unknown setting {unknown[0]!r}: {nearest(unknown[0], known)}")
    if is_lists(source):
        if given := sorted(columns.model_dump(exclude_defaults=True)):
            raise ConfigError(f"lists of sequences have no columns: leave out {given[0]}")
        return prepare(frame_of_lists(source), None, _OF_LISTS, PrepareConfig.parse(settings), items, users=users)[0]
    return prepare(source, None, columns, PrepareConfig.parse(settings), items, users=users)[0]


def open_data(data: Data) -> SequenceStore:
    """The given store, or the store of a folder, a log or lists; a folder's files are checked before they are read."""
    check_process()
    if isinstance(data, str | Path) and (Path(data) / MANIFEST).is_file():
        data = SequenceStore.open(Path(data))
    store = data if isinstance(data, SequenceStore) else read(data)
    store.verify_once()
    return store
