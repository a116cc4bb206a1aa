"""The data of the classic command line: `data/<dataset>.txt` in the format of those repositories, or a public dataset.

Suffixes: `E` events, `U` users.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ensue.data.interactions import Columns
from ensue.data.meanings import NONE
from ensue.data.prepare import PrepareConfig, prepare
from ensue.data.readers import LOOKED_AT, looks_like_names, open_table
from ensue.data.store import SequenceStore
from ensue.data.table import Reading
from ensue.datasets.catalog import load_dataset
from ensue.errors import ConfigError, DataError

# Number of columns of a file -> their meaning.
FORMS = {
    2: Columns(user="1", item="2", time=NONE, rating=NONE, header=False),
    3: Columns(user="1", item="2", time="3", rating=NONE, header=False),
    4: Columns(user="1", item="2", rating="3", time="4", header=False),
}
# TiSASRec.pytorch filters by event counts once, on the whole file.
TISASREC = PrepareConfig(min_user_events=5, min_item_events=5, filter="single")
# Names of SASRec.pytorch's files -> public datasets.
ALIASES = {"Beauty": "amazon-beauty", "Video": "amazon-games", "Steam": "steam"}


def read_data(dataset: str, folder: Path = Path("data")) -> tuple[SequenceStore, str]:
    """Read a dataset.

    Args:
        dataset: the name.
        folder: the folder of `<dataset>.txt`.

    Returns:
        The store, in memory, and one line that describes it.

    Raises:
        DataError: neither such a file nor such a dataset exists, or it cannot be read.
    """
    path = folder / f"{dataset}.txt"
    if not path.is_file():
        store = _public(dataset, path)
        return store, f"data: public dataset {ALIASES.get(dataset, dataset)}, {_size(store)}"
    opened = open_table(path, Reading(header=False))
    first, *following = opened.rows.head(LOOKED_AT).select(opened.names).collect().rows()
    if looks_like_names(first, following):
        raise DataError(f"{path}: the first line is a header, not an event: {' '.join(map(str, first))!r}; remove it")
    count = len(opened.names)
    if count not in FORMS:
        raise DataError(
            f"{path}: must have 2 columns (user item), 3 (user item timestamp) or 4 (user item rating timestamp), has "
            f"{count}"
        )
    store, report = prepare(path, None, FORMS[count], PrepareConfig() if count == 2 else TISASREC)
    dropped = ", ".join(f"{rows:,} rows dropped: {reason}" for reason, rows in report.dropped.items())
    return store, f"data: {path}, {_size(store)}" + (f" ({dropped})" if dropped else "")


def _public(dataset: str, path: Path) -> SequenceStore:
    try:
        return load_dataset(ALIASES.get(dataset, dataset))
    except ConfigError as error:
        raise DataError(f"no file {path}, and no public dataset of this name: {error}") from None


def _size(store: SequenceStore) -> str:
    times = "no timestamps" if store.times is None else "timestamps"
    mean = store.num_events / store.num_users
    return (
        f"{store.num_users:,} users, {store.num_items:,} items, {store.num_events:,} events, {times}, "
        f"mean length {mean:.2f}"
    )


def in_user_units(store: SequenceStore) -> SequenceStore:
    """Convert a store's times to those of TiSASRec.pytorch: in units of the user's smallest gap, counted from 1.

    The gap is the smallest in the whole history, including held-out events, so the times of held-out events affect the
    scale. Use this only to reproduce the scores of that program.

    Raises:
        DataError: the store has no times.
    """
    if store.times is None:
        raise DataError("the time units of TiSASRec need timestamps, but the data has none")
    times_E = store.times.astype(np.int64)
    user_E = np.repeat(np.arange(store.num_users), store.lengths)
    gap_E = np.diff(times_E)
    within = (user_E[1:] == user_E[:-1]) & (gap_E != 0)
    unit_U = np.full(store.num_users, np.iinfo(np.int64).max)
    np.minimum.at(unit_U, user_E[1:][within], gap_E[within])
    unit_U[unit_U == np.iinfo(np.int64).max] = 1
    first_E = times_E[store.offsets[:-1]][user_E]
    units_E = np.rint((times_E - first_E) / unit_U[user_E]).astype(np.int64) + 1
    return replace(store, times=units_E, folder=None, recorded=None)
